"""CIFAR-10 from one file of JPEG images, as loaders and as a task."""

import io
import itertools
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

import autocompress as ac

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)


def load_images(path: Path) -> dict[str, tuple[Tensor, Tensor]]:
    """Decode a file with {train,test}_jpeg, _offsets and _labels; keep a decoded copy.

    Returns:
        "train" and "test": n x 3 x 32 x 32 uint8 images and n labels.
    """
    from PIL import Image

    splits = {}
    with np.load(path) as data:
        for name in ("train", "test"):
            stream, offsets = data[f"{name}_jpeg"], data[f"{name}_offsets"]
            images = np.stack(
                [
                    np.asarray(Image.open(io.BytesIO(stream[a:b].tobytes())).convert("RGB"))
                    for a, b in itertools.pairwise(offsets)
                ]
            )
            labels = torch.from_numpy(data[f"{name}_labels"].astype(np.int64))
            splits[name] = (torch.from_numpy(images).permute(0, 3, 1, 2).contiguous(), labels)
    return splits


class Batches:
    """Re-iterable batches of normalised images, optionally flipped and shifted."""

    def __init__(self, images: Tensor, labels: Tensor, batch_size: int, augment: bool) -> None:
        self.images, self.labels = images, labels
        self.batch_size, self.augment = batch_size, augment

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.labels) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (n x 3 x 32 x 32 float images, n labels); shuffled when augmenting."""
        count = len(self.labels)
        order = torch.randperm(count) if self.augment else torch.arange(count)
        for start in range(0, count, self.batch_size):
            index = order[start : start + self.batch_size]
            images = (self.images[index].float() / 255 - MEAN) / STD
            yield (augmented(images) if self.augment else images), self.labels[index]


def augmented(images: Tensor) -> Tensor:
    """Flip each image with probability a half and shift it by up to four pixels."""
    count, _, height, width = images.shape
    flip = torch.rand(count) < 0.5
    images = torch.where(flip.view(-1, 1, 1, 1), images.flip(3), images)
    padded = torch.nn.functional.pad(images, (4, 4, 4, 4))
    top, left = torch.randint(0, 9, (2, count, 1))
    rows = (top + torch.arange(height)).view(count, 1, height, 1)
    columns = (left + torch.arange(width)).view(count, 1, 1, width)
    image, channel = torch.arange(count).view(-1, 1, 1, 1), torch.arange(3).view(1, 3, 1, 1)
    return padded[image, channel, rows, columns]


def make_task(data: Path, batch_size: int = 128) -> ac.Task:
    """Make the task: train on the training images, search on test images 0-4,999.

    The trained models have seen all training images, so the first half of
    the test images guides the search and the second half is only reported.
    """
    splits = load_images(data)
    images, labels = splits["test"]
    return ac.Task(
        train=Batches(*splits["train"], batch_size, augment=True),
        val=Batches(images[:5000], labels[:5000], 250, augment=False),
        test=Batches(images[5000:], labels[5000:], 250, augment=False),
    )


def make_random_task() -> ac.Task:
    """Make a task of 256 random images, to try the examples without the data."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (256, 3, 32, 32), generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (256,), generator=generator)
    return ac.Task(
        train=Batches(images, labels, 64, augment=True),
        val=Batches(images[:128], labels[:128], 64, augment=False),
        test=Batches(images[128:], labels[128:], 64, augment=False),
    )
