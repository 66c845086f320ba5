"""The fixed batches that a search evaluates on, read once and kept in memory."""

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.core.seeds import derive_seed
from autocompress.errors import AutocompressError, InvalidInputError, explain
from autocompress.evaluation.batches import count, first, part, place, size, spread
from autocompress.evaluation.task import Batch, Task, has_targets, inputs_of, targets_of
from autocompress.graph.inputs import one_line, plain_copy

PROXY_IMAGES = 2000
"""Images of `train` that recalibrate batch norms, and of `val` that score the proxy."""

CALIBRATION_IMAGES = 1024
"""Images of `train` that set activation grids."""

ROUNDING_IMAGES = 512
"""Images of `train` on which the errors of rounded weights cancel."""

DEFAULT_EPOCH = 50_000
"""Training images assumed of an epoch when the loader has no length."""

SENSITIVITY_IMAGES = 768
"""Images of `train` that candidates' deviations are taken on."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Splits:
    """Batches that stay the same for the whole study.

    Attributes:
        recalibration: Training batches for batch-norm statistics.
        calibration: The first of them, for activation grids.
        sensitivity: The first of those, for deviations from the original.
        proxy: Examples spread over `val`, for fidelity 0.
        val: All validation batches.
        test: All test batches.
        note: How `test` came about, for log and report; "" if it was given.
    """

    recalibration: tuple[Batch, ...]
    calibration: tuple[Batch, ...]
    sensitivity: tuple[Batch, ...]
    proxy: tuple[Batch, ...]
    val: tuple[Batch, ...]
    test: tuple[Batch, ...]
    note: str


def make_splits(task: Task, *, seed: int, device: str = "cpu") -> Splits:
    """Read the batches that the study evaluates on.

    Augmentation in `train` is drawn once, with the study's seed; the
    caller's random state is left alone.

    Args:
        task: The user's task.
        seed: The seed of the run.
        device: Where the batches are kept.

    Raises:
        InvalidInputError: If a loader is empty, or has NaN or infinities.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(derive_seed(seed, -1, "splits"))
        recalibration = tuple(take(task.train, PROXY_IMAGES, "train", device))
        val = tuple(take(task.val, None, "val", device))
        test = None if task.test is None else tuple(take(task.test, None, "test", device))
    note = ""
    if test is None:
        val, test = _halve(val, seed)
        note = (
            f"No test split was given: a seeded half of val ({count(test)} examples) became "
            f"test, and {count(val)} examples guide the search."
        )
    return Splits(
        recalibration=recalibration,
        calibration=tuple(first(recalibration, CALIBRATION_IMAGES)),
        sensitivity=tuple(first(recalibration, SENSITIVITY_IMAGES)),
        proxy=spread(val, PROXY_IMAGES),
        val=val,
        test=test,
        note=note,
    )


def take(loader: Iterable[Batch], limit: int | None, name: str, device: str) -> Iterator[Batch]:
    """Read batches until a number of examples is reached, checked and placed."""
    seen = 0
    for batch in _read(loader, name):
        placed = place(batch, device)
        check_finite(placed, name)
        if limit is not None and seen + size(placed) > limit:
            placed = part(placed, range(limit - seen))
        seen += size(placed)
        yield placed
        if limit is not None and seen >= limit:
            break
    if seen == 0:
        raise InvalidInputError(
            explain(
                f"task '{name}'",
                expected="at least one example",
                got="an empty loader",
                remedy="check the data set and its path",
            )
        )


def _read(loader: Iterable[Batch], name: str) -> Iterator[Batch]:
    """Yield the batches of a loader of the user's, which may fail in any way."""
    batches = iter(loader)
    while True:
        try:
            batch = next(batches)
        except StopIteration:
            return
        except AutocompressError:
            raise
        except Exception as error:
            raise InvalidInputError(
                explain(
                    f"task '{name}'",
                    expected="a loader that gives batches",
                    got=one_line(error),
                    remedy="iterate over it alone to see where it fails",
                )
            ) from error
        yield batch


def check_finite(batch: Batch, name: str) -> None:
    """Refuse a batch with NaN or infinities among its inputs."""
    args, kwargs = inputs_of(batch)
    for value in (*args, *kwargs.values()):
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        if not bool(torch.isfinite(value).all()):
            raise InvalidInputError(
                explain(
                    f"task '{name}'",
                    expected="finite inputs",
                    got="a batch with NaN or infinities",
                    remedy="clean the data before the search",
                )
            )


def example_inputs(
    task: Task, model: nn.Module, batches: tuple[Batch, ...], examples: int = 2
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the model is called with on the first examples."""
    return task.arguments(model, next(first(batches, examples)))


def first_inputs(
    task: Task, model: nn.Module, batch: Batch, device: str
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Return what the caller's model is called with, on a device; a copy of it is run."""
    return example_inputs(task, plain_copy(model).to(device), (place(batch, device),))


def odd_batches(batches: Iterable[Batch]) -> Iterator[Batch]:
    """Yield the first batch, and each one whose examples have other shapes or types."""
    seen = set()
    for batch in batches:
        args, kwargs = inputs_of(batch)
        values = (*args, *kwargs.values(), targets_of(batch) if has_targets(batch) else None)
        form = tuple((v.shape[1:], v.dtype) if isinstance(v, Tensor) else type(v) for v in values)
        if form not in seen:
            seen.add(form)
            yield batch


def check_batch(task: Task, model: nn.Module, name: str, batch: Batch) -> None:
    """Try one batch of a split: its outputs, its score and its loss.

    Batches of `train` without targets have outputs alone.
    """
    try:
        with torch.inference_mode():
            outputs = task.run(model, batch)
            if name != "train" or has_targets(batch):
                task.score(outputs, batch)
                task.loss(outputs, batch)
    except AutocompressError:
        raise
    except Exception as error:
        raise InvalidInputError(
            explain(
                f"task '{name}'",
                expected="batches that the model, the metric and the loss take",
                got=one_line(error),
                remedy="check the shapes and the order of what a batch holds",
            )
        ) from error
    if not bool(torch.isfinite(outputs).all()):
        raise InvalidInputError(
            explain(
                "model",
                expected="finite outputs",
                got=f"NaN or infinities on the first batch of {name}",
                remedy="check the weights and the inputs' normalisation",
            )
        )


def check_splits(task: Task, model: nn.Module, splits: Splits) -> None:
    """Refuse a task whose batches the model or the metric cannot take; see `check_batch`."""
    named = {"train": splits.recalibration, "val": splits.val, "test": splits.test}
    for name, batches in named.items():
        for batch in odd_batches(batches):
            check_batch(task, model, name, batch)


def check_shapes(splits: Splits) -> None:
    """Refuse examples of several shapes: a file takes one, whatever the model takes."""
    shapes: dict[int, torch.Size] = {}
    for name, batches in (("val", splits.val), ("test", splits.test)):
        for batch in batches:
            args, kwargs = inputs_of(batch)
            for number, value in enumerate((*args, *kwargs.values())):
                if not isinstance(value, Tensor):
                    continue
                expected = shapes.setdefault(number, value.shape[1:])
                if value.shape[1:] != expected:
                    raise InvalidInputError(
                        explain(
                            f"task '{name}'",
                            expected=f"examples of the shape {list(expected)}, which the first "
                            "batch of val has and files will take",
                            got=f"a batch of {list(value.shape[1:])}",
                            remedy="pad or crop all of val and test alike",
                        )
                    )


def epoch_images(task: Task) -> int:
    """Estimate the images of one epoch: length of the loader times its first batch."""
    try:
        batches = len(task.train)  # type: ignore[arg-type]
    except TypeError:
        return DEFAULT_EPOCH
    with torch.random.fork_rng(devices=[]):
        first = next(iter(task.train))
    return batches * size(first)


def _halve(batches: tuple[Batch, ...], seed: int) -> tuple[tuple[Batch, ...], tuple[Batch, ...]]:
    """Split each batch in two by a seeded permutation."""
    generator = torch.Generator().manual_seed(derive_seed(seed, -1, "test split"))
    guide, report = [], []
    for batch in batches:
        order = torch.randperm(size(batch), generator=generator).tolist()
        middle = (len(order) + 1) // 2
        guide.append(part(batch, order[:middle]))
        if len(order) > middle:
            report.append(part(batch, order[middle:]))
    if not report:
        raise InvalidInputError(
            explain(
                "task 'val'",
                expected="at least two examples in some batch, to take half as test",
                got=f"{count(batches)} examples",
                remedy="pass test=, or a larger val",
            )
        )
    return tuple(guide), tuple(report)


def data_digest(batches: Iterable[Batch]) -> str:
    """Digest batches, so that a study is not continued on other data."""
    digest = hashlib.sha256()
    for batch in batches:
        args, kwargs = inputs_of(batch)
        for value in (*args, *kwargs.values(), targets_of(batch)):
            if isinstance(value, Tensor):
                digest.update(value.detach().cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()[:16]
