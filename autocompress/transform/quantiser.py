"""The grid of one activation tensor."""

import torch
from torch import Tensor, nn

from autocompress.transform.grids import activation_grid, activation_values
from autocompress.transform.observers import RangeObserver


class TensorQuantiser(nn.Module):
    """The grid of one activation tensor, calibrated from the values it sees.

    Args:
        bits: 2 to 8.

    Attributes:
        low: Lower end of the range; None before calibration.
        high: Upper end of the range.
        scale: Step of the grid.
        zero_point: Code of zero.
        observer: What calibration saw.
    """

    def __init__(self, bits: int) -> None:
        super().__init__()
        self.bits = bits
        self.reset()

    def reset(self) -> None:
        """Forget the range and what was seen."""
        self.observer = RangeObserver()
        self.low: float | None = None
        self.high = 0.0
        self.scale = 1.0
        self.zero_point = 0

    def fit(self, observer: str) -> None:
        """Choose the range from what was seen; nothing seen leaves it as it is.

        Args:
            observer: One of `OBSERVERS`.
        """
        if self.observer.low is not None:
            self.low, self.high = self.observer.range(observer, self.bits)
            self.scale, self.zero_point = activation_grid(self.low, self.high, self.bits)

    def forward(self, tensor: Tensor) -> Tensor:
        """Round a tensor to the grid."""
        return activation_values(tensor, self.scale, self.zero_point, self.bits)

    def get_extra_state(self) -> Tensor:
        """Return range and grid, for `state_dict`."""
        low = float("nan") if self.low is None else self.low
        return torch.tensor(
            [low, self.high, self.scale, float(self.zero_point)], dtype=torch.float64
        )

    def set_extra_state(self, state: Tensor) -> None:
        """Restore range and grid."""
        low, self.high, self.scale, zero_point = state.tolist()
        self.low = None if low != low else low
        self.zero_point = int(zero_point)
