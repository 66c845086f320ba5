"""What every contender is handed, as files; read with numpy and torch alone."""

import argparse
import itertools
import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parent))

from networks import make_network

MEAN = torch.tensor([0.485, 0.456, 0.406]).view(1, 3, 1, 1)
STD = torch.tensor([0.229, 0.224, 0.225]).view(1, 3, 1, 1)
CALIBRATION = 1024


class Bundle:
    """A trained network, its training data and its `val`; each image is flipped and shifted."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.network = json.loads((folder / "bundle.json").read_text())["network"]
        self.images, self.labels = self._split("train")
        self.is_image = self.images.dtype == torch.uint8

    def _split(self, name: str) -> tuple[Tensor, Tensor]:
        with np.load(self.folder / f"{name}.npz") as arrays:
            return torch.from_numpy(arrays["inputs"]), torch.from_numpy(arrays["labels"])

    def model(self) -> nn.Module:
        """Build the trained network."""
        model = make_network(self.network)
        model.load_state_dict(torch.load(self.folder / "weights.pt", weights_only=True))
        return model.eval()

    def prepared(self, inputs: Tensor) -> Tensor:
        """Normalise images; leave other inputs alone."""
        return (inputs.float() / 255 - MEAN) / STD if self.is_image else inputs

    def batches(self, size: int = 128, *, augment: bool = True) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield one shuffled epoch of (inputs, labels)."""
        for index in torch.randperm(len(self.labels)).split(size):
            inputs = self.prepared(self.images[index])
            yield (self._augmented(inputs) if augment else inputs), self.labels[index]

    def calibration(self, size: int = 128) -> list[Tensor]:
        """Return batches of the first training inputs, as they are."""
        return [*self.prepared(self.images[:CALIBRATION]).split(size)]

    def val_accuracy(self, model: Callable[[Tensor], Tensor], limit: int | None = None) -> float:
        """Return the fraction of `val` that a model has right."""
        inputs, labels = self._split("val")
        pairs = zip(inputs[:limit].split(250), labels[:limit].split(250), strict=True)
        with torch.no_grad():
            right = [(model(self.prepared(x)).argmax(1) == y).sum().item() for x, y in pairs]
        return sum(right) / len(labels[:limit])

    def _augmented(self, images: Tensor) -> Tensor:
        if not self.is_image:
            return images
        count, channels, height, width = images.shape
        flip = (torch.rand(count) < 0.5).view(-1, 1, 1, 1)
        padded = F.pad(torch.where(flip, images.flip(3), images), (4, 4, 4, 4))
        top, left = torch.randint(0, 9, (2, count, 1))
        rows = (top + torch.arange(height)).view(count, 1, height, 1)
        columns = (left + torch.arange(width)).view(count, 1, 1, width)
        image, channel = (
            torch.arange(count).view(-1, 1, 1, 1),
            torch.arange(channels).view(-1, 1, 1),
        )
        return padded[image, channel, rows, columns]


def contender_options(description: str) -> argparse.Namespace:
    """Read what every contender is called with, and seed torch.

    Returns:
        "bundle" and "out", the folders to read from and to write to; "minutes" for all that is
        trained; "seed".
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("bundle", type=Path)
    parser.add_argument("out", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    torch.manual_seed(options.seed)
    return options


def train(
    model: nn.Module, bundle: Bundle, *, seconds: float, rate: float = 0.02, size: int = 128
) -> nn.Module:
    """Train with SGD for given seconds, the rate following one cycle of the time.

    Networks without batch norms take AdamW at a twentieth of the rate.
    """
    norms = any(isinstance(module, nn.BatchNorm2d) for module in model.modules())
    parameters = [p for p in model.parameters() if p.requires_grad]
    if norms:
        optimiser = torch.optim.SGD(parameters, rate, momentum=0.9, weight_decay=5e-4)
    else:
        optimiser = torch.optim.AdamW(parameters, rate / 20, weight_decay=0.01)
    peak, started = optimiser.param_groups[0]["lr"], time.monotonic()
    model.train()
    for inputs, labels in itertools.chain.from_iterable(bundle.batches(size) for _ in iter(int, 1)):
        done = (time.monotonic() - started) / seconds
        if done >= 1.0:
            break
        optimiser.param_groups[0]["lr"] = peak * min(done / 0.25, (1.0 - done) / 0.75)
        optimiser.zero_grad()
        F.cross_entropy(model(inputs), labels).backward()
        nn.utils.clip_grad_norm_(parameters, 5.0)
        optimiser.step()
    return model.eval()


def write_onnx(model: nn.Module, bundle: Bundle, path: Path) -> Path:
    """Write an fp32 ONNX file whose batch axis is open."""
    example = bundle.calibration(2)[0]
    batch = {0: torch.export.Dim("batch", min=1, max=4096)}
    program = torch.onnx.export(
        model, (example,), dynamo=True, dynamic_shapes=(batch,), verbose=False
    )
    program.save(str(path), external_data=False)
    return path


def finish(out: Path, files: list[dict[str, object]]) -> None:
    """List the files that were made, which says that a contender ran to its end.

    Each has "path" below `out`, "quantise" where ONNX Runtime's static quantiser
    is to make it int8, and "targets" where it does not run in all.
    """
    (out / "files.json").write_text(json.dumps(files, indent=2))
