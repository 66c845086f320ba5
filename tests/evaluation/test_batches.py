from collections import namedtuple
from typing import Any

import pytest
import torch

from autocompress.errors import InvalidInputError
from autocompress.evaluation.batches import count, first, last, part, size, spread

Pair = namedtuple("Pair", ["x", "y"])


def _batch(start: int, examples: int) -> dict[str, Any]:
    """A batch whose entries all tell the example, in every form that a loader gives."""
    numbers = list(range(start, start + examples))
    rows = torch.tensor(numbers, dtype=torch.float32)[:, None]
    return {
        "x": rows,
        "names": [f"n{number}" for number in numbers],
        "boxes": [{"box": torch.full((number % 3 + 1, 4), float(number))} for number in numbers],
        "both": Pair(rows, (rows, rows.long())),
        "mode": "fast",
        "scale": torch.tensor(2.0),
        "labels": torch.tensor(numbers),
    }


def _told(batch: dict[str, Any]) -> list[int]:
    """Which examples a batch has, of which all entries agree."""
    labels: list[int] = batch["labels"].tolist()
    assert batch["x"].flatten().tolist() == labels
    assert [int(name[1:]) for name in batch["names"]] == labels
    assert [int(boxes["box"][0, 0]) for boxes in batch["boxes"]] == labels
    assert batch["both"].x.flatten().tolist() == batch["both"].y[1].flatten().tolist() == labels
    assert (batch["mode"], float(batch["scale"])) == ("fast", 2.0)
    return labels


@pytest.mark.parametrize("chosen", [range(3), [4, 0, 2]])
def test_a_part_has_the_same_examples_in_all_forms(chosen: Any) -> None:
    assert _told(part(_batch(10, 5), chosen)) == [10 + place for place in chosen]


def test_two_examples_of_two_tensors_are_no_list_of_examples() -> None:
    x, y = torch.arange(2.0)[:, None], torch.arange(2)
    taken = part((x, [y, 10 * y]), [1])
    assert float(taken[0]) == 1.0
    assert [t.tolist() for t in taken[1]] == [[1], [10]]


def test_a_tensor_that_belongs_to_no_example_in_particular_is_refused() -> None:
    flat = torch.arange(11)  # the labels of 4 sequences, one after the other
    with pytest.raises(InvalidInputError, match=r"row for each of its 4 examples, got .*\[11\]"):
        part((torch.zeros(4, 2), flat), range(2))


def test_the_first_examples_cross_batches() -> None:
    batches = [_batch(0, 3), _batch(3, 3), _batch(6, 3)]
    assert [_told(batch) for batch in first(batches, 5)] == [[0, 1, 2], [3, 4]]


def test_the_last_examples_come_from_behind() -> None:
    batches = [torch.arange(4), torch.arange(4, 8), torch.arange(8, 10)]
    found = [batch.tolist() for batch in last(batches, 5)]
    assert found == [[8, 9], [5, 6, 7]]
    assert [batch.tolist() for batch in last(batches[:1], 9)] == [[0, 1, 2, 3]]


def test_spread_examples_are_joined_in_batches_of_the_old_size() -> None:
    batches = tuple(_batch(start, 4) for start in range(0, 20, 4))
    found = spread(batches, 10)
    assert [_told(batch) for batch in found] == [[0, 2, 4, 6], [8, 10, 12, 14], [16, 18]]
    assert spread(batches, 20) == batches
    assert (count(found), size(found[0])) == (10, 4)


def test_examples_of_other_shapes_are_not_joined() -> None:
    batches = tuple((torch.zeros(4, width), torch.arange(4)) for width in (2, 2, 3, 3))
    assert [batch[0].shape for batch in spread(batches, 8)] == [(4, 2), (4, 3)]
    named = tuple((torch.zeros(4, 2), name) for name in ("a", "b"))
    assert [batch[1] for batch in spread(named, 4)] == ["a", "b"]
