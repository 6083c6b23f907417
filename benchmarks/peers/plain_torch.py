#!/usr/bin/env python3
"""Federated averaging as a bare PyTorch loop: no framework, the floor for Python.

Each worker process keeps one model, trains every n-th client of the cohort with it and adds the results up; the parent averages.
"""

import random

import torch
import torch.multiprocessing as processes

import measuring
import scenarios
import workload


def work(training, rank, workers, weights, sums, cohort, barrier):
    """One worker: between two passes of the barrier it trains its part of the cohort."""
    workload.warm_up(training)
    model = workload.first_model(training)
    parameters = list(model.parameters())
    torch.manual_seed(scenarios.SEED + rank)
    barrier.wait()
    for _ in range(training.rounds):
        barrier.wait()
        sums[rank].zero_()
        for client in cohort[rank::workers].tolist():
            torch.nn.utils.vector_to_parameters(weights, parameters)
            # The vector's pieces are views; training must not write into the shared weights.
            for parameter in parameters:
                parameter.data = parameter.data.clone()
            workload.train_client(model, training, client)
            with torch.no_grad():
                sums[rank] += torch.nn.utils.parameters_to_vector(parameters)
        barrier.wait()


def main():
    arguments = scenarios.options(__doc__, "training").parse_args()
    training = workload.Training.load(arguments.scenario, arguments.quick, arguments.data)
    model = workload.first_model(training)
    weights = torch.nn.utils.parameters_to_vector(model.parameters()).detach().clone().share_memory_()
    sums = torch.zeros(arguments.workers, len(weights)).share_memory_()
    cohort = torch.zeros(training.cohort, dtype=torch.int64).share_memory_()
    context = processes.get_context("fork")
    barrier = context.Barrier(arguments.workers + 1)
    workers = [context.Process(target=work, args=(training, rank, arguments.workers, weights, sums, cohort, barrier), daemon=True)
               for rank in range(arguments.workers)]
    workload.shards(training)  # before the fork, so that the workers share what was read
    for worker in workers:
        worker.start()
    choice = random.Random(scenarios.SEED)
    meter = measuring.Meter()
    barrier.wait()
    meter.start()
    for _ in range(training.rounds):
        cohort.copy_(torch.tensor(choice.sample(range(training.clients), training.cohort)))
        barrier.wait()
        barrier.wait()
        weights.copy_(sums.sum(0) / training.cohort)  # equal shards weigh alike
    meter.stop()
    for worker in workers:
        worker.join()
    torch.nn.utils.vector_to_parameters(weights, model.parameters())
    measuring.report("PyTorch loop", torch.__version__, training.name, training.cohort, training.rounds,
                  accuracy=workload.accuracy(model, training), **meter.values())


if __name__ == "__main__":
    main()
