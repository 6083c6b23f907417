#!/usr/bin/env python3
"""The weighted mean of updates that lie in memory, by Flower's own functions, on one thread.

--path records: flwr.serverapp's aggregate_arrayrecords, what FedAvg calls now on the replies as they arrived.
--path arrays:  flwr.server's aggregate, what it called before, on arrays that were de-serialised already.
"""

import os
import time

os.environ.update(FLWR_TELEMETRY_ENABLED="0", OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1")

import flwr
import numpy as np
from flwr.app import ArrayRecord, MetricRecord, RecordDict
from flwr.server.strategy.aggregate import aggregate
from flwr.serverapp.strategy.strategy_utils import aggregate_arrayrecords

import measuring
import scenarios

LAYERS = 10


def main():
    parser = scenarios.options(__doc__, "aggregation")
    parser.add_argument("--path", choices=["records", "arrays"], default="records")
    arguments = parser.parse_args()
    scenario = scenarios.load(arguments.quick)[arguments.scenario]
    parameters, clients = scenario["parameters"], scenario["clients"]
    rng = np.random.default_rng(scenarios.SEED)
    updates = [[rng.standard_normal(parameters // LAYERS, dtype=np.float32) for _ in range(LAYERS)] for _ in range(clients)]
    expected = np.mean([update[0][:100].astype(np.float64) for update in updates], axis=0)
    if arguments.path == "records":
        records = [RecordDict({"arrays": ArrayRecord(update), "metrics": MetricRecord({"num-examples": 1})}) for update in updates]
        del updates
        run = lambda: aggregate_arrayrecords(records, "num-examples").to_numpy_ndarrays()[0]
    else:
        pairs = [(update, 1) for update in updates]
        run = lambda: aggregate(pairs)[0]
    walls, cpus = [], []
    for _ in range(scenario["rounds"]):
        cpu, wall = measuring.own_cpu_seconds(), time.perf_counter()
        mean = run()
        walls.append(time.perf_counter() - wall)
        cpus.append(measuring.own_cpu_seconds() - cpu)
        np.testing.assert_allclose(mean[:100], expected, atol=1e-5)
    measuring.report(f"Flower, {arguments.path}", flwr.__version__, arguments.scenario, clients, scenario["rounds"],
                  wall_s=min(walls), cpu_s=min(cpus), parameters=parameters, peak_rss=measuring.peak_rss())


if __name__ == "__main__":
    main()
