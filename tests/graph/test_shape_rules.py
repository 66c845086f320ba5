"""Labels must go where the values of their channels go."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.graph.inputs import tensors_of
from autocompress.graph.labels import Marks
from autocompress.graph.math_rules import MATH_RULES
from autocompress.graph.propagation import Propagation
from autocompress.graph.shape_rules import SHAPE_RULES, matched_axes

CHANNELS = 8
Case = Callable[[Tensor], object]

MOVES: dict[str, Case] = {
    "permute": lambda x: x.permute(2, 0, 1, 3),
    "transpose": lambda x: x.transpose(1, 3),
    "slice": lambda x: x[:, 2:7:2],
    "select another axis": lambda x: x[:, :, 1],
    "unbind another axis": lambda x: x.unbind(3),
    "split evenly": lambda x: x.split(4, dim=1),
    "chunk": lambda x: x.chunk(2, dim=1),
    "split unevenly": lambda x: x.split([3, 5], dim=1),
    "concatenate": lambda x: torch.cat([x[:, 4:], x, x[:, :2]], 1),
    "concatenate another axis": lambda x: torch.cat([x, x], 2),
    "stack": lambda x: torch.stack([x, x], 1),
    "pad": lambda x: functional.pad(x, (1, 0, 0, 0, 2, 3), value=-1),
    "crop by padding": lambda x: functional.pad(x, (0, 0, 0, 0, -2, 1), value=-1),
    "repeat": lambda x: x.repeat(1, 2, 1, 1),
    "index_select": lambda x: x.index_select(1, torch.tensor([5, 0, 3])),
    "index": lambda x: x[:, :, torch.tensor([1, 0])],
    "channel_shuffle": lambda x: functional.channel_shuffle(x, 2),
    "shuffle by hand": lambda x: x.view(2, 2, 4, 3, 3).transpose(1, 2).reshape(2, 8, 3, 3),
    "pixel_shuffle": lambda x: functional.pixel_shuffle(x, 2),
    "pixel_unshuffle": lambda x: functional.pixel_unshuffle(x[:, :, :2, :2], 2),
    "flatten all": lambda x: x.flatten(1),
    "flatten space": lambda x: x.flatten(2).transpose(1, 2),
    "flatten and back": lambda x: x.flatten(1).reshape(2, 8, 3, 3),
    "squeeze": lambda x: x[:, :, :1, :1].squeeze(-1).squeeze(-1),
    "unsqueeze": lambda x: x.unsqueeze(1),
    "parts": lambda x: x.reshape(2, 4, 2, 3, 3),
    "expand": lambda x: x[:, :, :1, :1].expand(2, 8, 4, 5),
    "pool": lambda x: functional.max_pool2d(x, 2),
    "pool all, channels last": lambda x: functional.adaptive_avg_pool2d(
        x.contiguous(memory_format=torch.channels_last), 1
    ),
    "upsample": lambda x: functional.interpolate(x, scale_factor=2),
}


def _followed(case: Case) -> tuple[Propagation, Marks, list[Tensor]]:
    """Run a case on a tensor whose values are the numbers of their channels."""
    run = Propagation(nn.Module(), {**SHAPE_RULES, **MATH_RULES})
    x = torch.arange(CHANNELS).float().reshape(1, -1, 1, 1).repeat(2, 1, 3, 3)
    marks = run.labels.fresh(CHANNELS)
    run.put(x, [None, marks, None, None])
    with run:
        outputs = list(tensors_of(case(x)))
    return run, marks, outputs


@pytest.mark.parametrize("name", MOVES)
def test_labels_go_where_values_go(name: str) -> None:
    run, marks, outputs = _followed(MOVES[name])
    known = run.labels.find(marks)
    assert outputs
    for output in outputs:
        labelled = [axis for axis, m in enumerate(run.get(output)) if m is not None]
        assert len(labelled) == 1
        axis = labelled[0]
        found = run.labels.find(run.get(output)[axis])
        assert len(found) == output.shape[axis]
        for position, label in enumerate(found.tolist()):
            values = set(output.select(axis, position).flatten().int().tolist()) - {-1}
            assert {int(known[value]) for value in values} <= {label}
            assert values or name in ("pad", "crop by padding")


@pytest.mark.parametrize(
    ("name", "classes"),
    [("split evenly", 4), ("split unevenly", 8), ("shuffle by hand", 4), ("pixel_shuffle", 2)],
)
def test_what_must_keep_its_shape_is_tied(name: str, classes: int) -> None:
    run, marks, _ = _followed(MOVES[name])
    assert len(set(run.labels.find(marks).tolist())) == classes


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (lambda x: x.roll(1, 1), "its channels change places"),
        (lambda x: x.flip(1), "its channels change places"),
        (
            lambda x: x[torch.tensor([0, 1]), :, torch.tensor([0, 1])],
            "unsupported operator 'index'",
        ),
    ],
)
def test_moves_that_need_every_channel_are_refused(case: Case, reason: str) -> None:
    run, marks, _ = _followed(case)
    assert set(run.labels.reasons().values()) == {reason}
    assert set(run.labels.reasons()) == set(run.labels.find(marks).tolist())


def test_axes_are_matched_by_their_elements() -> None:
    assert list(matched_axes((2, 3, 4), (6, 4))) == [([0, 1], [0]), ([2], [1])]
    assert list(matched_axes((6, 4), (2, 3, 2, 2))) == [([0], [0, 1]), ([1], [2, 3])]
    assert list(matched_axes((2, 8), (4, 4))) == [([0, 1], [0, 1])]
