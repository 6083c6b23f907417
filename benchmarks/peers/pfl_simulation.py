#!/usr/bin/env python3
"""Federated averaging by pfl-research: one process a worker, each with a resident model, sums all-reduced once a round.

Friendly to pfl: users' data are tensors already, users are not evaluated before and after training, no metrics are printed. pfl does
not shuffle a user's examples between epochs.
"""

import dataclasses
import os
import socket
import subprocess
import sys

import scenarios

RANK = "PFL_WORKER_RANK"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def start_workers(workers):
    """This program once a worker, as pfl's guide on distributed simulation has it. Returns the exit code."""
    addresses = ",".join(f"127.0.0.1:{free_port()}" for _ in range(workers))
    environment = os.environ | {"PFL_WORKER_ADDRESSES": addresses, "OMP_NUM_THREADS": "1", "PFL_PYTORCH_DEVICE": "cpu"}
    processes = [subprocess.Popen([sys.executable, *sys.argv], env=environment | {RANK: str(rank)}) for rank in range(workers)]
    return max(abs(process.wait()) for process in processes)


def run(arguments):
    """One worker's part."""
    import importlib.metadata

    import torch
    from pfl.aggregate.simulate import SimulatedBackend
    from pfl.algorithm.base import NNAlgorithmParams
    from pfl.algorithm.federated_averaging import FederatedAveraging
    from pfl.data.dataset import Dataset
    from pfl.data.federated_dataset import FederatedDataset
    from pfl.data.sampling import get_user_sampler
    from pfl.hyperparam import NNTrainHyperParams
    from pfl.internal.ops import pytorch_ops
    from pfl.metrics import Weighted
    from pfl.model.pytorch import PyTorchModel

    import measuring
    import workload

    class Network(torch.nn.Module):
        """What pfl wants of a model: loss and metrics."""

        def __init__(self, network):
            super().__init__()
            self.network = network

        def loss(self, inputs, labels):
            self.train()
            return torch.nn.functional.cross_entropy(self.network(inputs), labels)

        def metrics(self, inputs, labels):
            return {"loss": Weighted(float(self.loss(inputs, labels)) * len(labels), len(labels))}

    class Averaging(FederatedAveraging):
        """Without the evaluation of every user in the first round, which the others do not make either."""

        def get_next_central_contexts(self, *args, **kwargs):
            contexts, model, metrics = super().get_next_central_contexts(*args, **kwargs)
            return contexts and tuple(dataclasses.replace(c, do_evaluation=False) for c in contexts), model, metrics

    training = workload.Training.load(arguments.scenario, arguments.quick, arguments.data)
    workload.warm_up(training)
    images, labels = workload.tensors(training.data, training.folder, "train")
    users = [Dataset([images[shard], labels[shard]], user_id=user) for user, shard in enumerate(workload.shards(training))]
    network = workload.first_model(training)
    model = PyTorchModel(Network(network), local_optimizer_create=torch.optim.SGD,
                         central_optimizer=torch.optim.SGD(network.parameters(), lr=1.0))
    dataset = FederatedDataset(lambda user: users[user], get_user_sampler("minimize_reuse", range(training.clients)))
    backend = SimulatedBackend(training_data=dataset, val_data=dataset)
    parameters = NNAlgorithmParams(central_num_iterations=training.rounds, evaluation_frequency=training.rounds,
                                   train_cohort_size=training.cohort, val_cohort_size=None)
    local = NNTrainHyperParams(local_num_epochs=training.epochs, local_learning_rate=training.learning_rate,
                               local_batch_size=training.batch_size)
    several = pytorch_ops.distributed.world_size > 1
    meter = measuring.Meter()
    if several:
        torch.distributed.barrier()
    meter.start()
    Averaging().run(algorithm_params=parameters, backend=backend, model=model, model_train_params=local, send_metrics_to_platform=False)
    if several:
        torch.distributed.barrier()
    meter.stop()
    of_all = torch.tensor([meter.cpu_s, float(meter.peak_rss)], dtype=torch.float64)
    if several:
        torch.distributed.all_reduce(of_all)
    if pytorch_ops.distributed.global_rank == 0:
        measuring.report("pfl-research", importlib.metadata.version("pfl"), training.name, training.cohort, training.rounds,
                      accuracy=workload.accuracy(network, training), wall_s=meter.wall_s, cpu_s=of_all[0].item(), peak_rss=int(of_all[1]))
    if several:
        torch.distributed.destroy_process_group()


def main():
    arguments = scenarios.options(__doc__, "training").parse_args()
    if RANK in os.environ or arguments.workers == 1:
        run(arguments)
        return 0
    return start_workers(arguments.workers)


if __name__ == "__main__":
    sys.exit(main())
