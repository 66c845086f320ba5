"""Training batches, epoch after epoch, that can be continued anywhere."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from autocompress.evaluation.splits import place
from autocompress.evaluation.task import Batch


class Feed:
    """Batches of a loader without end, and where in them a training is.

    Every epoch is drawn from a seed of its own, in a random state that only the loader sees:
    dropout does not change what comes next. The place can be kept and returned to: the epoch
    is then drawn again, and what was seen of it is skipped. The state from which the training
    draws, on the CPU and on a CUDA device, is kept with it. Loaders that draw from somewhere else
    than torch's random state give other batches after that.

    Args:
        loader: Re-iterable batches.
        device: Where batches are placed.
        epoch_seed: Returns the seed of an epoch, counted from 0.
    """

    def __init__(
        self, loader: Iterable[Batch], device: str, epoch_seed: Callable[[int], int]
    ) -> None:
        self.loader, self.device, self.epoch_seed = loader, device, epoch_seed
        self._epoch = self._index = 0
        self._continued: dict[str, Tensor] | None = None
        self._state = torch.get_rng_state()

    def position(self) -> dict[str, Tensor]:
        """Return the place as tensors."""
        place = {"epoch": torch.tensor(self._epoch), "index": torch.tensor(self._index)}
        place["now"] = torch.get_rng_state()
        if torch.device(self.device).type == "cuda":
            place["now on the device"] = torch.cuda.get_rng_state(self.device)
        return place

    def go_to(self, position: dict[str, Tensor]) -> None:
        """Begin at a place that `position` returned."""
        self._epoch = int(position["epoch"])
        self._continued = position

    def __iter__(self) -> Iterator[Batch]:
        """Yield placed batches; ends only if the loader is empty."""
        while True:
            generator = torch.Generator().manual_seed(self.epoch_seed(self._epoch))
            self._state, self._index = generator.get_state(), 0
            with self._drawing():
                batches = iter(self.loader)
            if self._continued is not None:
                self._skip(batches, self._continued)
                self._continued = None
            while True:
                with self._drawing():
                    try:
                        batch = next(batches)
                    except StopIteration:
                        break
                self._index += 1
                yield place(batch, self.device)
            if self._index == 0:
                return
            self._epoch += 1

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Draw from the loader's random state, and leave the training's as it was."""
        outside = torch.get_rng_state()
        torch.set_rng_state(self._state)
        try:
            yield
        finally:
            self._state = torch.get_rng_state()
            torch.set_rng_state(outside)

    def _skip(self, batches: Iterator[Batch], position: dict[str, Tensor]) -> None:
        """Pass what was seen of an epoch; a place kept on a CPU has no other device's state."""
        self._index = int(position["index"])
        with self._drawing():
            for _ in range(self._index):
                next(batches, None)
        torch.set_rng_state(position["now"])
        state = position.get("now on the device")
        if state is not None and torch.device(self.device).type == "cuda":
            torch.cuda.set_rng_state(state, self.device)
