"""fl pki: what it writes and prints, and that a mistake is one line and changes nothing."""

import hmac
import os
import re
import shutil
import stat
import subprocess
import unittest

import support

CONFIG, IO = 2, 4
COMMANDS = ("init", "issue", "token", "request", "renew", "revoke", "list")


class PkiTest(support.CliTest):
    def pki(self, *arguments, **options):
        return self.fl("pki", *arguments, **options)

    def listing(self, folder="pki"):
        return self.pki("list", "--json", "--pki", folder).objects()[0]

    def token(self, name, *arguments):
        return re.search(r"^token +([0-9a-f]{32})$", self.pki("token", name, *arguments).out, re.MULTILINE).group(1)

    def mode(self, path):
        return stat.S_IMODE((self.folder / path).stat().st_mode)

    def assert_refused(self, arguments, *parts, code=CONFIG):
        with self.subTest(" ".join(map(str, arguments))[:200]):
            def snapshot():
                return {path: path.read_bytes() for path in self.folder.rglob("*") if path.is_file() and path.name != ".lock"}
            before = snapshot()
            result = self.pki(*arguments, code=code)
            self.assertEqual(result.out, "")
            self.assert_one_error_line(result, *parts)
            self.assertEqual(snapshot(), before, "nothing is changed")


class Tour(PkiTest):
    def test_every_command_has_help(self):
        overview = self.pki("--help").out
        for command in COMMANDS:
            self.assertRegex(overview, rf"(?m)^  {command} ")
            self.assertIn(f"Usage: fl pki {command} ", self.pki(command, "--help").out)
        for role in ("server", "client"):
            self.assertIn(f"Usage: fl pki issue {role} ", self.pki("issue", role, "--help").out)

    def test_from_nothing_to_a_running_federation(self):
        out = self.pki("init", "pki").out
        self.assertIn("pki/ca.pem", out)
        self.assertIn("fl pki issue server NAME --host HOST", out)
        out = self.pki("issue", "server", "aggregator", "--host", "localhost", "--host", "127.0.0.1", "--days", "90").out
        for part in ("server 'aggregator' for localhost, 127.0.0.1", "pki/issued/aggregator/cert.pem", "pki/issued/aggregator/key.pem",
                     "pki/ca.pem", "pki/crl.pem", "90 days"):
            self.assertIn(part, out)
        self.assertIn("copy to the device: pki/issued/alice/cert.pem pki/issued/alice/key.pem pki/ca.pem", self.pki("issue", "client", "alice").out)
        for private in ("pki/ca.key", "pki/index.json", "pki/issued/aggregator/key.pem", "pki/issued/alice/key.pem"):
            self.assertEqual(self.mode(private), 0o600, private)
        listing = self.listing()
        self.assertEqual([(one["name"], one["role"], one["key"], one["status"]) for one in listing["certificates"]],
                         [("aggregator", "server", "P-256", "valid"), ("alice", "client", "Ed25519", "valid")])
        # Whole days, rounded down: the last one ends a second after the issue.
        for one, days in zip(listing["certificates"], (90, 365)):
            self.assertIn(one["days_left"], (days - 1, days))
        self.assertEqual(listing["certificates"][0]["hosts"], ["localhost", "127.0.0.1"])
        self.assertEqual((listing["crl_number"], listing["warnings"], listing["tokens"]), (1, [], []))

    def test_a_device_enrols_with_a_token_and_keeps_its_key(self):
        self.pki("init", "authority")
        for given in ("argument", "standard input"):
            name = "bob" if given == "argument" else "carol"
            token = self.token(name, "--pki", "authority")
            if given == "argument":
                result = self.pki("request", name, "--token", token, "--output", name)
            else:
                reader, writer = os.pipe()
                os.write(writer, f"{token} \n".encode())
                os.close(writer)
                result = self.pki_from(reader, "request", name, "--token", "-", "--output", name)
                os.close(reader)
            self.assertNotIn(token, result.out + result.err)
            self.assertIn(f"fl pki issue client {name} --request", result.out)
            self.assertEqual(self.mode(f"{name}/key.pem"), 0o600)
            key = (self.folder / name / "key.pem").read_bytes()
            out = self.pki("issue", "client", name, "--request", f"{name}/request.pem", "--pki", "authority").out
            self.assertNotIn("key.pem", out)
            self.assertEqual([path.name for path in (self.folder / "authority" / "issued" / name).iterdir()], ["cert.pem"])
            self.assertEqual((self.folder / name / "key.pem").read_bytes(), key)

    def pki_from(self, stdin, *arguments):
        # CliTest.start closes standard input, which is right for every other command.
        done = subprocess.run([self.program, "pki", *arguments], cwd=self.folder, stdin=stdin, capture_output=True, check=False,
                              timeout=support.HANGS_AFTER_S)
        self.assertEqual(done.returncode, 0, done.stderr)
        return support.Result(done.returncode, done.stdout, done.stderr)

    def test_renew_and_revoke(self):
        self.pki("init", "pki")
        self.pki("issue", "client", "alice", "--days", "10")
        out = self.pki("list").out
        self.assertRegex(out, r"(?m)^alice +client +Ed25519 +(9|10) +expires soon +[0-9A-F]{32}$")
        self.assertRegex(out, r"(?m)^!! +client 'alice' has (9|10) days left: 'fl pki renew alice'$")
        key = (self.folder / "pki/issued/alice/key.pem").read_bytes()
        out = self.pki("renew", "alice").out
        self.assertIn("client 'alice', 365 days", out)
        self.assertIn("key and root stay", out)
        self.assertNotIn("!!", out)
        self.assertEqual((self.folder / "pki/issued/alice/key.pem").read_bytes(), key)
        listing = self.listing()
        self.assertEqual([one["status"] for one in listing["certificates"]], ["replaced", "valid"])
        self.assertEqual(listing["warnings"], [])
        out = self.pki("revoke", "alice").out
        for one in listing["certificates"]:
            self.assertIn(one["serial"], out)
        self.assertIn("pki/crl.pem, number 2", out)
        self.assertEqual([one["status"] for one in self.listing()["certificates"]], ["revoked", "revoked"])
        self.pki("issue", "client", "alice")
        self.assertNotEqual((self.folder / "pki/issued/alice/key.pem").read_bytes(), key)

    @unittest.skipUnless(shutil.which("openssl"), "makes the key of an earlier version with openssl")
    def test_a_p256_key_of_an_earlier_version_becomes_ed25519(self):
        def openssl(*arguments):
            return subprocess.run(["openssl", *arguments], cwd=self.folder, check=True, capture_output=True, timeout=support.HANGS_AFTER_S).stdout
        self.pki("init", "pki")
        token = self.token("bob")
        openssl("genpkey", "-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256", "-out", "bob.key")
        proof = hmac.digest(token.encode(), openssl("pkey", "-in", "bob.key", "-pubout", "-outform", "DER"), "sha256").hex()
        self.write("bob.cnf", f"[req]\nprompt=no\ndistinguished_name=name\nattributes=proof\n[name]\nCN=bob\n[proof]\nchallengePassword={proof}\n")
        openssl("req", "-new", "-key", "bob.key", "-config", "bob.cnf", "-out", "bob.request")
        self.pki("issue", "client", "bob", "--request", "bob.request")
        # Only the device has it: it stays, and a person is told how to change it.
        out = self.pki("renew", "bob").out
        self.assertRegex(out, r"(?m)^!! +the key is no Ed25519 key, .*'fl pki token bob' here, then 'fl pki request bob --token - --output DIR'")
        self.assertIn("key and root stay", out)
        # The authority made it: a new one takes its place.
        shutil.copy(self.folder / "bob.key", self.folder / "pki/issued/bob/key.pem")
        out = self.pki("renew", "bob").out
        self.assertRegex(out, r"(?m)^key +pki/issued/bob/key.pem +\(new, Ed25519 instead of P-256")
        self.assertIn("copy both over cert.pem and key.pem there", out)
        self.assertEqual(self.mode("pki/issued/bob/key.pem"), 0o600)
        self.assertEqual([one["key"] for one in self.listing()["certificates"]], ["P-256", "P-256", "Ed25519"])

    def test_no_private_key_is_printed(self):
        printed = self.pki("init", "pki").out + self.pki("issue", "client", "alice").out + self.pki("list", "--json").out
        self.assertNotIn("PRIVATE", printed)
        self.assertNotIn("BEGIN", printed)


class BadInput(PkiTest):
    def test_command_lines(self):
        self.pki("init", "pki")
        self.pki("issue", "client", "alice")
        for arguments, parts in (
            ([], ["pki: expected a command", "init, issue, token"]),
            (["isue"], ["pki: there is no command 'isue'", "did you mean 'issue'?"]),
            (["issue"], ["pki issue: expected a command", "server, client"]),
            (["issue", "cleint", "x"], ["pki issue: there is no command 'cleint'", "did you mean 'client'?"]),
            (["issue", "server", "x"], ["pki issue server: --host is required"]),
            (["issue", "server", "x", "--hots", "y", "--host", "a"], ["there is no option '--hots'", "did you mean '--host'?"]),
            (["issue", "client"], ["pki issue client: NAME is required"]),
            (["issue", "client", "a", "b"], ["one argument too many, 'b'"]),
            (["issue", "client", "b", "--days", "0"], ["--days", "3650"]),
            (["issue", "client", "b", "--days", "x"], ["--days"]),
            (["token", "b", "--valid-hours", "0"], ["--valid-hours", "8760"]),
            (["request", "b", "--output", "d"], ["--token is required"]),
            (["request", "b", "--token", "secret-but-short", "--output", "d"], ["--token: is no token", "fl pki token b"]),
            (["issue", "server", "s", "--host", "10.0.0.300"], ["--host: got '10.0.0.300'", "DNS name or an IP address"]),
            (["issue", "server", "s", "--host", "x:8443"], ["--host: got 'x:8443'", "without a port"]),
            (["issue", "client", "../../etc"], ["NAME: got '../../etc'", "1 to 64 letters"]),
            (["issue", "client", "alice"], ["'alice' already has a valid certificate", "fl pki renew alice"]),
            (["issue", "server", "alice", "--host", "a"], ["'alice' is a client"]),
            (["issue", "client", "b", "--request", "none.pem"], ["none.pem: no such file", "fl pki request"]),
            (["renew", "alise"], ["there is no certificate of 'alise'", "did you mean 'alice'?"]),
            (["revoke", "bob"], ["there is no certificate of 'bob'"]),
            (["init", "pki"], ["pki/index.json exists", "never overwritten"]),
            (["list", "--pki", "nowhere"], ["nowhere/ca.pem: no such file", "fl pki init nowhere"]),
            (["issue", "client", "b", "--pki", "nowhere"], ["nowhere/ca.pem: no such file"]),
        ):
            self.assert_refused(arguments, *parts)

    def test_the_secret_of_a_wrong_token_is_not_printed(self):
        result = self.pki("request", "b", "--token", "0123456789abcdefXYZ", "--output", "d", code=CONFIG)
        self.assertNotIn("0123456789abcdef", result.err)

    def test_requests(self):
        self.pki("init", "pki")
        first = self.token("alice")
        self.pki("request", "alice", "--token", first, "--output", "alice")
        good = (self.folder / "alice/request.pem").read_bytes()
        issue = ["issue", "client", "alice", "--request"]
        for name, content, parts in (
            ("empty.pem", b"", ["empty.pem: holds nothing of the kind", "fl pki request"]),
            ("garbage.pem", bytes(range(256)) * 4, ["garbage.pem: holds nothing of the kind"]),
            ("half.pem", good[: len(good) // 2], ["half.pem: holds nothing of the kind"]),
            ("cert.pem", (self.folder / "pki/ca.pem").read_bytes(), ["cert.pem: holds nothing of the kind"]),
        ):
            self.write(name, content)
            self.assert_refused([*issue, name], *parts)
        self.write("large.pem", good + b"A" * (1 << 20))
        self.assert_refused([*issue, "large.pem"], "large.pem", "the limit is 65536", code=IO)
        self.assert_refused(["issue", "client", "bob", "--request", "alice/request.pem"], "asks for the name 'alice', expected 'bob'")
        self.token("alice")
        self.assert_refused([*issue, "alice/request.pem"], "last token of 'alice'", "fl pki request")
        second = self.token("alice")
        self.pki("request", "alice", "--token", second, "--output", "alice")
        self.pki(*issue, "alice/request.pem")
        self.pki("revoke", "alice")
        self.assert_refused([*issue, "alice/request.pem"], "was used already", "fl pki token alice")

    def test_damaged_authorities(self):
        self.pki("init", "pki")
        index = (self.folder / "pki/index.json").read_bytes()
        self.write("pki/index.json", index[:-5])
        self.assert_refused(["issue", "client", "a"], "pki/index.json", "restore it from a backup")
        self.assert_refused(["list"], "pki/index.json", "restore it from a backup")
        self.write("pki/index.json", index)
        key = (self.folder / "pki/ca.key").read_bytes()
        self.write("pki/ca.key", "nothing")
        self.assert_refused(["issue", "client", "a"], "pki/ca.key: holds nothing of the kind")
        self.pki("init", "other")
        self.write("pki/ca.key", (self.folder / "other/ca.key").read_bytes())
        self.assert_refused(["issue", "client", "a"], "pki/ca.key: is not the key of ca.pem")
        self.write("pki/ca.key", key)
        (self.folder / "pki/ca.key").chmod(0o644)
        self.assert_refused(["issue", "client", "a"], "pki/ca.key: others may read this private key", "chmod 600")
        (self.folder / "pki/ca.key").chmod(0o600)
        self.pki("issue", "client", "a")

    def test_folders_that_cannot_be_written(self):
        self.write("file", "x")
        self.assert_refused(["init", "file/pki"], "file/pki", "Not a directory", code=IO)
        self.assert_refused(["init", "file"], "file", "Not a directory", code=IO)
        self.assert_refused(["request", "b", "--token", "0" * 32, "--output", "file"], "file", "Not a directory", code=IO)


if __name__ == "__main__":
    support.main()
