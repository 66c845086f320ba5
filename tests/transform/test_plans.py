import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.core.candidate import Candidate
from autocompress.graph.tracing import trace
from autocompress.transform import plans as plans_module
from autocompress.transform.discovery import discover_plan
from autocompress.transform.surgeon import Surgeon
from seasoned import SHAPES, pruned, seasoned, uniform


@pytest.mark.parametrize("name", SHAPES)
def test_candidates_are_not_run_to_plan_them(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, inputs = seasoned(name)
    graph = trace(model, inputs)
    surgeon = Surgeon(model, graph, ((inputs,), {}))
    assert surgeon.plans.derivable
    blocks = tuple(block.name for block in graph.blocks if block.droppable)
    candidates = [
        Candidate(pruning_ratios=ratios, dropped_blocks=dropped, layers=layers).canonical()
        for ratios in ({}, pruned(graph, 0.3))
        for dropped in ((), blocks[:1], blocks)
        for layers in ({}, uniform(graph, 4), dict(list(uniform(graph, 8).items())[::2]))
    ]
    networks = [surgeon.compress(candidate).network for candidate in candidates]
    expected = [
        discover_plan(network, ((inputs,), {}), candidate.layers)
        for network, candidate in zip(networks, candidates, strict=True)
    ]

    def refuse(*_: object) -> None:
        raise AssertionError("a candidate was run")

    monkeypatch.setattr(plans_module, "record_operations", refuse)
    for network, candidate, plan in zip(networks, candidates, expected, strict=True):
        assert surgeon.plans.plan(network, candidate) == plan


class _WidthDependent(nn.Module):
    """Does one operation more while it is wide."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.a(x))
        if x.shape[1] > 6:
            x = functional.relu(x * 1.0)
        return self.b(x)


def test_models_that_depend_on_their_widths_are_run() -> None:
    model, inputs = _WidthDependent().eval(), torch.randn(3, 4)
    graph = trace(model, inputs)
    surgeon = Surgeon(model, graph, ((inputs,), {}))
    assert graph.group("a").prunable
    assert not surgeon.plans.derivable
    candidate = Candidate(pruning_ratios={"a": 0.5}, layers=uniform(graph, 8))
    result = surgeon.compress(candidate)
    plan = discover_plan(result.network, ((inputs,), {}), result.record.candidate.layers)
    assert result.record.plan == plan


class _NeedsOneOfTwo(nn.Module):
    """Runs without either of its blocks, but not without both."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = _Residual(), _Residual()

    def forward(self, x: Tensor) -> Tensor:
        y = self.right(self.left(x))
        if y is x:
            raise RuntimeError("nothing is left")
        return y


class _Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 8), nn.Linear(8, 4)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.b(functional.relu(self.a(x)))


def test_a_model_that_needs_some_of_its_blocks_is_run() -> None:
    model, inputs = _NeedsOneOfTwo().eval(), torch.randn(3, 4)
    graph = trace(model, inputs)
    assert [block.droppable for block in graph.blocks] == [True, True]
    surgeon = Surgeon(model, graph, ((inputs,), {}))
    assert not surgeon.plans.derivable
    result = surgeon.compress(Candidate(dropped_blocks=("left",), layers=uniform(graph, 8)))
    assert result.record.plan.inputs.keys() == {"right.a", "right.b"}
