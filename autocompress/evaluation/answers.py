"""What teachers said of training batches, kept for when the batches come again."""

import hashlib
from collections.abc import Callable, Iterator, Mapping
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from autocompress.core.seeds import derive_seed
from autocompress.evaluation.task import Batch

KEPT_BYTES = 2**28
"""Memory that kept answers take at most."""


class Answers:
    """The outputs of teachers that do not change, by batch.

    All trainings of a study draw from the same epochs, `views` of them, and begin at different
    ones. What a batch is decides whether it was seen: loaders that draw from somewhere else than
    torch's random state never repeat one, and teachers then run every time.

    Args:
        seed: The seed of the run.
        views: How many epochs are drawn before they come again; 0 for no end.

    Attributes:
        found: How many answers were not computed again.
    """

    def __init__(self, seed: int, views: int) -> None:
        self.seed, self.views, self.found = seed, views, 0
        self._free = KEPT_BYTES
        self._kept: WeakKeyDictionary[nn.Module, dict[bytes, Tensor]] = WeakKeyDictionary()

    def epoch_seed(self, seed: int, epoch: int) -> int:
        """Return what an epoch of a training is drawn from.

        Args:
            seed: Of the training.
            epoch: Counted from 0 in the training.
        """
        if self.views == 0:
            return own_epoch_seed(seed, epoch)
        return own_epoch_seed(self.seed, (seed + epoch) % self.views)

    def of(self, teacher: nn.Module, batch: bytes, ask: Callable[[], Tensor]) -> Tensor:
        """Return a teacher's outputs.

        Args:
            teacher: Who is asked; its answers are forgotten with it.
            batch: The `fingerprint` of the batch.
            ask: Computes them.
        """
        kept = self._kept.setdefault(teacher, {})
        if batch in kept:
            self.found += 1
            return kept[batch]
        answer = ask()
        needed = answer.numel() * answer.element_size()
        if self.views > 0 and needed <= self._free:
            self._free -= needed
            kept[batch] = answer
        return answer


def own_epoch_seed(seed: int, epoch: int) -> int:
    """Return what an epoch is drawn from where none comes again."""
    return derive_seed(seed, epoch, "epoch")


def fingerprint(batch: Batch) -> bytes:
    """Return a digest of all tensors of a batch, with their places, shapes and types."""
    digest = hashlib.blake2b(digest_size=16)
    for name, tensor in _tensors(batch, ""):
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype} ".encode())
        flat = tensor.detach().cpu().contiguous().reshape(-1)
        digest.update(flat.view(torch.uint8).numpy().tobytes())
    return digest.digest()


def _tensors(batch: Batch, name: str) -> Iterator[tuple[str, Tensor]]:
    if isinstance(batch, Tensor):
        yield name, batch
    elif isinstance(batch, Mapping):
        for key, value in batch.items():
            yield from _tensors(value, f"{name}/{key}")
    elif isinstance(batch, (tuple, list)):
        for place, value in enumerate(batch):
            yield from _tensors(value, f"{name}/{place}")
