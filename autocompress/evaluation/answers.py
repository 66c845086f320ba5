"""What teachers said of training batches, kept for when the batches come again."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
import torch
from torch import Tensor, nn

from autocompress.core.seeds import derive_seed
from autocompress.evaluation.task import Batch

MOST_VIEWS = 10
"""Epochs that are drawn where the recipe names no number of them."""

KEPT_BYTES = 2**29
"""Memory that kept answers take at most, on the device that the batches are on."""


class Answers:
    """The outputs of teachers that do not change, by batch.

    Trainings draw from the same epochs, `views` of them, and begin at different ones. What a
    batch holds decides whether it was seen: loaders that draw from somewhere else than torch's
    random state never repeat one, and teachers then run every time.

    Args:
        seed: The seed of the run.
        views: How many epochs are drawn before they come again; 0 for no end, None for
            `MOST_VIEWS`, or as many as fit.
        epoch_bytes: Memory that one teacher's answers to an epoch take. Where all views do not
            fit, there are none: no epoch comes again.

    Attributes:
        views: How many there are.
        found: How many answers were not computed again.
    """

    def __init__(self, seed: int, views: int | None, epoch_bytes: int = 0) -> None:
        self.seed, self.found = seed, 0
        if views is None:
            views = min(MOST_VIEWS, KEPT_BYTES // max(1, epoch_bytes))
        self.views = views if views * epoch_bytes <= KEPT_BYTES else 0
        self._kept: WeakKeyDictionary[nn.Module, dict[bytes, Tensor]] = WeakKeyDictionary()
        self._bytes: WeakKeyDictionary[nn.Module, int] = WeakKeyDictionary()

    @property
    def kept_bytes(self) -> int:
        """Memory of what is kept, what teachers said that are gone not counted."""
        return sum(self._bytes.values())

    def epoch_seed(self, seed: int, epoch: int) -> int:
        """Return what an epoch of a training is drawn from.

        Args:
            seed: Of the training.
            epoch: Counted from 0 in the training.
        """
        if self.views == 0:
            return own_epoch_seed(seed, epoch)
        return own_epoch_seed(self.seed, (seed + epoch) % self.views)

    def of(self, teacher: nn.Module, batch: bytes | None, ask: Callable[[], Tensor]) -> Tensor:
        """Return a teacher's outputs.

        Args:
            teacher: Who is asked; its answers are forgotten with it.
            batch: The `fingerprint` of the batch; None always asks.
            ask: Computes them.
        """
        if batch is None or self.views == 0:
            return ask()
        kept = self._kept.setdefault(teacher, {})
        if batch in kept:
            self.found += 1
            return kept[batch]
        answer = ask()
        needed = answer.numel() * answer.element_size()
        if self.kept_bytes + needed <= KEPT_BYTES:
            kept[batch] = answer.detach().clone(memory_format=torch.contiguous_format)
            self._bytes[teacher] = self._bytes.get(teacher, 0) + needed
        return answer


def own_epoch_seed(seed: int, epoch: int) -> int:
    """Return what an epoch is drawn from where none comes again."""
    return derive_seed(seed, epoch, "epoch")


def fingerprint(batch: Batch) -> bytes | None:
    """Return a digest of all that a batch holds; None if it holds what cannot be read.

    Tensors and arrays count with their shapes and types, in mappings and sequences with their
    places; numbers and texts count, too.
    """
    digest = hashlib.blake2b(digest_size=16)
    for part in _parts(batch, ""):
        if part is None:
            return None
        digest.update(part)
    return digest.digest()


def _parts(value: Any, name: str) -> Iterator[Any]:
    """Yield the bytes of a value, after its name; None for what cannot be read."""
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _parts(item, f"{name}/{key!r}")
    elif isinstance(value, (tuple, list)):
        for place, item in enumerate(value):
            yield from _parts(item, f"{name}/{place}")
    elif isinstance(value, Tensor) and value.layout == torch.strided and not value.is_nested:
        yield f"{name}={tuple(value.shape)} {value.dtype} ".encode()
        flat = value.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        yield flat.view(torch.uint8).numpy()
    elif isinstance(value, np.ndarray) and not value.dtype.hasobject:
        yield f"{name}={value.shape} {value.dtype} ".encode()
        yield np.ascontiguousarray(value).reshape(-1).view(np.uint8)
    elif value is None or isinstance(value, (bool, int, float, str, bytes)):
        yield f"{name}={value!r} ".encode()
    else:
        yield None
