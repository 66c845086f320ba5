"""Every architecture of the zoo is pruned exactly, or refused with a reason."""

import copy
import importlib.util
import os
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import autocompress as ac
from architectures import ARCHITECTURES, Architecture
from autocompress.graph.blocks import drop_blocks
from autocompress.graph.inputs import ModelInputs, output_tensors
from autocompress.graph.mask_check import TOLERANCE, mask_positions, randomise
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from autocompress.graph.widths import pruned_widths
from autocompress.transform.compress import compress_model

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore"),  # of packages whose code is not ours
]

RATIOS = (0.25, 0.5)


@pytest.mark.parametrize("architecture", ARCHITECTURES, ids=lambda a: f"{a.package}-{a.name}")
def test_pruned_equals_masked_trains_and_exports(
    architecture: Architecture, tmp_path: Path
) -> None:
    if architecture.package != "own" and not importlib.util.find_spec(architecture.package):
        pytest.skip(f"{architecture.package} is not installed")
    torch.manual_seed(0)
    model, inputs = architecture.make().eval(), ModelInputs.of(architecture.inputs(2))
    randomise(model, inputs, torch.Generator().manual_seed(0))
    graph = trace(model, inputs)
    prunable = [group for group in graph.groups if group.prunable]
    assert all(group.prunable or group.reason for group in graph.groups)
    status = "prunes" if prunable else f"refused: {graph.groups[0].reason}"
    try:
        for ratio in RATIOS if prunable or any(block.droppable for block in graph.blocks) else ():
            _check(model, graph, ratio, architecture, tmp_path)
    except Exception as error:
        status = f"FAILS: {type(error).__name__}"
        raise
    finally:
        _write_row(architecture, graph, status)


def _check(
    model: nn.Module, graph: ModelGraph, ratio: float, architecture: Architecture, folder: Path
) -> None:
    """Prune every group by one ratio; compare with masking, take a step, export.

    At the larger ratio, every other block that can be dropped is dropped, too.
    """
    x = architecture.inputs(3)
    ratios = {group.name: ratio for group in graph.groups if group.prunable}
    blocks = [block.name for block in graph.blocks if block.droppable]
    dropped = tuple(blocks[::2]) if ratio == max(RATIOS) else ()
    candidate = ac.Candidate(pruning_ratios=ratios, dropped_blocks=dropped)
    pruned = compress_model(model, graph, candidate, ((x,), {}))
    masked = copy.deepcopy(model)
    drop_blocks(masked, dropped, graph.branches)
    mask_positions(masked, {(c.module, c.axis): c.removed for c in pruned.record.cuts})
    with torch.no_grad():
        expected, got = _first(masked(x)), _first(pruned(x))
    assert (got - expected).abs().max() <= TOLERANCE * expected.abs().max()
    ac.export(pruned, folder / f"{ratio}.onnx", x)  # which compares the outputs
    pruned.train()
    _first(pruned(x)).square().mean().backward()
    gradients = [p.grad for p in pruned.parameters() if p.grad is not None]
    assert gradients
    assert all(bool(gradient.isfinite().all()) for gradient in gradients)


def _first(output: object) -> Tensor:
    return output_tensors(output)[0]


def _write_row(architecture: Architecture, graph: ModelGraph, status: str) -> None:
    """Append a line of Markdown to the file that ZOO_TABLE names."""
    path = os.environ.get("ZOO_TABLE")
    if not path:
        return
    prunable = [group for group in graph.groups if group.prunable]
    macs = sum(layer.macs for layer in graph.layers)
    touched = {member.module for group in prunable for member in group.members}
    share = sum(layer.macs for layer in graph.layers if layer.name in touched) / macs
    halved = ac.Candidate(pruning_ratios={group.name: 0.5 for group in prunable})
    kept = sum(left.macs for left in pruned_widths(graph, halved).values()) / macs
    with Path(path).open("a") as file:
        file.write(
            f"| {architecture.name} | {architecture.package} | {len(prunable)}/"
            f"{len(graph.groups)} | {share:.0%} | {kept:.0%} | {status} |\n"
        )
