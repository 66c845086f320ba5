"""Training batches, epoch after epoch, that can be continued anywhere."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

from autocompress.evaluation.splits import place
from autocompress.evaluation.task import Batch


class Feed:
    """Batches of a loader without end, and where in them a training is.

    The place can be kept and returned to: the epoch is then drawn again from
    torch's random state at its beginning, and what was seen of it is skipped. The
    state of a CUDA device, which draws dropout, is kept with that of the CPU.
    Loaders that draw from somewhere else give other batches after that.

    Args:
        loader: Re-iterable batches.
        device: Where batches are placed.
    """

    def __init__(self, loader: Iterable[Batch], device: str) -> None:
        self.loader, self.device = loader, device
        self._begin = self._random_state("begin")
        self._index = 0
        self._continued: dict[str, Tensor] | None = None

    def position(self) -> dict[str, Tensor]:
        """Return the place as tensors."""
        return self._begin | self._random_state("now") | {"index": torch.tensor(self._index)}

    def go_to(self, position: dict[str, Tensor]) -> None:
        """Begin at a place that `position` returned."""
        self._continued = position

    def __iter__(self) -> Iterator[Batch]:
        """Yield placed batches; ends only if the loader is empty."""
        while True:
            skipped = 0
            if self._continued is not None:
                self._set_random_state("begin", self._continued)
                skipped = int(self._continued["index"])
            self._begin, self._index = self._random_state("begin"), 0
            batches = iter(self.loader)
            for _ in range(skipped):
                next(batches, None)
            if self._continued is not None:
                self._set_random_state("now", self._continued)
                self._continued = None
            self._index = skipped
            for batch in batches:
                self._index += 1
                yield place(batch, self.device)
            if self._index == 0:
                return

    def _random_state(self, moment: str) -> dict[str, Tensor]:
        """Return torch's random states, with a name for the moment."""
        states = {moment: torch.get_rng_state()}
        if torch.device(self.device).type == "cuda":
            states[f"{moment} on the device"] = torch.cuda.get_rng_state(self.device)
        return states

    def _set_random_state(self, moment: str, position: dict[str, Tensor]) -> None:
        """Return to the random states of a moment; a place that a CPU has kept has that alone."""
        torch.set_rng_state(position[moment])
        state = position.get(f"{moment} on the device")
        if state is not None and torch.device(self.device).type == "cuda":
            torch.cuda.set_rng_state(state, self.device)
