#!/usr/bin/env python3
"""Federated averaging by Flower's simulation engine (Ray), one CPU a client, so that as many train at a time as there are workers."""

import dataclasses
import json
import logging
import os
import pathlib

# Before Flower and Ray are imported: neither may call home from a benchmark.
os.environ.update(FLWR_TELEMETRY_ENABLED="0", RAY_USAGE_STATS_ENABLED="0")
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [str(pathlib.Path(__file__).resolve().parent), os.environ.get("PYTHONPATH")]))

import flwr
from flwr.app import ArrayRecord, Message, RecordDict
from flwr.serverapp import ServerApp
from flwr.serverapp.strategy import FedAvg
from flwr.serverapp.strategy.strategy_utils import sample_nodes
from flwr.simulation import run_simulation

import flower_app
import measuring
import scenarios
import workload


def wait_for_workers(grid, training, workers):
    """Returns when every client is registered and the actors have imported PyTorch and read their data: start-up is not measured."""
    nodes, _ = sample_nodes(grid, training.clients, 1)
    messages = [Message(RecordDict(), dst_node_id=nodes[i % len(nodes)], message_type="query") for i in range(4 * workers)]
    for reply in grid.send_and_receive(messages):
        if reply.has_error():
            raise SystemExit(f"flower_simulation: a worker cannot start: {reply.error.reason}")


def main():
    arguments = scenarios.options(__doc__, "training").parse_args()
    logging.getLogger("flwr").setLevel(logging.ERROR)
    training = workload.Training.load(arguments.scenario, arguments.quick, arguments.data.resolve())
    os.environ[flower_app.SCENARIO] = json.dumps(dataclasses.asdict(training))
    model = workload.first_model(training)
    meter = measuring.Meter()
    server = ServerApp()

    @server.main()
    def serve(grid, context):
        wait_for_workers(grid, training, arguments.workers)
        strategy = FedAvg(fraction_train=training.cohort / training.clients, min_train_nodes=training.cohort, fraction_evaluate=0,
                          min_available_nodes=training.clients)
        meter.start()
        result = strategy.start(grid=grid, initial_arrays=ArrayRecord(model.state_dict()), num_rounds=training.rounds)
        meter.stop()
        model.load_state_dict(result.arrays.to_torch_state_dict())

    run_simulation(server_app=server, client_app=flower_app.app, num_supernodes=training.clients,
                   backend_config={"init_args": {"num_cpus": arguments.workers, "logging_level": logging.ERROR, "log_to_driver": False},
                                   "client_resources": {"num_cpus": 1, "num_gpus": 0.0}})
    measuring.report("Flower simulation", flwr.__version__, training.name, training.cohort, training.rounds,
                  accuracy=workload.accuracy(model, training), **meter.values())


if __name__ == "__main__":
    main()
