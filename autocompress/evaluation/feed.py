"""Training batches, epoch after epoch, that can be continued anywhere."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from autocompress.evaluation.splits import place
from autocompress.evaluation.task import Batch


class Feed:
    """Batches of a loader without end, and where in them a training is.

    The place can be kept and returned to: the epoch is then drawn again from
    torch's random state at its beginning, and what was seen of it is skipped.
    Loaders that draw from somewhere else give other batches after that.

    Args:
        loader: Re-iterable batches.
        device: Where batches are placed.
    """

    def __init__(self, loader: Iterable[Batch], device: str) -> None:
        self.loader, self.device = loader, device
        self._begin = torch.get_rng_state()
        self._index = 0
        self._continued: dict[str, Tensor] | None = None

    def position(self) -> dict[str, Tensor]:
        """Return the place as tensors."""
        return {
            "begin": self._begin,
            "now": torch.get_rng_state(),
            "index": torch.tensor(self._index),
        }

    def go_to(self, position: dict[str, Tensor]) -> None:
        """Begin at a place that `position` returned."""
        self._continued = position

    def __iter__(self) -> Iterator[Batch]:
        """Yield placed batches; ends only if the loader is empty."""
        while True:
            skipped = 0
            if self._continued is not None:
                torch.set_rng_state(self._continued["begin"])
                skipped = int(self._continued["index"])
            self._begin, self._index = torch.get_rng_state(), 0
            batches = iter(self.loader)
            for _ in range(skipped):
                next(batches, None)
            if self._continued is not None:
                torch.set_rng_state(self._continued["now"])
                self._continued = None
            self._index = skipped
            for batch in batches:
                self._index += 1
                yield place(batch, self.device)
            if self._index == 0:
                return
