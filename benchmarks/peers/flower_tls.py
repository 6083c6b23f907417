#!/usr/bin/env python3
"""An encrypted round of Flower's gRPC server and clients over loop-back TLS: clients answer with the weights that they got.

The server is a process of its own, and so is each client. wall_s and cpu_s are the best round's, from the server's first send to the
averaged model, and CPU is the server's alone, as is peak_rss. The first round, which opens caches, does not count.
"""

import argparse
import json
import logging
import os
import pathlib
import signal
import socket
import subprocess
import sys
import tempfile
import time

os.environ.update(FLWR_TELEMETRY_ENABLED="0", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import measuring
import scenarios

LAYERS = 10


def openssl(*arguments):
    subprocess.run(["openssl", *arguments], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)


def make_certificates(folder):
    """An authority and a server's certificate for 127.0.0.1, P-256 as Tributary's are."""
    curve = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-sha256"]
    openssl("req", "-x509", *curve, "-days", "2", "-subj", "/CN=benchmark", "-keyout", str(folder / "ca.key"), "-out", str(folder / "ca.pem"))
    openssl("req", *curve, "-subj", "/CN=127.0.0.1", "-keyout", str(folder / "server.key"), "-out", str(folder / "server.csr"))
    (folder / "server.ext").write_text("subjectAltName=IP:127.0.0.1,DNS:localhost\n")
    openssl("x509", "-req", "-in", str(folder / "server.csr"), "-CA", str(folder / "ca.pem"), "-CAkey", str(folder / "ca.key"), "-CAcreateserial",
            "-days", "2", "-sha256", "-extfile", str(folder / "server.ext"), "-out", str(folder / "server.pem"))


def serve(scenario, folder, address):
    """The server's process; prints its round times as JSON."""
    import flwr
    import numpy as np
    from flwr.common import ndarrays_to_parameters
    from flwr.server import ServerConfig, start_server
    from flwr.server.strategy import FedAvg

    logging.getLogger("flwr").setLevel(logging.ERROR)
    rounds = []

    def now():
        return time.perf_counter(), measuring.own_cpu_seconds()

    class Timed(FedAvg):
        """From before the first send to the averaged model."""

        def configure_fit(self, server_round, parameters, client_manager):
            client_manager.wait_for(scenario["clients"])
            self.started = now()
            return super().configure_fit(server_round, parameters, client_manager)

        def aggregate_fit(self, server_round, results, failures):
            if failures or len(results) != scenario["clients"]:
                raise RuntimeError(f"round {server_round}: {len(results)} of {scenario['clients']} clients answered; {failures[:1]}")
            answer = super().aggregate_fit(server_round, results, failures)
            rounds.append([after - before for after, before in zip(now(), self.started)])
            return answer

    rng = np.random.default_rng(1)
    weights = [rng.standard_normal(scenario["parameters"] // LAYERS, dtype=np.float32) for _ in range(LAYERS)]
    strategy = Timed(fraction_fit=1, fraction_evaluate=0, min_fit_clients=scenario["clients"], min_available_clients=scenario["clients"],
                     accept_failures=False, initial_parameters=ndarrays_to_parameters(weights))
    certificates = tuple((folder / name).read_bytes() for name in ("ca.pem", "server.pem", "server.key"))
    start_server(server_address=address, config=ServerConfig(num_rounds=scenario["rounds"] + 1), strategy=strategy, certificates=certificates)
    if len(rounds) != scenario["rounds"] + 1:
        raise RuntimeError(f"{len(rounds)} of {scenario['rounds'] + 1} rounds were completed; the messages above say why")
    print(json.dumps({"version": flwr.__version__, "rounds": rounds[1:], "peak_rss": measuring.peak_rss()}))


def be_clients(scenario, folder, address):
    """Forks one process a client, after the imports and before gRPC has started a thread."""
    from flwr.client import NumPyClient, start_client

    logging.getLogger("flwr").setLevel(logging.ERROR)

    class Echo(NumPyClient):
        def fit(self, parameters, config):
            return parameters, 1, {}

    children = []
    for _ in range(scenario["clients"]):
        child = os.fork()
        if child == 0:
            start_client(server_address=address, client=Echo().to_client(), root_certificates=(folder / "ca.pem").read_bytes(), insecure=False)
            os._exit(0)
        children.append(child)

    def end(*_):
        for child in children:
            os.kill(child, signal.SIGKILL)
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    while True:
        signal.pause()


def free_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def wait_until_it_listens(address, server):
    host, port = address.split(":")
    while server.poll() is None:
        try:
            socket.create_connection((host, int(port)), 1).close()
            return
        except OSError:
            time.sleep(0.05)
    raise SystemExit("flower_tls: the server ended before it listened; its message is above")


def measure(name, quick):
    scenario = scenarios.load(quick)[name]
    with tempfile.TemporaryDirectory(prefix="flower_tls.") as folder:
        make_certificates(pathlib.Path(folder))
        address = free_address()
        again = [sys.executable, __file__, "--folder", folder, "--address", address, "--scenario", name, *(["--quick"] if quick else [])]
        server = subprocess.Popen([*again, "--role", "server"], stdout=subprocess.PIPE, text=True)
        clients = None
        try:
            wait_until_it_listens(address, server)
            clients = subprocess.Popen([*again, "--role", "clients"], stdout=subprocess.DEVNULL)
            output, _ = server.communicate()
        finally:
            for process in filter(None, (clients, server)):
                process.terminate()
                process.wait()
    if server.returncode != 0:
        raise SystemExit(f"flower_tls: the server ended with {server.returncode}; its message is above")
    found = json.loads(output.splitlines()[-1])
    walls, cpus = zip(*found["rounds"])
    measuring.report("Flower gRPC", found["version"], name, scenario["clients"], scenario["rounds"], wall_s=min(walls), cpu_s=min(cpus),
                  parameters=scenario["parameters"], peak_rss=found["peak_rss"])


def main():
    parser = scenarios.options(__doc__, "encrypted_round")
    parser.add_argument("--role", choices=["server", "clients"], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=pathlib.Path, help=argparse.SUPPRESS)
    parser.add_argument("--address", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.role is None:
        measure(arguments.scenario, arguments.quick)
        return
    scenario = scenarios.load(arguments.quick)[arguments.scenario]
    (serve if arguments.role == "server" else be_clients)(scenario, arguments.folder, arguments.address)


if __name__ == "__main__":
    main()
