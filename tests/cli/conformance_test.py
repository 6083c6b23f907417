"""`fl conformance`: our server and our client keep to FORMAT.md, sloppy ones written from the golden files are found out."""

import pathlib
import signal
import socket
import ssl
import threading
import time

import support
from support import ROOT, experiment

CONFIG, IO, NONCONFORMING, INTERRUPTED = 2, 4, 7, 130
# Weights of 106 kB: they travel as blobs.
WIDE = {"name": "spec", "stages": [{"linear": {"out": 2048}}, {"relu": {}}, {"linear": {"out": "classes"}}]}


def golden(name):
    """The bytes of a frame."""
    return bytes.fromhex((ROOT / "tests" / "golden" / f"{name}.hex").read_text(encoding="utf-8"))


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


class SloppyServer:
    """Speaks TLS of any version with anybody, welcomes whatever is said to it, and closes soon after."""

    def __init__(self, folder):
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "pki/issued/server/cert.pem", folder / "pki/issued/server/key.pem")
        context.set_alpn_protocols(["tributary/1"])
        self.context = context
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        threading.Thread(target=self.accept, daemon=True).start()

    def accept(self):
        while True:
            try:
                connection, _ = self.listener.accept()
            except OSError:
                return
            threading.Thread(target=self.serve, args=(connection,), daemon=True).start()

    def serve(self, connection):
        try:
            with self.context.wrap_socket(connection, server_side=True) as link:
                link.settimeout(10)
                if link.recv(1024):
                    link.sendall(golden("welcome"))
                    time.sleep(0.1)  # so that two connections of the test overlap
        except OSError:
            pass


class ConformanceTest(support.CliTest):
    def setUp(self):
        super().setUp()
        self.fl("pki", "init")
        self.fl("pki", "issue", "server", "server", "--host", "127.0.0.1")
        for name in ("alice", "probe"):
            self.fl("pki", "issue", "client", name)

    def tls(self, name):
        return {"certificate": f"pki/issued/{name}/cert.pem", "key": f"pki/issued/{name}/key.pem", "authority": "pki/ca.pem"}

    def arguments(self, name):
        return [word for key, path in self.tls(name).items() for word in (f"--{key}", path)]

    def start_beside(self, program, *arguments):
        """A program that lies beside `fl`."""
        self.program, fl = str(pathlib.Path(self.program).with_name(program)), self.program
        try:
            return self.start(*arguments)
        finally:
            self.program = fl

    def start_listening(self, *more):
        """`fl conformance --listen` and its port."""
        process = self.start("conformance", "--listen", "127.0.0.1:0", *self.arguments("server"), "--revocations", "pki/crl.pem", "--json", *more)
        return process, int(process.stderr.readline().split(b";")[0].rsplit(b":", 1)[1])

    def checked(self, result, code):
        """The checks that a run made: {what: result}."""
        self.assertEqual(result.code, code, result.out + result.err)
        *checks, totals = result.objects()
        counted = [one["result"] for one in checks]
        self.assertEqual([totals["passed"], totals["failed"], totals["skipped"]], [counted.count(one) for one in ("ok", "FAILED", "skipped")])
        self.assertEqual(totals["failed"] > 0, code == NONCONFORMING)
        for one in checks:
            self.assertEqual("detail" in one, one["result"] != "ok", one)
        return {one["check"]: one["result"] for one in checks}, {one["section"] for one in checks}

    def failures(self, checks):
        return [what for what, result in checks.items() if result == "FAILED"]


class OurOwn(ConformanceTest):
    def test_server_keeps_to_the_format(self):
        port = free_port()
        self.write("server.json", {"experiment": experiment(rounds=1000, model=WIDE, partition={"name": "iid", "clients": 3},
                                                            round={"cohort": 1, "max_abandoned": 100}),
                                   "folder": "run", "listen": f"127.0.0.1:{port}", "tls": {**self.tls("server"), "revocations": "pki/crl.pem"},
                                   "clients": {"minimum": 1}, "limits": {"heartbeat_s": 2}})
        server = self.start_beside("fl-aggregator", "server.json", "--json")
        while b"begins on" not in (line := server.stderr.readline()):
            self.assertTrue(line, "the aggregator ended")
        target = [f"127.0.0.1:{port}", *self.arguments("probe"), "--input", "8", "--classes", "4", "--json"]
        checks, sections = self.checked(self.fl("conformance", *target), 0)
        self.assertEqual(sections, set("123456789"))
        self.assertNotIn("skipped", checks.values())
        # What answers a task is left out when it should be, and the server still serves after all that.
        passive, _ = self.checked(self.fl("conformance", *target, "--passive"), 0)
        self.assertEqual([what for what, result in passive.items() if result == "skipped"], ["gives a task to a client that is ready"])
        # A server that is right is still the wrong one for this certificate or these examples.
        refused, _ = self.checked(self.fl("conformance", f"127.0.0.1:{port}", *self.arguments("probe"), "--json", code=NONCONFORMING), NONCONFORMING)
        self.assertEqual(self.failures(refused), ["answers hello with a well-formed welcome that brings the plan"])
        server.send_signal(signal.SIGTERM)
        self.assertEqual(self.finish(server).code, INTERRUPTED)

    def test_client_keeps_to_the_format(self):
        process, port = self.start_listening()
        self.write("client.json", {"server": f"127.0.0.1:{port}", "tls": self.tls("alice"), "state": "state", "exit_when_finished": True,
                                   "data": {"name": "synthetic", "examples": 100, "test_examples": 10, "input": [8], "classes": 4}})
        client = self.start_beside("fl-client", "client.json")
        checks, sections = self.checked(self.finish(process), 0)
        self.assertEqual(sections, set("145678"))
        self.assertEqual(set(checks.values()), {"ok"})
        self.assertEqual(self.finish(client).code, 0)


class Others(ConformanceTest):
    def test_a_sloppy_server_is_found_out(self):
        server = SloppyServer(self.folder)
        self.addCleanup(server.listener.close)
        result = self.fl("conformance", f"127.0.0.1:{server.port}", *self.arguments("probe"), "--json", code=NONCONFORMING)
        checks, _ = self.checked(result, NONCONFORMING)
        failed = self.failures(checks)
        # Its welcome is a golden file, but Python's TLS offers session tickets, and that comes out first.
        self.assertEqual(failed, ["answers hello with a well-formed welcome that brings the plan"])
        self.assertIn("resume TLS sessions", result.out)
        self.assertFalse(result.objects()[-1]["complete"])

        server.context.num_tickets = 0
        checks, _ = self.checked(self.fl("conformance", f"127.0.0.1:{server.port}", *self.arguments("probe"), "--passive", "--json", code=NONCONFORMING), NONCONFORMING)
        failed = self.failures(checks)
        for what in ("refuses TLS 1.2", "refuses a client without a certificate", "refuses another application protocol",
                     "refuses a client that names no application protocol", "leaves out the plan that the client holds, and gives it the same number",
                     "ends the older connection of an identity with 'refused' (fenced)", "refuses another protocol version",
                     "refuses examples of another shape", "answers heartbeats, each with its request", "ignores a fetch of a blob that no task refers to",
                     "the same for a failure"):
            self.assertIn(what, failed)
        self.assertEqual(checks["ends the connection for frame type 9"], "ok")

    def test_a_client_that_only_says_hello_is_found_out(self):
        process, port = self.start_listening("--wait", "5")
        context = ssl.create_default_context(cafile=str(self.folder / "pki/ca.pem"))
        context.load_cert_chain(self.folder / "pki/issued/alice/cert.pem", self.folder / "pki/issued/alice/key.pem")
        context.set_alpn_protocols(["tributary/1"])
        with context.wrap_socket(socket.create_connection(("127.0.0.1", port)), server_hostname="127.0.0.1") as link:
            link.sendall(golden("hello"))
            result = self.finish(process)
        checks, _ = self.checked(result, NONCONFORMING)
        self.assertEqual(checks["its hello names protocol 1, its examples and their shape"], "ok")
        self.assertEqual(self.failures(checks), ["sends heartbeats while it is idle", "ignores a receipt for a task that it does not know",
                                                 "fetches a model that it does not hold"])
        self.assertFalse(result.objects()[-1]["complete"])

    def test_a_client_that_sends_no_frames_is_found_out(self):
        process, port = self.start_listening("--wait", "5")
        with socket.create_connection(("127.0.0.1", port)) as link:
            link.sendall(b"GET / HTTP/1.1\r\n\r\n")
            result = self.finish(process)
        checks, _ = self.checked(result, NONCONFORMING)
        self.assertIn("is not TLS", result.out)
        self.assertEqual(list(checks.values()), ["FAILED"])


class WrongUse(ConformanceTest):
    def test_is_one_line(self):
        probe = self.arguments("probe")
        port = free_port()
        for arguments, code, parts in (
            (["conformance", *probe], CONFIG, ["expected the HOST:PORT of a server", "--listen"]),
            (["conformance", "a:1", "--listen", "b:2", *probe], CONFIG, ["--listen"]),
            (["conformance", "localhost", *probe], CONFIG, ["HOST:PORT", "localhost"]),
            (["conformance", "localhost:70000", *probe], CONFIG, ["HOST:PORT", "70000"]),
            (["conformance", "127.0.0.1:7443"], CONFIG, ["--certificate is required"]),
            (["conformance", "127.0.0.1:7443", *probe, "--wait", "0"], CONFIG, ["--wait"]),
            (["conformance", f"127.0.0.1:{port}", *probe], IO, [f"127.0.0.1:{port}", "Connection refused", "is the server running there?"]),
            (["conformance", f"127.0.0.1:{port}", *self.arguments("server")], CONFIG, ["is the certificate of a server, expected one of a client"]),
            (["conformance", "--listen", "127.0.0.1:0", *self.arguments("server")], CONFIG, ["--revocations"]),
            (["conformance", "--listen", "127.0.0.1:0", *probe, "--revocations", "pki/crl.pem"], CONFIG, ["expected one of a server"]),
        ):
            with self.subTest(arguments):
                result = self.fl(*arguments, code=code)
                self.assertEqual(result.out, "")
                self.assert_one_error_line(result, *parts)


if __name__ == "__main__":
    support.main()
