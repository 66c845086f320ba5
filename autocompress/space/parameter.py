"""One number that a sampler chooses: its range, and its scale."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from autocompress.core.schema import unknown_name
from autocompress.errors import InvalidInputError, explain

_DECIMALS = 6
"""Distillation values are settled to this, so that encodings invert exactly."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Parameter:
    """One number that a sampler chooses.

    Attributes:
        name: For example "prune:layer1.0.conv1".
        kind: Whether values are integers.
        low: Smallest value.
        high: Largest value, included.
        log: Whether equal factors are equal steps.
    """

    name: str
    kind: Literal["int", "float"]
    low: float
    high: float
    log: bool = False

    def to_unit(self, value: float) -> float:
        """Scale a value to [0, 1]."""
        low, high, value = (math.log(v) if self.log else v for v in (self.low, self.high, value))
        return (value - low) / (high - low) if high > low else 0.0

    def from_unit(self, unit: float) -> float:
        """Return the nearest value to a number of [0, 1]; others are clipped."""
        unit = min(max(unit, 0.0), 1.0)
        if self.log:
            value = self.low * math.exp(unit * math.log(self.high / self.low))
        else:
            value = self.low + unit * (self.high - self.low)
        if self.kind == "int":
            return math.floor(value + 0.5)
        return min(max(value, self.low), self.high)

    def settle(self, value: float) -> float:
        """Clip a value into the range and round it, if it is a float."""
        rounded = round(value) if self.kind == "int" else round(value, _DECIMALS)
        return min(max(rounded, self.low), self.high)


def check_params(parameters: Sequence[Parameter], params: Mapping[str, float]) -> None:
    """Refuse values that are not one for each parameter, in its range.

    Raises:
        InvalidInputError: With the first name or value that does not fit.
    """
    known = {parameter.name: parameter for parameter in parameters}
    for name in params:
        if name not in known:
            raise InvalidInputError(unknown_name("parameter", str(name), known))
    for name, parameter in known.items():
        value = params.get(name, math.nan)
        integral = parameter.kind == "float" or value == value // 1
        if not (parameter.low <= value <= parameter.high and integral):
            kind = "an integer" if parameter.kind == "int" else "a number"
            raise InvalidInputError(
                explain(
                    f"parameter '{name}'",
                    expected=f"{kind} in [{parameter.low:g}, {parameter.high:g}]",
                    got=params.get(name, "none"),
                    remedy="give every parameter of the space a value in its range",
                )
            )
