"""Training batches, epoch after epoch, that can be continued anywhere."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import torch
from torch import Tensor

from autocompress.evaluation.answers import fingerprint
from autocompress.evaluation.batches import place
from autocompress.evaluation.task import Batch

CPU, DEVICE = "state", "state of the device"
"""Names of the random states of a place."""


class Feed:
    """Batches of a loader without end, and where in them a training is.

    Every epoch is drawn from a seed of its own, in a random state that only the loader sees:
    dropout does not change what comes next. The place can be kept and returned to: the epoch
    is then drawn again, and what was seen of it is skipped. The state from which the training
    draws, on the CPU and on a CUDA device, is kept with it. Loaders that draw from somewhere else
    than torch's random states (generators of their own, workers that persist) give other batches
    after that.

    Args:
        loader: Re-iterable batches.
        device: Where batches are placed.
        epoch_seed: Returns the seed of an epoch, counted from 0.
        marked: Whether batches get fingerprints.

    Attributes:
        mark: The fingerprint of the latest batch, taken before it was placed; None for none.
    """

    def __init__(
        self,
        loader: Iterable[Batch],
        device: str,
        epoch_seed: Callable[[int], int],
        *,
        marked: bool = False,
    ) -> None:
        self.loader, self.device, self.epoch_seed = loader, device, epoch_seed
        self.marked = marked
        self.mark: bytes | None = None
        self._epoch = self._index = 0
        self._continued: dict[str, Tensor] | None = None
        self._states: dict[str, Tensor] = {}

    def position(self) -> dict[str, Tensor]:
        """Return the place as tensors."""
        place = {"epoch": torch.tensor(self._epoch), "index": torch.tensor(self._index)}
        return place | self._random_states()

    def go_to(self, position: dict[str, Tensor]) -> None:
        """Begin at a place that `position` returned."""
        self._epoch = int(position["epoch"])
        self._continued = position

    def __iter__(self) -> Iterator[Batch]:
        """Yield placed batches; ends only if the loader is empty."""
        while True:
            self._states, self._index = self._seeded_states(), 0
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
                self.mark = fingerprint(batch) if self.marked else None
                yield place(batch, self.device)
            if self._index == 0:
                return
            self._epoch += 1

    @contextmanager
    def _drawing(self) -> Iterator[None]:
        """Draw from the loader's random states, and leave the training's as they were."""
        outside = self._random_states()
        self._set_random_states(self._states)
        try:
            yield
        finally:
            self._states = self._random_states()
            self._set_random_states(outside)

    def _skip(self, batches: Iterator[Batch], position: dict[str, Tensor]) -> None:
        """Pass what was seen of an epoch; a place kept on a CPU has no other device's state."""
        self._index = int(position["index"])
        with self._drawing():
            for _ in range(self._index):
                next(batches, None)
        self._set_random_states(position)

    def _seeded_states(self) -> dict[str, Tensor]:
        """Return the random states at the beginning of an epoch."""
        seed = self.epoch_seed(self._epoch)
        states = {CPU: torch.Generator().manual_seed(seed).get_state()}
        if self._on_cuda:
            states[DEVICE] = torch.Generator(self.device).manual_seed(seed).get_state()
        return states

    def _random_states(self) -> dict[str, Tensor]:
        states = {CPU: torch.get_rng_state()}
        if self._on_cuda:
            states[DEVICE] = torch.cuda.get_rng_state(self.device)
        return states

    def _set_random_states(self, states: dict[str, Tensor]) -> None:
        torch.set_rng_state(states[CPU])
        if self._on_cuda and DEVICE in states:
            torch.cuda.set_rng_state(states[DEVICE], self.device)

    @property
    def _on_cuda(self) -> bool:
        return torch.device(self.device).type == "cuda"
