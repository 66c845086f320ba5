"""Batches of examples: their size, their place, and parts of them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from autocompress.errors import InvalidInputError, WrongTypeError, explain
from autocompress.evaluation.task import Batch, inputs_of
from autocompress.graph.operations import like


def size(batch: Batch) -> int:
    """Return the number of examples in a batch."""
    args, kwargs = inputs_of(batch)
    for value in (*args, *kwargs.values()):
        if isinstance(value, Tensor) and value.dim():
            return len(value)
    raise WrongTypeError(
        explain(
            "batch", expected="a tensor input", got=type(batch).__name__, remedy="check the loader"
        )
    )


def count(batches: Iterable[Batch]) -> int:
    """Return the number of examples in batches."""
    return sum(size(batch) for batch in batches)


def place(batch: Batch, device: str) -> Batch:
    """Move a batch to a device."""
    if isinstance(batch, Tensor):
        return batch.to(device, non_blocking=True)
    if isinstance(batch, Mapping):
        return {key: place(value, device) for key, value in batch.items()}
    if isinstance(batch, (tuple, list)):
        return like(batch, [place(value, device) for value in batch])
    return batch


def part(batch: Batch, chosen: Sequence[int]) -> Batch:
    """Return some examples of a batch.

    Tensors are indexed along their first axis, and lists that have one entry
    for each example are indexed, too; numbers, words and the like stay.

    Args:
        batch: The batch.
        chosen: Places in it; a range of step 1 copies nothing.

    Raises:
        InvalidInputError: If a tensor has another number of rows than there are examples.
    """
    return _part(batch, chosen, size(batch), outermost=True)


def first(batches: Iterable[Batch], limit: int) -> Iterator[Batch]:
    """Yield the first examples of batches, a number of them at most."""
    seen = 0
    for batch in batches:
        if seen >= limit:
            return
        room = limit - seen
        yield part(batch, range(room)) if size(batch) > room else batch
        seen += size(batch)


def last(batches: Sequence[Batch], limit: int) -> Iterator[Batch]:
    """Yield the last examples of batches, a number of them at most, the last batch first."""
    seen = 0
    for batch in reversed(batches):
        if seen >= limit:
            return
        examples, room = size(batch), limit - seen
        yield part(batch, range(examples - room, examples)) if examples > room else batch
        seen += examples


def spread(batches: tuple[Batch, ...], limit: int) -> tuple[Batch, ...]:
    """Return a number of examples at equal steps, so that sorted ones are all represented.

    Args:
        batches: What they are taken from.
        limit: How many; all if there are no more.

    Returns:
        Batches no larger than the largest, joined where their examples are alike.
    """
    total = count(batches)
    if total <= limit:
        return batches
    steps = [number * total // limit for number in range(limit)]
    parts: list[Batch] = []
    begin = 0
    for batch in batches:
        end = begin + size(batch)
        chosen = [step - begin for step in steps if begin <= step < end]
        parts += [part(batch, chosen)] if chosen else []
        begin = end
    return tuple(_joined(parts, max(map(size, batches))))


def _part(value: Any, chosen: Sequence[int], examples: int, *, outermost: bool = False) -> Any:
    if isinstance(value, Tensor):
        if not value.dim():
            return value
        if len(value) != examples:
            raise InvalidInputError(
                explain(
                    "batch",
                    expected=f"tensors with a row for each of its {examples} examples",
                    got=f"a tensor of shape {list(value.shape)}",
                    remedy="pad and stack what examples have, and leave what they share to the "
                    "model or the loss",
                )
            )
        if isinstance(chosen, range):
            return value[chosen.start : chosen.stop]
        return value[torch.as_tensor(chosen, dtype=torch.long)]
    if isinstance(value, Mapping):
        return {key: _part(item, chosen, examples) for key, item in value.items()}
    if isinstance(value, (tuple, list)):
        if not outermost and _is_listed(value, examples):
            return type(value)(value[place] for place in chosen)
        return like(value, [_part(item, chosen, examples) for item in value])
    return value


def _is_listed(value: Sequence[Any], examples: int) -> bool:
    """Tell whether a sequence has one entry for each example, in place of tensors of rows."""
    if type(value) not in (tuple, list) or len(value) != examples:
        return False
    rows = [len(tensor) if tensor.dim() else 0 for tensor in _tensors(value)]
    return not rows or any(count != examples for count in rows)


def _tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (Mapping, tuple, list)):
        for item in value.values() if isinstance(value, Mapping) else value:
            yield from _tensors(item)


def _joined(parts: Sequence[Batch], most: int) -> Iterator[Batch]:
    """Join neighbours of the same form to batches of some examples at most."""
    group: list[Batch] = []
    for given in parts:
        alike = not group or _form(group[0], size(group[0])) == _form(given, size(given))
        if group and (not alike or count(group) + size(given) > most):
            yield _join(group, [size(batch) for batch in group])
            group = []
        group.append(given)
    yield _join(group, [size(batch) for batch in group])


def _form(value: Any, examples: int, *, outermost: bool = True) -> Any:
    """Return what batches must have in common to be joined."""
    if isinstance(value, Tensor):
        return (value.shape[1:], value.dtype) if value.dim() else value.item()
    if isinstance(value, Mapping):
        return [(key, _form(item, examples, outermost=False)) for key, item in value.items()]
    if isinstance(value, (tuple, list)):
        if not outermost and _is_listed(value, examples):
            return type(value)
        return [_form(item, examples, outermost=False) for item in value]
    return value


def _join(values: Sequence[Any], examples: Sequence[int], *, outermost: bool = True) -> Any:
    whole = values[0]
    if len(values) == 1:
        return whole
    if isinstance(whole, Tensor):
        return torch.cat([*values]) if whole.dim() else whole
    if isinstance(whole, Mapping):
        return {
            key: _join([value[key] for value in values], examples, outermost=False) for key in whole
        }
    if isinstance(whole, (tuple, list)):
        if not outermost and _is_listed(whole, examples[0]):
            return type(whole)(chain.from_iterable(values))
        columns = zip(*values, strict=True)
        return like(whole, [_join(column, examples, outermost=False) for column in columns])
    return whole
