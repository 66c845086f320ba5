from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.graph.labels import Marks
from autocompress.graph.math_rules import MATH_RULES
from autocompress.graph.propagation import Propagation
from autocompress.graph.shape_rules import SHAPE_RULES

Case = Callable[[Tensor, Tensor], Tensor]


def _followed(case: Case, second: int = 1) -> tuple[Propagation, Marks, Marks, Tensor]:
    """Run a case on two `2 x 6 x 6` tensors with labels along axis 1, and along one of choice."""
    run = Propagation(nn.Module(), {**SHAPE_RULES, **MATH_RULES})
    x, y = torch.randn(2, 6, 6), torch.randn(2, 6, 6)
    marks, others = run.labels.fresh(6), run.labels.fresh(6)
    run.put(x, [None, marks, None])
    run.put(y, [others if axis == second else None for axis in range(3)])
    with run:
        output = case(x, y)
    return run, marks, others, output


def _tied(run: Propagation, first: Marks, second: Marks) -> bool:
    return run.labels.find(first).tolist() == run.labels.find(second).tolist()


@pytest.mark.parametrize(
    "case", [torch.add, torch.mul, torch.maximum, lambda x, y: torch.where(x > 0, x, y)]
)
def test_channels_that_meet_in_arithmetic_are_tied(case: Case) -> None:
    run, marks, others, output = _followed(case)
    assert _tied(run, marks, others)
    assert _tied(run, marks, run.get(output)[1])


def test_broadcast_axes_are_not_tied() -> None:
    run, marks, others, output = _followed(lambda x, y: x + y[:, :, :1].transpose(1, 2))
    assert not _tied(run, marks, others)
    first, second = run.get(output)[1:]
    assert _tied(run, marks, first)
    assert _tied(run, others, second)


def test_a_product_of_matrices_sums_what_it_ties() -> None:
    run, marks, others, output = _followed(lambda x, y: torch.bmm(x.transpose(1, 2), y))
    assert _tied(run, marks, others)
    assert run.get(output) == (None, None, None)
    run, marks, others, output = _followed(torch.bmm, second=2)
    assert not _tied(run, marks, others)
    assert [m is not None for m in run.get(output)] == [False, True, True]


@pytest.mark.parametrize(
    ("case", "reason"),
    [
        (lambda x, _: x.softmax(1), "softmax over its channels"),
        (lambda x, _: x.log_softmax(1), "softmax over its channels"),
        (
            lambda x, _: functional.layer_norm(x.transpose(1, 2), (6,)),
            "normalised over its channels (LayerNorm)",
        ),
        (lambda x, _: functional.group_norm(x, 1), "normalised over its channels (GroupNorm)"),
        (lambda x, _: x.cumsum(1), "unsupported operator 'cumsum'"),
        (lambda x, _: torch.sort(x, 1)[0], "unsupported operator 'sort'"),
    ],
)
def test_what_combines_channels_is_refused(case: Case, reason: str) -> None:
    run, marks, _, _ = _followed(case)
    assert run.labels.reasons() == dict.fromkeys(run.labels.find(marks).tolist(), reason)


@pytest.mark.parametrize("case", [lambda x, _: x.mean(1), lambda x, _: x.var(1)])
def test_averages_are_in_doubt(case: Case) -> None:
    run, marks, _, _ = _followed(case)
    assert run.labels.reasons() == {}
    doubts = run.labels.reasons(certain=False)
    assert doubts == dict.fromkeys(run.labels.find(marks).tolist(), "averaged over its channels")


def test_sums_and_statistics_of_other_axes_are_free() -> None:
    for case in (lambda x, _: x.mean(2), lambda x, _: x.amax(2), lambda x, _: x.softmax(2)):
        run, marks, _, output = _followed(case)
        assert run.labels.reasons() == run.labels.reasons(certain=False) == {}
        assert _tied(run, marks, run.get(output)[1])
    run, _, _, output = _followed(lambda x, _: x.sum(1))
    assert run.get(output) == (None, None)


def test_gates_and_group_norms_tie_parts() -> None:
    run, marks, _, output = _followed(lambda x, _: functional.glu(x, 1))
    assert _tied(run, marks[:3], marks[3:])
    assert _tied(run, run.get(output)[1], marks[:3])
    run, marks, _, _ = _followed(lambda x, _: functional.group_norm(x, 3))
    assert len(set(run.labels.find(marks).tolist())) == 3


@pytest.mark.parametrize(("groups", "classes"), [(1, 6), (2, 3), (3, 3), (6, 6)])
def test_grouped_convolutions_tie_their_inputs(groups: int, classes: int) -> None:
    layer = nn.Conv1d(6, 12, 1, groups=groups)
    run = Propagation(layer, {**SHAPE_RULES, **MATH_RULES})
    x, marks = torch.randn(2, 6, 5), run.labels.fresh(6)
    run.put(x, [None, marks, None])
    with torch.enable_grad(), run:
        output = layer(x)
    run.close()
    assert len(set(run.labels.find(marks).tolist())) == classes
    produced = run.labels.find(run.get(output)[1])
    together = set(produced.tolist()) == set(run.labels.find(marks).tolist())
    assert together == (groups in (3, 6))  # whole convolution groups go, inputs and outputs alike
    assert len(set(produced.tolist())) == {1: 12, 2: 6, 3: 3, 6: 6}[groups]


@pytest.mark.parametrize(
    "case",
    [
        lambda x, _: functional.normalize(x, dim=1),
        lambda x, _: x / x.norm(dim=1, keepdim=True),
        lambda x, _: x * torch.norm(x, p=1, dim=1, keepdim=True),
        lambda x, _: x / torch.linalg.vector_norm(x, 3, dim=(1, 2), keepdim=True),
        lambda x, _: x / x.norm(),
    ],
)
def test_norms_keep_the_channels_apart(case: Case) -> None:
    run, marks, _, output = _followed(case)
    assert run.labels.reasons() == run.labels.reasons(certain=False) == {}
    assert _tied(run, marks, run.get(output)[1])
    assert len(set(run.labels.find(marks).tolist())) == 6
