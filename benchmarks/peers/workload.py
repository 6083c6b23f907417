"""The work that the peers' training drivers share: data, shards, model, local training, accuracy."""

import dataclasses
import functools
import pathlib

import numpy as np
import torch

import data
import scenarios


@dataclasses.dataclass(frozen=True)
class Training:
    """A scenario of kind "training", see scenarios.json, with where its data lie."""

    name: str
    data: str
    model: str
    clients: int
    examples: int  # of each client
    cohort: int
    rounds: int
    epochs: int
    batch_size: int
    learning_rate: float
    folder: str

    @staticmethod
    def load(name, quick, folder):
        table = scenarios.load(quick)[name]
        keys = [field.name for field in dataclasses.fields(Training) if field.name in table]
        return Training(name=name, folder=str(folder), **{key: table[key] for key in keys})


@functools.cache
def tensors(name, folder, part):
    """(images as floats in 0 … 1, labels), read once a process."""
    images, labels = data.read_part(name, pathlib.Path(folder), part)
    return torch.from_numpy(images.astype(np.float32) / 255), torch.from_numpy(labels.astype(np.int64))


@functools.cache
def shards(training):
    """Example numbers [clients, examples]: a random cut of the training set; a larger demand than it has takes them again."""
    count = len(tensors(training.data, training.folder, "train")[1])
    order = np.random.default_rng(scenarios.SEED).permutation(count)
    return torch.from_numpy(np.resize(order, (training.clients, training.examples)))


def make_model(name):
    nn = torch.nn
    if name == "logistic":
        return nn.Sequential(nn.Flatten(), nn.Linear(784, 10))
    return nn.Sequential(nn.Conv2d(3, 6, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(6, 16, 5), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(),
                         nn.Linear(400, 120), nn.ReLU(), nn.Linear(120, 84), nn.ReLU(), nn.Linear(84, 10))


def first_model(training):
    """The model before the first round; equal for all peers."""
    torch.manual_seed(scenarios.SEED)
    return make_model(training.model)


def train_client(model, training, client):
    """Plain SGD over the client's shard, shuffled once an epoch: what a user of PyTorch writes."""
    images, labels = tensors(training.data, training.folder, "train")
    shard = shards(training)[client]
    optimizer = torch.optim.SGD(model.parameters(), lr=training.learning_rate)
    for _ in range(training.epochs):
        for batch in shard[torch.randperm(len(shard))].split(training.batch_size):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(model(images[batch]), labels[batch]).backward()
            optimizer.step()


def warm_up(training):
    """Reads the data and takes a few steps with a model that is thrown away: the first step imports half of PyTorch."""
    torch.set_num_threads(1)  # one thread a worker: parallelism comes from workers, as with Tributary
    train_client(make_model(training.model), dataclasses.replace(training, epochs=1), 0)


@torch.no_grad()
def accuracy(model, training):
    """On the whole test set."""
    images, labels = tensors(training.data, training.folder, "test")
    right = sum(int((model(x).argmax(1) == y).sum()) for x, y in zip(images.split(250), labels.split(250)))
    return right / len(labels)
