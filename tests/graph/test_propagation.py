import torch
from torch import Tensor, nn

from autocompress.graph.labels import OUTPUT
from autocompress.graph.math_rules import MATH_RULES
from autocompress.graph.propagation import Propagation
from autocompress.graph.shape_rules import SHAPE_RULES

RULES = {**SHAPE_RULES, **MATH_RULES}


class Heads(nn.Module):
    """A module that knows how many heads it has, and how wide they are."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.head_dim, self.width = 3, 4, 12
        self.project = nn.Linear(12, 12)
        self.seen: list[tuple[str, set[int], set[int]]] = []
        self.run: Propagation | None = None

    def forward(self, x: Tensor) -> Tensor:
        x = self.project(x)
        if self.run is not None:
            self.seen.append((self.run.scope, self.run.head_counts(), self.run.head_sizes()))
        return x


def test_the_running_module_is_known() -> None:
    model = nn.Sequential(nn.Linear(5, 12), Heads())
    run = Propagation(model, RULES)
    model[1].run = run
    with torch.enable_grad(), run:
        output = model(torch.randn(2, 5))
    assert model[1].seen == [("1", {3}, {4})]
    assert list(run.entered) == ["", "0", "1", "1.project"]
    run.mark_outputs([output])
    assert set(run.labels.reasons().values()) == {OUTPUT}
    run.close()
    model(torch.randn(2, 5))
    assert model[1].seen[1:] == [("", set(), set())]  # the hooks are gone


def test_every_axis_of_every_parameter_has_its_own_labels() -> None:
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, shared, nn.Conv2d(4, 6, 3), nn.Embedding(9, 5))
    run = Propagation(model, RULES)
    axes = {(p.module, p.key, p.dim): len(p.marks) for p in run.parameters}
    assert axes == {
        ("0", "weight", 0): 4,
        ("0", "weight", 1): 4,
        ("0", "bias", 0): 4,
        ("2", "weight", 0): 6,
        ("2", "weight", 1): 4,
        ("2", "bias", 0): 6,
        ("3", "weight", 1): 5,
    }
    marks = [int(m) for p in run.parameters for m in p.marks]
    assert len(marks) == len(set(marks))


def test_unknown_operators_refuse_what_they_read_and_label_nothing() -> None:
    model = nn.Linear(3, 4)
    run = Propagation(model, {})
    with torch.enable_grad(), run:
        output = model(torch.randn(2, 3))
    assert run.get(output) == (None, None)
    assert set(run.labels.reasons().values()) == {
        "unsupported operator 't'",
        "unsupported operator 'addmm'",
    }


def test_numbers_of_channels_are_noted_with_the_module_that_may_name_them() -> None:
    class Padded(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return nn.functional.pad(x, (2, 1))

    model = nn.Sequential(nn.Linear(3, 4), Padded())
    run = Propagation(model, RULES)
    with torch.enable_grad(), run:
        model(torch.randn(2, 3))
    found = [(c.module, len(c.marks), tuple(c.amounts), c.number, c.is_padding) for c in run.counts]
    assert found == [("1", 2, (2, 1), 0, True), ("1", 1, (2, 1), 1, True)]
