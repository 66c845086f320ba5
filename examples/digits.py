"""A small residual CNN on scikit-learn's digits: trained in seconds, then compressed.

The demo of the README runs it through `digits.yaml`; from Python:

    python examples/digits.py --trials 12
"""

import argparse
from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from torch import Tensor, nn

import autocompress as ac

SHIFT = 4
"""The 8x8 digits lie on a 16x16 canvas, at most so many pixels off its centre each way."""

NOISE = 0.4
"""Standard deviation of the noise on pixels from -1 to 1."""

VIEWS = 4
"""Places at which each digit of val and test is seen, so that accuracies come in fine steps."""


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, x: Tensor) -> Tensor:
        """Map n x inputs x h x w to n x outputs x h/stride x w/stride."""
        y = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(y)) + self.shortcut(x))


class DigitsNet(nn.Module):
    """Three stages of residual blocks and a linear classifier."""

    def __init__(self, width: int, blocks: int) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, width, 3, 1, 1, bias=False)
        self.norm = nn.BatchNorm2d(width)
        stages = []
        for stage, outputs in enumerate((width, 2 * width, 4 * width)):
            inputs = width if stage == 0 else outputs // 2
            stages.append(ResidualBlock(inputs, outputs, 1 if stage == 0 else 2))
            stages += [ResidualBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
        self.stages = nn.Sequential(*stages)
        self.classifier = nn.Linear(4 * width, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Map n x 1 x 16 x 16 images to n x 10 logits."""
        x = self.stages(F.relu(self.norm(self.stem(x))))
        return self.classifier(F.adaptive_avg_pool2d(x, 1).flatten(1))


def scatter(digits: Tensor) -> Tensor:
    """Put n x 1 x 8 x 8 digits at random places of noisy n x 1 x 16 x 16 canvases."""
    canvas = F.pad(digits, (SHIFT,) * 4, value=-1.0)
    shifts = torch.randint(-SHIFT, SHIFT + 1, (len(digits), 2)).tolist()
    moved = [image.roll(shift, (1, 2)) for image, shift in zip(canvas, shifts, strict=True)]
    return torch.stack(moved) + NOISE * torch.randn_like(canvas)


class Digits:
    """Re-iterable batches; training ones are shuffled and scattered anew every time."""

    def __init__(self, images: Tensor, labels: Tensor, *, train: bool) -> None:
        self.images, self.labels, self.train = images, labels, train

    def __len__(self) -> int:
        """Number of batches."""
        return -(-len(self.labels) // 64)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield (n x 1 x 16 x 16 images, n labels)."""
        count = len(self.labels)
        order = torch.randperm(count) if self.train else torch.arange(count)
        for index in order.split(64):
            images = self.images[index]
            yield (scatter(images) if self.train else images), self.labels[index]


def make_splits() -> dict[str, Digits]:
    """Split the 1,797 digits into 897 for training, 500 for val and 400 for test; see `VIEWS`."""
    data = load_digits()
    images = torch.from_numpy(data.images.astype(np.float32) / 8 - 1).unsqueeze(1)
    labels = torch.from_numpy(data.target.astype(np.int64))
    order = torch.from_numpy(np.random.default_rng(0).permutation(len(labels)))
    val, test, train = order.split([500, 400, 897])
    val, test = val.repeat(VIEWS), test.repeat(VIEWS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return {
            "train": Digits(images[train], labels[train], train=True),
            "val": Digits(scatter(images[val]), labels[val], train=False),
            "test": Digits(scatter(images[test]), labels[test], train=False),
        }


def make_task() -> ac.Task:
    """Make the task of the search."""
    splits = make_splits()
    return ac.Task(train=splits["train"], val=splits["val"], test=splits["test"])


def make_model(width: int = 16, blocks: int = 2, epochs: int = 120) -> nn.Module:
    """Train the network from scratch with a fixed seed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = DigitsNet(width, blocks)
        optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4)
        train = make_splits()["train"]
        rate = torch.optim.lr_scheduler.OneCycleLR(optimiser, 0.1, total_steps=epochs * len(train))
        for _ in range(epochs):
            for images, labels in train:
                optimiser.zero_grad()
                F.cross_entropy(model(images), labels).backward()
                optimiser.step()
                rate.step()
    return model.eval()


def main() -> None:
    """Search, and print the front."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--smoke", action="store_true", help="a few trials of a tiny network")
    parser.add_argument("--study-dir", default="runs/digits-python")
    options = parser.parse_args()
    model = make_model(width=8, blocks=2, epochs=12) if options.smoke else make_model()
    trials = 4 if options.smoke else options.trials
    result = ac.search(
        model,
        make_task(),
        objectives=("accuracy", "latency_ms", "size_bytes"),
        budget=ac.Budget(trials=trials, minutes=1 if options.smoke else 5),
        study_dir=options.study_dir,
    )
    for member in result.front:
        measured = member.measured
        print(
            f"{member.id}: val {measured['val_accuracy']:.4f}, {measured['latency_ms']:.3f} ms, "
            f"{measured['size_bytes']} bytes"
        )


if __name__ == "__main__":
    main()
