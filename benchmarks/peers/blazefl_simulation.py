#!/usr/bin/env python3
"""Federated averaging by BlazeFL's own FedAvg, with its pool of threads or of processes (--mode).

Needs Python 3.12. BlazeFL's pool of threads is meant for Python without its global lock; with the lock, threads take turns.
"""

import importlib.metadata
import pathlib
import tempfile

import torch
from blazefl.contrib import fedavg
from blazefl.core import IPCMode

import measuring
import scenarios
import workload

fedavg.tqdm = lambda jobs, **_: jobs  # no progress bars


class Models:
    """BlazeFL's ModelSelector."""

    def select_model(self, name):
        return workload.make_model(name)


class Shards:
    """BlazeFL's PartitionedDataset. Sent to worker processes by its scenario alone: they have the data from before the fork."""

    def __init__(self, training):
        self._training = training
        self._loaders = {}

    def __getstate__(self):
        return {"_training": self._training, "_loaders": {}}

    def get_dataset(self, type_, cid):
        part = "train" if type_ == fedavg.FedAvgPartitionType.TRAIN else "test"
        images, labels = workload.tensors(self._training.data, self._training.folder, part)
        if cid is None:
            return torch.utils.data.TensorDataset(images, labels)
        shard = workload.shards(self._training)[cid]
        return torch.utils.data.TensorDataset(images[shard], labels[shard])

    def set_dataset(self, type_, cid, dataset):
        pass  # shards do not change

    def get_dataloader(self, type_, cid, batch_size, generator):
        return torch.utils.data.DataLoader(self.get_dataset(type_, cid), batch_size=batch_size, shuffle=True, generator=generator)


def make_trainer(training, mode, workers, scratch):
    shared = dict(model_selector=Models(), model_name=training.model, dataset=Shards(training), device="cpu", num_clients=training.clients,
                          epochs=training.epochs, batch_size=training.batch_size, lr=training.learning_rate, seed=scenarios.SEED,
                          num_parallels=workers)
    if mode == "threads":
        return fedavg.FedAvgThreadPoolClientTrainer(**shared)
    return fedavg.FedAvgProcessPoolClientTrainer(share_dir=scratch / "share", state_dir=scratch / "state", ipc_mode=IPCMode.SHARED_MEMORY,
                                                 **shared)


def main():
    parser = scenarios.options(__doc__, "training")
    parser.add_argument("--mode", choices=["threads", "processes"], default="processes")
    arguments = parser.parse_args()
    training = workload.Training.load(arguments.scenario, arguments.quick, arguments.data)
    workload.warm_up(training)
    server = fedavg.FedAvgBaseServerHandler(model_selector=Models(), model_name=training.model, dataset=Shards(training),
                                            global_round=training.rounds, num_clients=training.clients,
                                            sample_ratio=training.cohort / training.clients, device="cpu",
                                            batch_size=training.batch_size, seed=scenarios.SEED)
    server.model.load_state_dict(workload.first_model(training).state_dict())
    meter = measuring.Meter()
    with tempfile.TemporaryDirectory(prefix="blazefl.") as scratch:
        trainer = make_trainer(training, arguments.mode, arguments.workers, pathlib.Path(scratch))
        meter.start()
        while not server.if_stop():
            trainer.local_process(server.downlink_package(), server.sample_clients())
            for answer in trainer.uplink_package():
                server.load(answer)
        meter.stop()
    measuring.report(f"BlazeFL, {arguments.mode}", importlib.metadata.version("blazefl"), training.name, training.cohort, training.rounds,
                  accuracy=workload.accuracy(server.model, training), **meter.values())


if __name__ == "__main__":
    main()
