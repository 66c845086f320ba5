"""Corrections after rounding to 4 bits: do equalisation and bias correction add to what there is?

    python examples/benchmarks/corrections.py --data cifar10_jpeg.npz --weights resnet20.safetensors

Weights have 4 bits and activations 8, nothing is trained, accuracy is on `val`. Equalisation
(Nagel et al. 2019) moves scales from channels of one convolution of a residual block to the next;
bias correction (the same) gives every layer's outputs, in turn, their original means back. Both are
written here, not in the package, which rounds by GPTQ and recalibrates batch norms.
"""

import argparse
import copy
import platform
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[1]))

import autocompress as ac
from autocompress.core.files import write_json
from autocompress.cost.measurement import device_name
from autocompress.evaluation.proxy import recalibrate_batch_norms, score
from autocompress.evaluation.splits import Splits, example_inputs, make_splits
from autocompress.graph.tracing import trace
from autocompress.transform.compress import calibrate_grids, compress_model
from autocompress.transform.rounding import round_weights
from cifar10_data import make_random_task, make_task
from cifar10_models import make_model
from vision_transformer import make_small_transformer

BATCHES = 4
"""Calibration batches that weights are rounded on."""

KINDS = ("none", "batch norms", "bias")
"""What is corrected after rounding."""

NORMS, LAYERS = (nn.BatchNorm2d,), (nn.Linear, nn.Conv2d)


def main() -> None:
    """Measure, print a table and write JSON."""
    options = _options()
    task = make_random_task() if options.smoke else make_task(options.data)
    splits = make_splits(task, seed=options.seed)
    resnet = make_model(8 if options.smoke else 20)
    if options.weights:
        resnet.load_state_dict(load_file(options.weights))
    models = {"ResNet-20": resnet.eval(), "ResNet-20, equalised": equalised(resnet)}
    if options.transformer:
        transformer = make_small_transformer()
        transformer.load_state_dict(load_file(options.transformer))
        models["transformer"] = transformer.eval()
    table = Table("model", "rounding", *KINDS)
    rows: list[dict[str, Any]] = []
    for name, model in models.items():
        original = score(model, task, splits.val, low_precision=False)
        table.add_row(name, "unquantised", f"{original:.2%}")
        for rounding in ("nearest", "gptq"):
            found = {kind: corrected(model, task, splits, rounding, kind) for kind in KINDS}
            rows.append({"model": name, "rounding": rounding, "original": original, **found})
            table.add_row("", rounding, *(f"{accuracy:.2%}" for accuracy in found.values()))
    Console(width=100).print(table)
    if options.json:
        versions = {"python": platform.python_version(), "torch": torch.__version__}
        host = {"device": device_name(), "versions": versions, "seed": options.seed}
        write_json(options.json, host | {"rows": rows})


def corrected(model: nn.Module, task: ac.Task, splits: Splits, rounding: str, kind: str) -> float:
    """Quantise a model, correct it, and return its accuracy."""
    inputs = example_inputs(task, model, splits.val)
    graph = trace(model, inputs[0])
    config = ac.LayerConfig(weight_bits=4, activation_bits=8)
    layers = dict.fromkeys((layer.name for layer in graph.layers), config)
    student = compress_model(model, graph, ac.Candidate(layers=layers), inputs)
    if rounding == "gptq":
        round_weights(student, splits.calibration[:BATCHES], task.run)
    student.quantise_activations = False
    if kind == "batch norms":
        recalibrate_batch_norms(student, task, splits.recalibration)
    elif kind == "bias":
        batches = splits.calibration[:BATCHES]
        correct_biases(student, student.network, model, lambda m: [task.run(m, b) for b in batches])
    student.quantise_activations = True
    calibrate_grids(student, splits.calibration, task.run)
    return score(student, task, splits.val, low_precision=False)


def correct_biases(
    student: nn.Module, network: nn.Module, original: nn.Module, run: Callable[[nn.Module], Any]
) -> None:
    """Shift the outputs of norms, or else of layers, one after the other, to their old means."""
    kinds = NORMS if any(isinstance(m, NORMS) for m in original.modules()) else LAYERS
    names = [name for name, module in original.named_modules() if isinstance(module, kinds)]
    expected = output_means(original, original, names, run)
    for name in names:
        got = output_means(student, network, [name], run)[name]
        network.get_submodule(name).get_parameter("bias").data += expected[name] - got


def output_means(
    called: nn.Module, network: nn.Module, names: Sequence[str], run: Callable[[nn.Module], Any]
) -> dict[str, Tensor]:
    """Return the mean of each output channel of some modules."""
    sums: dict[str, list[Tensor]] = {name: [] for name in names}

    def watch(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, _: Any, output: Tensor) -> None:
            wide = output if isinstance(module, nn.Linear) else output.movedim(1, -1)
            sums[name].append(wide.flatten(0, -2).mean(dim=0))

        return hook

    hooks = [network.get_submodule(n).register_forward_hook(watch(n)) for n in names]
    with torch.no_grad():
        run(called)
    for hook in hooks:
        hook.remove()
    return {name: torch.stack(means).mean(dim=0) for name, means in sums.items()}


def equalised(model: nn.Module) -> nn.Module:
    """Give the channels between the convolutions of each block equal ranges on both sides."""
    model = copy.deepcopy(model).eval()
    for block in (block for stage in model.children() for block in stage.children()):
        norm, after = block.bn1, block.conv2.weight.data
        factor = (norm.weight / (norm.running_var + norm.eps).sqrt()).abs().data
        left = block.conv1.weight.data.abs().amax((1, 2, 3)) * factor
        right = after.abs().amax((0, 2, 3)).clamp_min(1e-8)
        scale = ((left * right).sqrt() / right).clamp(1e-2, 1e2)
        norm.weight.data /= scale
        norm.bias.data /= scale
        after *= scale.view(1, -1, 1, 1)
    return model


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, help="CIFAR-10 as one .npz of JPEG images")
    parser.add_argument("--weights", type=Path, help="the ResNet-20's, .safetensors")
    parser.add_argument("--transformer", type=Path, help="those that artifacts.py has trained")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="a tiny network on random images")
    options = parser.parse_args()
    if not options.smoke and (options.data is None or options.weights is None):
        parser.error("--data and --weights are needed, or --smoke")
    return options


if __name__ == "__main__":
    main()
