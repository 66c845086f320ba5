"""The networks with their tasks: given weights, or a short training that is kept."""

import json
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from bundle import CALIBRATION, Bundle, train
from networks import CLASSES, FEATURES, LENGTH, WORDS, make_network

import autocompress as ac
from cifar10_data import Batches, load_images

GIVEN = {name: f"{name}_cifar10jpeg.safetensors" for name in ("resnet20", "resnet56")}
"""Weights that need no training, in the folder of the data."""

SPACES = {"vit": "transformer", "text": "transformer", "tabular": "mlp"}
"""Search spaces of what is no convolutional network."""

IMAGES, TOKENS = ("resnet20", "resnet56", "mobilenet", "vit"), ("text",)

GENERATED = 100_000
"""Sentences and rows to train on: of a fifth of them the networks learn what is noise, and lose
ten points and more, which any compression that trains then wins back."""

Split = tuple[Tensor, Tensor]


@dataclass(frozen=True, kw_only=True)
class Subject:
    """A trained network and its task.

    Attributes:
        name: What it is called.
        model: The network, in eval mode.
        task: Its data.
        space: Name of its search space.
        bundle: The same in files, for contenders.
    """

    name: str
    model: nn.Module
    task: ac.Task
    space: str
    bundle: Path


def make_subject(
    name: str, data: Path | None, folder: Path, *, minutes: float, images: int | None = None
) -> Subject:
    """Load or train a network; a bundle that is there is used.

    Args:
        name: One of `NAMES`.
        data: Folder of cifar10_jpeg.npz and of `GIVEN`; None draws random images.
        folder: Where its bundle is written.
        minutes: Training of networks without given weights.
        images: Training and test images that are used at most; None for all.
    """
    splits = make_splits(name, data, images)
    bundle = folder / "bundle"
    weights = folder / "weights.safetensors"
    if not (bundle / "bundle.json").is_file():
        write_bundle(name, splits, bundle)
    check_bundle(splits, bundle)
    model = make_network(name)
    if data is not None and name in GIVEN:
        model.load_state_dict(load_file(data / GIVEN[name]))
    elif weights.is_file():
        model.load_state_dict(load_file(weights))
    else:
        torch.manual_seed(0)
        train(model, Bundle(bundle), seconds=60 * minutes, rate=0.1 if name in IMAGES else 0.02)
        save_file(model.state_dict(), weights)
    torch.save(model.state_dict(), bundle / "weights.pt")
    task = make_task(name, splits)
    space = SPACES.get(name, "cnn")
    return Subject(name=name, model=model.eval(), task=task, space=space, bundle=bundle)


def make_splits(name: str, data: Path | None, images: int | None) -> dict[str, Split]:
    """Return train, val and test; the first half of the test data is val."""
    if name in IMAGES:
        found = random_images() if data is None else load_images(data / "cifar10_jpeg.npz")
    else:
        made = sentences if name in TOKENS else table
        found = {"train": made(GENERATED, 0), "test": made(8_000, 1)}
    found = {key: (x[:images], y[:images]) for key, (x, y) in found.items()}
    inputs, labels = found["test"]
    half = len(labels) // 2
    val, test = (inputs[:half], labels[:half]), (inputs[half:], labels[half:])
    return {"train": found["train"], "val": val, "test": test}


def make_task(name: str, splits: dict[str, Split]) -> ac.Task:
    """Batch the splits; training images are flipped and shifted."""
    if name in IMAGES:
        train = Batches(*splits["train"], 128, augment=True)
        val, test = (Batches(*splits[key], 250, augment=False) for key in ("val", "test"))
        return ac.Task(train=train, val=val, test=test)
    batches = {
        key: list(zip(x.split(128), y.split(128), strict=True)) for key, (x, y) in splits.items()
    }
    return ac.Task(train=batches["train"], val=batches["val"], test=batches["test"])


def write_bundle(name: str, splits: dict[str, Split], folder: Path) -> None:
    """Write what contenders read; the weights come later."""
    folder.mkdir(parents=True, exist_ok=True)
    for key in ("train", "val"):
        inputs, labels = (tensor.numpy() for tensor in splits[key])
        np.savez(folder / f"{key}.npz", inputs=inputs, labels=labels)
    (folder / "bundle.json").write_text(json.dumps({"network": name}))
    np.save(folder / "calibration.npy", torch.cat(Bundle(folder).calibration()).numpy())


def check_bundle(splits: dict[str, Split], folder: Path) -> None:
    """Stop where a bundle that is there, and what was made of it, had other training data."""
    with np.load(folder / "train.npz") as arrays:
        there, here = len(arrays["labels"]), len(splits["train"][1])
    if there != here:
        raise SystemExit(
            f"{folder}: expected {here} training examples, got {there}: use a new --work"
        )


def random_images() -> dict[str, Split]:
    """Draw images that show nothing, to try the harness without data."""
    generator = torch.Generator().manual_seed(0)
    shape = (CALIBRATION, 3, 32, 32)
    images = torch.randint(0, 256, shape, generator=generator, dtype=torch.uint8)
    labels = torch.randint(0, 10, (CALIBRATION,), generator=generator)
    return {"train": (images, labels), "test": (images[:256], labels[:256])}


def sentences(count: int, seed: int) -> Split:
    """Generate sentences whose words praise or blame, more or less, unless negated just before.

    The label says whether praise prevails; token 0 begins each sentence.
    """
    rng = np.random.default_rng(seed)
    feelings = np.random.default_rng(7).normal(size=WORDS) * (np.arange(WORDS) >= 16)
    tokens = rng.integers(1, WORDS, (count, LENGTH))
    tokens[:, 0] = 0
    negated = np.roll(tokens, 1, axis=1) < 16  # the first fifteen words negate what follows
    strength = np.where(negated, -2.0, 1.0) * feelings[tokens]
    return torch.from_numpy(tokens), torch.from_numpy((strength.sum(axis=1) > 0).astype(np.int64))


def table(count: int, seed: int) -> Split:
    """Generate rows whose class is the largest output of a fixed random network, with noise."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(7)
    rows = rng.normal(size=(count, FEATURES)).astype(np.float32)
    hidden = np.tanh(rows @ fixed.normal(size=(FEATURES, 12)))
    scores = hidden @ fixed.normal(size=(12, CLASSES)) + 0.2 * rng.normal(size=(count, CLASSES))
    return torch.from_numpy(rows), torch.from_numpy(scores.argmax(axis=1))
