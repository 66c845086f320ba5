import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.target import TARGET_NAMES, Target
from autocompress.errors import InvalidInputError, WrongTypeError

weight_bits = st.one_of(st.integers(1, 8), st.just(32))
activation_bits = st.one_of(st.integers(2, 8), st.just(32))
precisions = st.lists(st.tuples(weight_bits, activation_bits), min_size=1, max_size=4)


@pytest.mark.parametrize("name", TARGET_NAMES)
def test_every_built_in_target_executes_floats(name: str) -> None:
    assert Target.named(name).executed(32, 32) == (32, 32)


@given(supported=precisions, weights=weight_bits, activations=activation_bits)
def test_the_executed_precision_holds_the_layer_and_exists(
    supported: list[tuple[int, int]], weights: int, activations: int
) -> None:
    target = Target(name="any", precisions=tuple(supported))
    executed = target.executed(weights, activations)
    assert executed[0] >= weights
    assert executed[1] >= activations
    assert executed in [*supported, (32, 32)]
    narrower = [pair for pair in supported if pair[0] >= weights and pair[1] >= activations]
    assert all(executed[0] * executed[1] <= w * a for w, a in narrower)


def test_narrow_weights_ride_in_int8_only_beside_int8_activations() -> None:
    target = Target.named("onnxruntime-cpu")
    assert target.executed(2, 4) == (8, 8)
    assert target.executed(8, 32) == (32, 32)
    assert target.executed(32, 8) == (32, 32)
    assert target.executed(8, 8, group_size=16) == (32, 32)
    assert target.activation_bits == (8, 32)


def test_a_target_survives_json() -> None:
    target = Target.named("onnxruntime-cpu", threads=3, batch_size=7)
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


def test_an_unknown_target_gets_the_closest_name() -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'onnxruntime-cpu'"):
        Target.named("onnxruntime_cpu")


@pytest.mark.parametrize("key", ["threads", "batch_size"])
@pytest.mark.parametrize(
    ("value", "error"), [(0, InvalidInputError), (1.0, WrongTypeError), (True, WrongTypeError)]
)
def test_bad_numbers_are_refused(key: str, value: Any, error: type[Exception]) -> None:
    with pytest.raises(error, match=f"target '{key}'"):
        Target(name="any", **{key: value})


def test_json_without_a_name_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="'name'"):
        Target.from_json({"threads": 1})
