"""How grids are chosen: what calibration looks for, and how weights are rounded."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from autocompress.core.schema import check_name, check_record
from autocompress.errors import InvalidInputError, check_type, explain

OBSERVERS = ("minmax", "moving_average", "percentile", "mse", "entropy")
"""Ways to choose the range of an activation tensor."""

DEFAULT_OBSERVER = "mse"
"""How ranges are chosen unless something else is said."""

NEAREST, GPTQ = "nearest", "gptq"

ROUNDINGS = (NEAREST, GPTQ)
"""Ways to round weights that were not trained on their grids."""


DIVERGENCE, HESSIAN = "divergence", "hessian"

SENSITIVITIES = (DIVERGENCE, HESSIAN)
"""Ways to tell what fewer bits of a layer's weights cost."""

AUTO, ON, OFF = "auto", "on", "off"

REDUCING = (AUTO, ON, OFF)
"""Whether 8-bit weights keep to a range of 7 bits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class QuantisationConfig:
    """How the grids of compressed models are chosen.

    Attributes:
        observer: How calibration chooses the range of an activation tensor:
            "minmax", all values seen; "moving_average", smoothed extremes of
            the batches (Jacob et al. 2018); "percentile", all but one value
            in ten thousand; "mse", least squared error; "entropy", least
            divergence of the distribution (Migacz 2017).
        rounding: How weights below 8 bits are rounded where a model is not
            trained: "nearest", or "gptq", such that the errors within a layer
            cancel on calibration data (Frantar et al. 2023).
        sensitivity: How the search tells what fewer bits of a layer's weights
            cost: "divergence" of the predictions, layer by layer and choice
            by choice, or "hessian", the trace of the Hessian times the
            squared rounding error (Dong et al. 2020), which is quicker.
        join_bits: Bits of the operands of residual adds, concatenations,
            average pools and attention's products, 2 to 8; a layer that
            reads such a tensor at more bits decides.
        share_joins: Whether operands of a residual add or a concatenation
            share one grid, as runtimes need that do not rescale.
        reduce_range: Whether 8-bit weights and codebooks keep to integers in [-63, 63] where
            activations are quantised too: "on", "off", or "auto", where the runtime adds two
            products in 16 bits and would clip larger ones, as on x86 without VNNI.
    """

    observer: str = DEFAULT_OBSERVER
    rounding: str = GPTQ
    sensitivity: str = DIVERGENCE
    join_bits: int = 8
    share_joins: bool = False
    reduce_range: str = AUTO

    def __post_init__(self) -> None:
        if isinstance(self.reduce_range, bool):  # what YAML makes of on and off
            object.__setattr__(self, "reduce_range", "on" if self.reduce_range else "off")
        check_name("quantisation 'observer'", self.observer, OBSERVERS)
        check_name("quantisation 'rounding'", self.rounding, ROUNDINGS)
        check_name("quantisation 'sensitivity'", self.sensitivity, SENSITIVITIES)
        check_name("quantisation 'reduce_range'", self.reduce_range, REDUCING)
        check_type("quantisation 'join_bits'", self.join_bits, int)
        if not 2 <= self.join_bits <= 8:
            raise InvalidInputError(
                explain(
                    "quantisation 'join_bits'",
                    expected="2 to 8",
                    got=self.join_bits,
                    remedy="write 8",
                )
            )
        check_type("quantisation 'share_joins'", self.share_joins, bool)

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "QuantisationConfig":
        """Read a configuration from keys and values; unknown keys are refused."""
        keys = [item.name for item in fields(cls)]
        return cls(**check_record(values, what="'quantisation'", keys=keys))
