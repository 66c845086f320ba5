"""How weights are updated while a model is trained: optimiser, rates, averages, when to stop."""

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from autocompress.core.schema import check_name, check_number, check_record
from autocompress.errors import InvalidInputError, check_type, explain

RATES = {"sgd": 0.02, "adamw": 0.001}
"""Names of the optimisers, and the peaks of their learning rates unless something else is said."""

CURVES = ("one-cycle", "cosine")
"""How the learning rate runs: it rises first, or falls from the start."""

COMPILING = ("auto", "on", "off")
"""Whether models run in compiled code while they are trained."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Recipe:
    """How weights are updated.

    Attributes:
        optimiser: "sgd", with Nesterov momentum, or "adamw".
        learning_rate: Peak of the learning rate, > 0; None takes the one in `RATES`.
        momentum: Of SGD, [0, 1).
        weight_decay: On weights of layers, >= 0; norms, biases and steps have none.
        curve: "one-cycle" rises for `warm_up` of the steps and falls along a
            cosine (Smith 2018); "cosine" only falls.
        warm_up: Share of the steps in which the rate rises, [0, 1).
        clip_norm: Largest gradient norm, > 0.
        accumulate: Batches whose mean gradient makes one step, >= 1.
        ema: Decay per step of the moving average of the weights, [0, 1), that
            takes their place in the end; 0 keeps the last ones.
        low_precision: Whether bfloat16 is used where the device is fast at it.
        compile: Whether student and teacher run in compiled code (`torch.compile`) where grids
            below 8 bits are off and no features are compared: "on", "off", or "auto", where the
            training is long enough to wait for the compiler, and the device fast in bfloat16.
        patience: Training ends after so many looks at `val`, a twentieth of it
            apart, without a new best, whose weights are kept; 0 looks never.
        views: Epochs that are drawn where teachers' outputs teach; they then
            come again as they were, and what the teachers said of them is not computed anew. 0
            draws without end; None takes ten, or so few that the teachers take at most
            a quarter of the finalists' time where minutes are budgeted.
        checkpoint_seconds: Time between two checkpoints from which an
            interrupted training goes on, > 0.
    """

    optimiser: str = "sgd"
    learning_rate: float | None = None
    momentum: float = 0.9
    weight_decay: float = 5e-4
    curve: str = "one-cycle"
    warm_up: float = 0.15
    clip_norm: float = 5.0
    accumulate: int = 1
    ema: float = 0.0
    low_precision: bool = True
    compile: str = "auto"
    patience: int = 0
    views: int | None = None
    checkpoint_seconds: float = 60.0

    def __post_init__(self) -> None:
        if isinstance(self.compile, bool):  # what YAML makes of on and off
            object.__setattr__(self, "compile", "on" if self.compile else "off")
        check_name("recipe 'optimiser'", self.optimiser, RATES)
        check_name("recipe 'compile'", self.compile, COMPILING)
        check_name("recipe 'curve'", self.curve, CURVES)
        if self.learning_rate is not None:
            check_number("recipe 'learning_rate'", self.learning_rate, low=1e-12)
        for name in ("momentum", "warm_up", "ema"):
            value = getattr(self, name)
            check_number(f"recipe '{name}'", value, low=0.0, high=1.0, open_high=True)
        check_number("recipe 'weight_decay'", self.weight_decay, low=0.0)
        check_number("recipe 'clip_norm'", self.clip_norm, low=1e-12)
        check_number("recipe 'checkpoint_seconds'", self.checkpoint_seconds, low=1e-3)
        check_type("recipe 'low_precision'", self.low_precision, bool)
        for name, least in (("accumulate", 1), ("patience", 0), ("views", 0)):
            if name == "views" and self.views is None:
                continue
            count = check_type(f"recipe '{name}'", getattr(self, name), int)
            if count < least:
                raise InvalidInputError(
                    explain(
                        f"recipe '{name}'",
                        expected=f"an integer >= {least}",
                        got=count,
                        remedy="leave it out",
                    )
                )

    @property
    def peak(self) -> float:
        """The highest learning rate.

        Example:
            >>> Recipe(optimiser="adamw").peak
            0.001
        """
        return RATES[self.optimiser] if self.learning_rate is None else self.learning_rate

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "Recipe":
        """Read a recipe from keys and values; unknown keys are refused."""
        keys = [item.name for item in fields(cls)]
        return cls(**check_record(values, what="'recipe'", keys=keys))
