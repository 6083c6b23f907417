#!/usr/bin/env python3
"""The data that Tributary and its peers train on, as files that both read.

    data.py --folder FOLDER     writes what is missing there

colour: CIFAR-10's shape and file format (binary version, data_batch_1.bin …), 50 000 + 10 000 images, made from a seed: each class is a
        pattern of squares, and an image is its class's pattern under noise. Speed does not depend on the pixels; accuracy can be compared.
clothes: Fashion-MNIST where Debian's package dataset-fashion-mnist is installed, else made the same way, in IDX files.
"""

import argparse
import gzip
import pathlib
import sys

import numpy as np

FASHION_MNIST = pathlib.Path("/usr/share/datasets/fashion-mnist")
PARTS = {"train": "train", "test": "t10k"}
CLASSES = 10
# Standard deviations of pattern and noise, in units of a pixel's range, and the share of labels that are drawn anew at random: who has
# learnt the patterns is right in 82 % of the images.
PATTERN, NOISE, RANDOM_LABELS = 0.25, 0.25, 0.2


def make_images(seed, count, channels, side):
    """count images of uint8 [channels, side, side] and their labels. The patterns of the classes depend on the shape alone."""
    patterns = np.random.default_rng(11).standard_normal((CLASSES, channels, side // 4, side // 4), dtype=np.float32)
    patterns = patterns.repeat(4, axis=2).repeat(4, axis=3)
    rng = np.random.default_rng(seed)
    shown = rng.integers(0, CLASSES, count)
    images = np.empty((count, channels, side, side), np.uint8)
    for start in range(0, count, 1000):  # few at a time: as floats all of them take a gigabyte
        part = shown[start:start + 1000]
        noise = rng.standard_normal((len(part), channels, side, side), dtype=np.float32)
        images[start:start + 1000] = np.clip(127.5 + 255 * (PATTERN * patterns[part] + NOISE * noise), 0, 255)
    labels = np.where(rng.random(count) < RANDOM_LABELS, rng.integers(0, CLASSES, count), shown)
    return images, labels.astype(np.uint8)


def write_whole(path, chunks):
    """Writes under another name first: a file of the right name is complete."""
    unfinished = path.with_suffix(path.suffix + ".part")
    with open(unfinished, "wb") as file:
        for chunk in chunks:
            file.write(chunk)
    unfinished.rename(path)


def colour_files(folder):
    return {"train": [folder / "colour" / f"data_batch_{i}.bin" for i in range(1, 6)], "test": [folder / "colour" / "test_batch.bin"]}


def write_colour(folder):
    (folder / "colour").mkdir(parents=True, exist_ok=True)
    seed = 0
    for path in sum(colour_files(folder).values(), []):
        seed += 1
        if not path.exists():
            images, labels = make_images(seed, 10_000, 3, 32)
            write_whole(path, [np.concatenate([labels[:, None], images.reshape(len(images), -1)], axis=1).tobytes()])


def clothes_files(folder):
    """{part: (images, labels)}: Debian's files, else ours."""
    if (FASHION_MNIST / "train-images-idx3-ubyte.gz").exists():
        folder, end = FASHION_MNIST, ".gz"
    else:
        folder, end = folder / "clothes", ""
    return {part: (folder / f"{name}-images-idx3-ubyte{end}", folder / f"{name}-labels-idx1-ubyte{end}") for part, name in PARTS.items()}


def write_idx(path, values):
    """IDX: zero, zero, 8 for bytes, the number of dimensions, their sizes as big-endian 32 bits, the values."""
    write_whole(path, [bytes([0, 0, 8, values.ndim]), np.array(values.shape, ">u4").tobytes(), values.tobytes()])


def write_clothes(folder):
    for (images_path, labels_path), count, seed in zip(clothes_files(folder).values(), (60_000, 10_000), (7, 8)):
        if images_path.exists() and labels_path.exists():
            continue
        images_path.parent.mkdir(parents=True, exist_ok=True)
        images, labels = make_images(seed, count, 1, 28)
        write_idx(images_path, images[:, 0])
        write_idx(labels_path, labels)


def read_idx(path):
    with (gzip.open if path.suffix == ".gz" else open)(path, "rb") as file:
        content = file.read()
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", dimensions, 4)
    return np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions).reshape(shape)


def read_part(name, folder, part):
    """(images as uint8 [count, channels, side, side], labels as uint8). Raises FileNotFoundError when setup has not been run."""
    if name == "clothes":
        images, labels = (read_idx(path) for path in clothes_files(folder)[part])
        return images[:, None], labels
    records = np.concatenate([np.fromfile(path, np.uint8).reshape(-1, 3073) for path in colour_files(folder)[part]])
    return records[:, 1:].reshape(-1, 3, 32, 32), records[:, 0]


def main(arguments):
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--folder", type=pathlib.Path, required=True)
    folder = parser.parse_args(arguments).folder
    write_colour(folder)
    write_clothes(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
