#!/usr/bin/env python3
"""FedAvg of the 2NN on Fashion-MNIST in plain numpy: an independent yardstick for the studies in this folder.

It shares no code and no random numbers with Tributary: 100 clients x 600 examples, ten a round, batch 10, pixels in
[0, 1], McMahan et al. 2017, algorithm 1. Prints the test accuracy of the last 12 rounds; one core needs a minute or two.
"""
import argparse
import gzip

import numpy as np


def read(folder, name, offset):
    with gzip.open(f"{folder}/{name}") as file:
        return np.frombuffer(file.read(), np.uint8, offset=offset)


def load(folder, part):
    images = read(folder, f"{part}-images-idx3-ubyte.gz", 16).reshape(-1, 784).astype(np.float32) / 255
    return images, read(folder, f"{part}-labels-idx1-ubyte.gz", 8).astype(np.int64)


def split(labels, kind, rng):
    if kind == "iid":
        return list(rng.permutation(60000).reshape(100, 600))
    shards = np.argsort(labels, kind="stable").reshape(200, 300)[rng.permutation(200)]
    return list(shards.reshape(100, 600))


def layer(inputs, outputs, rng):
    bound = 1 / np.sqrt(inputs)
    return [rng.uniform(-bound, bound, shape).astype(np.float32) for shape in ((inputs, outputs), (outputs,))]


def forward(w, x):
    first = np.maximum(x @ w[0] + w[1], 0)
    second = np.maximum(first @ w[2] + w[3], 0)
    return first, second, second @ w[4] + w[5]


def train(w, images, labels, order, rate):
    w = [part.copy() for part in w]
    for start in range(0, len(order), 10):
        x, y = images[order[start : start + 10]], labels[order[start : start + 10]]
        first, second, score = forward(w, x)
        score = np.exp(score - score.max(1, keepdims=True))
        score /= score.sum(1, keepdims=True)
        score[np.arange(len(y)), y] -= 1
        score /= len(y)
        d_second = score @ w[4].T * (second > 0)
        d_first = d_second @ w[2].T * (first > 0)
        gradients = (x.T @ d_first, d_first.sum(0), first.T @ d_second, d_second.sum(0), second.T @ score, score.sum(0))
        for part, gradient in zip(w, gradients):
            part -= rate * gradient
    return w


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--folder", default="/usr/share/datasets/fashion-mnist")
    parser.add_argument("--split", choices=("iid", "shards"), default="iid")
    parser.add_argument("--rate", type=float, default=0.1)
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=50)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = np.random.default_rng(options.seed)
    images, labels = load(options.folder, "train")
    test_images, test_labels = load(options.folder, "t10k")
    clients = split(labels, options.split, rng)
    w = layer(784, 200, rng) + layer(200, 200, rng) + layer(200, 10, rng)
    accuracy = []
    for _ in range(options.rounds):
        updates = []
        for client in rng.choice(100, 10, replace=False):
            local = w
            for _ in range(options.epochs):
                local = train(local, images, labels, rng.permutation(clients[client]), options.rate)
            updates.append(local)
        w = [np.mean([update[i] for update in updates], 0) for i in range(6)]
        accuracy.append(float((forward(w, test_images)[2].argmax(1) == test_labels).mean()))
    print("last rounds:", " ".join(f"{value:.3f}" for value in accuracy[-12:]))


if __name__ == "__main__":
    main()
