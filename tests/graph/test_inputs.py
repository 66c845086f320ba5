from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

import pytest
import torch
from torch import nn

from autocompress.errors import InvalidInputError, TraceError, WrongTypeError
from autocompress.graph.inputs import ModelInputs, one_line, output_tensors, plain_copy


def test_the_three_forms_call_alike() -> None:
    layer = nn.Linear(3, 2)
    x = torch.ones(2, 3)
    expected = layer(x)
    for given in (x, (x,), {"input": x}):
        assert torch.equal(ModelInputs.of(given).run(layer), expected)


def test_plain_inputs_are_two_detached_float32_examples() -> None:
    x = torch.ones(5, 3, dtype=torch.float64, requires_grad=True)
    table = torch.arange(7)
    plain = ModelInputs.of((x, table, 3)).plain()
    first, second, third = plain.args
    assert isinstance(first, torch.Tensor)
    assert isinstance(second, torch.Tensor)
    assert first.shape == (2, 3)
    assert first.dtype == torch.float32
    assert not first.requires_grad
    assert torch.equal(second, table)
    assert third == 3
    assert x.shape == (5, 3)


@pytest.mark.parametrize("given", [None, "x", 3, nn.Linear(1, 1)])
def test_other_types_are_refused(given: object) -> None:
    with pytest.raises(WrongTypeError, match="example_inputs"):
        ModelInputs.of(given)


@pytest.mark.parametrize("given", [(), {}, torch.tensor(1.0), torch.zeros(0, 3)])
def test_inputs_without_an_example_are_refused(given: object) -> None:
    with pytest.raises(InvalidInputError, match="example_inputs"):
        ModelInputs.of(given)


def test_nested_outputs_are_listed() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    found = output_tensors({"a": a, "rest": (None, [b], 3)})
    assert found[0] is a
    assert found[1] is b
    assert len(found) == 2


def test_a_model_that_cannot_be_copied_is_named() -> None:
    model = nn.Linear(2, 2)
    model.cache = model(torch.ones(1, 2))
    with pytest.raises(TraceError, match="Linear"):
        plain_copy(model)


def test_one_line_keeps_the_first_line() -> None:
    assert one_line(RuntimeError("first\nsecond")) == "RuntimeError: first"
    assert one_line(KeyError()) == "KeyError"


@dataclass
class _Answer:
    logits: torch.Tensor
    length: int = 3


class _Loop:
    """An object that holds a tensor and itself."""

    def __init__(self, tensor: torch.Tensor) -> None:
        self.tensor, self.own = tensor, self


def test_tensors_of_objects_are_listed() -> None:
    a, b = torch.zeros(1), torch.ones(1)
    found = output_tensors([_Answer(a), _Loop(b), nn.Linear(1, 1), torch.float32])
    assert found[0] is a
    assert found[1] is b
    assert len(found) == 2


def test_tensors_inside_of_containers_are_cut_like_others() -> None:
    class Pair(NamedTuple):
        hidden: torch.Tensor
        cell: torch.Tensor

    pair = Pair(torch.zeros(5, 4), torch.ones(1, 5, 4))
    given = ModelInputs.of((pair, torch.zeros(5, 3), {"mask": [torch.zeros(5)]}))
    plain = given.plain()
    assert given.batch_size == 5
    assert [tuple(tensor.shape) for tensor in plain.tensors] == [(2, 4), (1, 5, 4), (2, 3), (2,)]
    assert isinstance(plain.args[0], Pair)


def test_runs_draw_the_same_numbers_and_leave_the_generator() -> None:
    state, layer = torch.get_rng_state(), nn.Dropout().train()
    inputs = ModelInputs.of(torch.ones(4, 16))
    state = torch.get_rng_state()
    (first,), (second,) = inputs.run_alike(layer), inputs.run_alike(layer)
    assert torch.equal(first, second)
    assert torch.equal(torch.get_rng_state(), state)


def test_dictionaries_with_defaults_keep_them() -> None:
    table = defaultdict(list, {"ids": torch.zeros(5, 3)})
    plain = ModelInputs.of((torch.ones(5, 2), table)).plain()
    assert plain.args[1]["ids"].shape == (2, 3)
    assert plain.args[1]["absent"] == []
