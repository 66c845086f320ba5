"""Artifacts: does each file compute what its model does, and is it as small as it can be?

    python examples/benchmarks/artifacts.py --data cifar10_jpeg.npz --weights resnet20.safetensors

Random candidates of a CIFAR ResNet-20 and of a small vision transformer, which is trained here
for a few epochs, are compressed without training and exported. On 5,000 images each ONNX file is
compared in ONNX Runtime with the fake-quantised model, and with the same model in integers,
which is what a search compares it with. Packed files are read back. Mixtures of 2 to 4 bits
are compared with the entropy of their codes: of each layer, the zero-order entropy of its codes,
and as it is stored everything else that the file holds of the weights. Continues its JSON file.
"""

import argparse
import json
import platform
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.artifact.container import Symbols, read_container
from autocompress.artifact.exact import ExactModel
from autocompress.artifact.packed import write_packed
from autocompress.artifact.saturation import resolve_range
from autocompress.artifact.stored_weight import entry_bytes
from autocompress.core.files import write_json
from autocompress.cost.measurement import device_name
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.splits import example_inputs, make_splits
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model
from vision_transformer import make_small_transformer

TARGET = ac.Target.named("onnxruntime-cpu")
TOLERANCE, IMAGES = 0.002, 2
"""Allowed difference of accuracy, a fraction or a number of images, whichever is larger."""

SAME = 1e-5
"""Largest difference of outputs that counts as none, as a fraction of the largest output."""


def main() -> None:
    """Measure, print a table and write JSON."""
    options = _options()
    torch.manual_seed(options.seed)
    task = make_random_task() if options.smoke else make_task(options.data)
    found: dict[str, Any] = {"candidates": [], "mixtures": []}
    if options.json and options.json.exists():
        found = json.loads(options.json.read_text())
    found |= {
        "device": device_name(),
        "threads": torch.get_num_threads(),
        "versions": {
            "python": platform.python_version(),
            "torch": torch.__version__,
            "onnxruntime": onnxruntime.__version__,
        },
        "seed": options.seed,
    }
    known = {(row["model"], row["seed"]) for row in found["candidates"]}
    for name, model, count in _models(options, task):
        splits = make_splits(task, seed=options.seed)
        inputs = example_inputs(task, model, splits.val)[0]
        space = ac.SearchSpace.load("cnn").bind(model, inputs, target=TARGET)
        with tempfile.TemporaryDirectory() as folder:
            evaluator = Evaluator(
                model,
                space.graph,
                task,
                splits,
                checkpoints=Path(folder),
                seed=options.seed,
                quantisation=resolve_range(ac.QuantisationConfig(), TARGET),
            )
            for seed in range(options.seed, options.seed + count):
                if (name, seed) not in known:
                    row = compare(evaluator, space.sample(seed), splits.val, Path(folder))
                    found["candidates"].append({"model": name, "seed": seed, **row})
                    _save(options, found)
            if name == "ResNet-20" and not found["mixtures"]:
                found |= packed_sizes(evaluator, space, options.mixtures, Path(folder))
                _save(options, found)
    Console(width=100).print(_table(found))


def compare(
    evaluator: Evaluator, candidate: ac.Candidate, batches: Sequence[Any], folder: Path
) -> dict[str, Any]:
    """Export one candidate; compare its outputs, and its packed file, with the model."""
    model = evaluator.compress(candidate)
    evaluator.settle(model, exact=True)
    artifact = ac.export(model, folder / "model.onnx", evaluator.inputs[0][0], target=TARGET)
    runtime, exact = ac.RuntimeModule(artifact.path), ExactModel(model, evaluator.inputs)
    rebuilt = ac.load(artifact.packed_path, evaluator.model)
    labels = torch.cat([batch[1] for batch in batches])
    with torch.inference_mode():
        outputs = {
            name: torch.cat([module(batch[0]) for batch in batches])
            for name, module in (("runtime", runtime), ("fake", model), ("exact", exact))
        }
        same = torch.equal(rebuilt(batches[0][0]), model(batches[0][0]))
    expected = outputs.pop("runtime")
    return {
        "images": len(labels),
        "accuracy": _accuracy(expected, labels),
        "packed_bit_for_bit": same,
        "size_bytes": artifact.size_bytes,
        "onnx_bytes": artifact.onnx_bytes,
        **{name: _difference(got, expected, labels) for name, got in outputs.items()},
    }


def packed_sizes(evaluator: Evaluator, space: Any, count: int, folder: Path) -> dict[str, Any]:
    """Compare packed files with the original's, and with the entropy of their codes."""
    names, rng, path = space.layers, np.random.default_rng(0), folder / "weights.packed"

    def written(bits: Mapping[str, int]) -> dict[str, float]:
        layers = {n: ac.LayerConfig(weight_bits=b, activation_bits=8) for n, b in bits.items()}
        model = evaluator.compress(ac.Candidate(layers=layers))
        evaluator.settle(model)
        size = write_packed(model, path)
        codes = stored = entropy = 0.0
        for name, entry in read_container(path.read_bytes())[0].items():
            if isinstance(entry, Symbols):
                shares = np.unique(entry.values, return_counts=True)[1] / len(entry.values)
                entropy -= len(entry.values) * float((shares * np.log2(shares)).sum()) / 8
                codes += entry_bytes(entry)
            elif not name.startswith(":"):
                stored += entry_bytes(entry)
        return {"file": size, "codes": codes, "entropy": entropy, "rest": stored}

    original = written({})["file"]
    mixtures = [written({n: int(rng.integers(2, 5)) for n in names}) for _ in range(count)]
    return {
        "w4_over_fp32": written(dict.fromkeys(names, 4))["file"] / original,
        "mixtures": mixtures,
        "file_over_entropy": float(
            np.mean([m["file"] / (m["entropy"] + m["rest"]) for m in mixtures])
        ),
        "codes_over_entropy": float(np.mean([m["codes"] / m["entropy"] for m in mixtures])),
    }


def _difference(got: Tensor, expected: Tensor, labels: Tensor) -> dict[str, Any]:
    """Compare the outputs of torch with those of the runtime."""
    accuracy = _accuracy(got, labels)
    errors = (got - expected).abs().amax(dim=1) / expected.abs().max()
    apart = round(abs(accuracy - _accuracy(expected, labels)) * len(labels))
    return {
        "accuracy": accuracy,
        "images_apart": apart,
        "within": apart <= max(TOLERANCE * len(labels), IMAGES) + 1e-9,
        "other_class": int((got.argmax(1) != expected.argmax(1)).sum()),
        "relative_error": float(errors.max()),
        "equal_images": int((errors < SAME).sum()),
    }


def _accuracy(outputs: Tensor, labels: Tensor) -> float:
    return float((outputs.argmax(1) == labels).double().mean())


def _models(options: argparse.Namespace, task: ac.Task) -> Iterator[tuple[str, nn.Module, int]]:
    """Yield name, model and number of candidates."""
    model = make_model(8 if options.smoke else 20)
    if options.weights:
        model.load_state_dict(load_file(options.weights))
    yield "ResNet-20", model.eval(), options.candidates
    transformer = make_small_transformer()
    if options.transformer and options.transformer.exists():
        transformer.load_state_dict(load_file(options.transformer))
    else:
        train(transformer, task, 1 if options.smoke else options.epochs)
        if options.transformer:
            save_file(transformer.state_dict(), options.transformer)
    yield "transformer", transformer.eval(), options.transformers


def train(model: nn.Module, task: ac.Task, epochs: int) -> None:
    """Train a model from scratch, in one cycle of the learning rate."""
    optimiser = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.05)
    steps = epochs * len(task.train)  # type: ignore[arg-type]
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, 2e-3, total_steps=steps)
    model.train()
    for _ in range(epochs):
        for images, labels in task.train:
            nn.functional.cross_entropy(model(images), labels).backward()
            optimiser.step()
            schedule.step()
            optimiser.zero_grad()


def _save(options: argparse.Namespace, found: Mapping[str, Any]) -> None:
    if options.json:
        write_json(options.json, dict(found))


def _table(found: Mapping[str, Any]) -> Table:
    """Sum the candidates up, and the sizes."""
    columns = ("model", "against", "within", "other class", "equal images", "largest error")
    title = (
        f"packed: W4 {found['w4_over_fp32']:.4f} of fp32; W2-W4 mixtures "
        f"{found['file_over_entropy']:.4f} of the entropy (codes {found['codes_over_entropy']:.4f})"
    )
    table = Table(*columns, title=title)
    for name in dict.fromkeys(row["model"] for row in found["candidates"]):
        rows = [row for row in found["candidates"] if row["model"] == name]
        for kind in ("fake", "exact"):
            images = sum(row["images"] for row in rows)
            table.add_row(
                name,
                {"fake": "fake quantisation", "exact": "integers"}[kind],
                f"{sum(row[kind]['within'] for row in rows)}/{len(rows)}",
                f"{sum(row[kind]['other_class'] for row in rows) / images:.4%}",
                f"{sum(row[kind]['equal_images'] for row in rows) / images:.2%}",
                f"{max(row[kind]['relative_error'] for row in rows):.4f}",
            )
        whole = sum(row["packed_bit_for_bit"] for row in rows)
        table.add_row("", f"{whole}/{len(rows)} packed files bit for bit", end_section=True)
    return table


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="the ResNet-20's, .safetensors")
    parser.add_argument("--transformer", type=Path, help="the transformer's, written if missing")
    parser.add_argument("--epochs", type=int, default=4, help="training of the transformer")
    parser.add_argument("--candidates", type=int, default=60)
    parser.add_argument("--transformers", type=int, default=10, help="candidates of that model")
    parser.add_argument("--mixtures", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="random data, one candidate each")
    options = parser.parse_args()
    if options.smoke:
        options.candidates = options.transformers = options.mixtures = 1
    elif options.data is None or options.weights is None:
        parser.error("--data and --weights are needed, or --smoke")
    return options


if __name__ == "__main__":
    main()
