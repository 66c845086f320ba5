from collections import namedtuple
from itertools import pairwise
from typing import Any

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from autocompress.errors import InvalidInputError, WrongTypeError
from autocompress.evaluation.batches import count, place, size
from autocompress.evaluation.splits import (
    CALIBRATION_IMAGES,
    PROXY_IMAGES,
    SENSITIVITY_IMAGES,
    Splits,
    check_shapes,
    data_digest,
    example_inputs,
    make_splits,
    odd_batches,
    take,
)
from autocompress.evaluation.task import Task


def _numbered(examples: int, batch: int, start: int = 0) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Batches whose examples can be told apart."""
    points = start + torch.arange(examples, dtype=torch.float32)[:, None]
    return list(zip(points.split(batch), torch.arange(examples).split(batch), strict=True))


def _points(batches: Any) -> list[float]:
    return torch.cat([batch[0] for batch in batches]).flatten().tolist()


def _splits(seed: int = 0, **loaders: Any) -> Splits:
    defaults = {"train": _numbered(40, 8), "val": _numbered(21, 5), "test": None}
    return make_splits(Task(**(defaults | loaders)), seed=seed)


def test_a_given_test_split_is_taken_whole() -> None:
    splits = _splits(test=_numbered(7, 3, start=100))
    assert _points(splits.val) == [float(i) for i in range(21)]
    assert _points(splits.test) == [100.0 + i for i in range(7)]
    assert splits.note == ""


def test_without_test_a_seeded_half_of_val_becomes_it() -> None:
    splits, again, other = _splits(), _splits(), _splits(seed=1)
    val, test = set(_points(splits.val)), set(_points(splits.test))
    assert val | test == {float(i) for i in range(21)}
    assert not val & test
    assert abs(len(val) - len(test)) <= 5  # at most one example per batch
    for points, labels in (*splits.val, *splits.test):
        assert points.flatten().tolist() == labels.tolist()
    assert _points(again.test) == _points(splits.test)
    assert _points(other.test) != _points(splits.test)
    assert f"({len(test)} examples) became test, and {len(val)} examples guide" in splits.note


def test_fixed_batches_are_the_first_of_their_split() -> None:
    splits = _splits(train=_numbered(3000, 900), val=_numbered(2500, 700), test=_numbered(2, 2))
    for name, images in (
        ("recalibration", PROXY_IMAGES),
        ("calibration", CALIBRATION_IMAGES),
        ("sensitivity", SENSITIVITY_IMAGES),
    ):
        batches = getattr(splits, name)
        assert _points(batches) == [float(i) for i in range(images)], name
        assert count(batches) == images
    assert count(splits.val) == 2500


def test_the_proxy_is_spread_over_val() -> None:
    """Loaders that do not shuffle are often sorted by class."""
    splits = _splits(val=_numbered(2 * PROXY_IMAGES + 500, 700), test=_numbered(2, 2))
    points = _points(splits.proxy)
    assert len(points) == count(splits.proxy) == PROXY_IMAGES
    steps = [after - before for before, after in pairwise(points)]
    assert set(steps) == {2.0, 3.0}
    assert points[-1] > 2 * PROXY_IMAGES + 490
    assert len(splits.proxy) == 4, "batches are as large as those of val"
    small = _splits(val=_numbered(30, 8), test=_numbered(2, 2))
    assert small.proxy == small.val


def test_shuffled_loaders_are_read_by_seed_and_leave_the_callers_randomness_alone() -> None:
    data = TensorDataset(torch.arange(64.0)[:, None], torch.zeros(64, dtype=torch.long))
    loader = DataLoader(data, batch_size=16, shuffle=True)
    state = torch.get_rng_state()
    orders = [_points(_splits(seed, train=loader).recalibration) for seed in (0, 0, 1)]
    assert torch.equal(torch.get_rng_state(), state)
    assert orders[0] == orders[1] != orders[2]
    assert sorted(orders[0]) == [float(i) for i in range(64)]


@pytest.mark.parametrize("split", ["train", "val", "test"])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_inputs_that_are_not_finite_are_refused(split: str, value: float) -> None:
    batches = _numbered(8, 4)
    batches[1][0][2] = value
    with pytest.raises(InvalidInputError, match=f"task '{split}': expected finite inputs"):
        _splits(**{split: batches})


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_an_empty_loader_is_refused(split: str) -> None:
    with pytest.raises(InvalidInputError, match=f"task '{split}'.*got an empty loader"):
        _splits(**{split: []})


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_a_loader_that_fails_is_refused_in_one_sentence(split: str) -> None:
    unequal = [(torch.zeros(width), 0) for width in (2, 3)]
    loader = DataLoader(unequal, batch_size=2)  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match=f"task '{split}': .* got RuntimeError: stack") as e:
        _splits(**{split: loader})
    assert "\n" not in str(e.value)


def test_a_val_too_small_to_halve_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="pass test=, or a larger val"):
        _splits(val=_numbered(3, 1))


def test_mappings_are_sliced_by_example_and_keep_what_is_no_tensor() -> None:
    batch = {"x": torch.arange(10.0)[:, None], "mode": "fast", "labels": torch.arange(10)}
    (taken,) = take([batch, batch], 4, "train", "cpu")
    assert taken["x"].flatten().tolist() == taken["labels"].tolist() == [0, 1, 2, 3]
    assert taken["mode"] == "fast"
    assert size(batch) == 10
    task = Task(train=[batch], val=[batch])
    args, kwargs = example_inputs(task, torch.nn.Identity(), (batch,))
    assert args == ()
    assert len(kwargs["x"]) == 2
    with pytest.raises(WrongTypeError, match="a tensor input"):
        size(("text", torch.zeros(1)))


def test_nested_batches_are_placed_as_they_are() -> None:
    images = torch.randn(2, 3, 4, 4)
    placed = place({"x": [images, "text"]}, "meta")
    assert placed["x"][0].device.type == "meta"
    assert placed["x"][0].is_contiguous()
    assert placed["x"][1] == "text"


def test_digests_tell_data_apart() -> None:
    first = _numbered(6, 3)
    assert data_digest(first) == data_digest(_numbered(6, 3))
    changed = _numbered(6, 3)
    changed[1][1][0] += 1
    assert data_digest(changed) != data_digest(first)
    other = _numbered(6, 3)
    other[0][0][0] += 1e-3
    assert data_digest(other) != data_digest(first)


def test_batches_of_another_form_are_odd() -> None:
    plain = _numbered(6, 2)
    wide = (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    whole = (torch.zeros(2, 1, dtype=torch.long), torch.zeros(2, dtype=torch.long))
    last = (torch.zeros(1, 1), torch.zeros(1, dtype=torch.long))
    assert list(odd_batches([*plain, wide, whole, last])) == [plain[0], wide, whole]


def test_examples_of_several_shapes_are_refused_where_files_run() -> None:
    plain = _numbered(6, 2)
    wide = (torch.zeros(2, 3), torch.zeros(2, dtype=torch.long))
    check_shapes(make_splits(Task(train=plain, val=plain, test=plain), seed=0))
    for name, splits in (("val", {"val": [*plain, wide]}), ("test", {"test": [wide]})):
        task = Task(**({"train": plain, "val": plain, "test": plain} | splits))
        with pytest.raises(
            InvalidInputError, match=rf"'{name}'.*shape \[1\].*got a batch of \[3\]"
        ):
            check_shapes(make_splits(task, seed=0))


def test_named_batches_keep_their_names() -> None:
    named = namedtuple("named", "image label")
    batches = [named(x, y) for x, y in _numbered(10, 4)]
    taken = list(take(batches, 5, "train", "cpu"))
    assert torch.equal(place(batches[0], "cpu").image, batches[0].image)
    assert [(len(batch.image), len(batch.label)) for batch in taken] == [(4, 4), (1, 1)]
