"""How a candidate is cut and quantised while it is trained: at once, or in stages."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from autocompress.core.schema import check_record, unknown_name
from autocompress.errors import InvalidInputError, check_type, explain

SCHEDULES = ("one-shot", "iterative", "gradual")
"""Names of the schedules."""

RAMP = 0.5
"""Share of the images in which a gradual schedule cuts; the rest trains what is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How finalists are cut while they are trained.

    "one-shot" cuts everything before training. "iterative" cuts equal parts
    in stages, each trained for as long (Han et al. 2015). "gradual" cuts
    along the cubic curve of Zhu and Gupta (2017), most of it early, in the
    first half of the training. Stages differ in channels, blocks and
    unstructured sparsity; bits are the candidate's own throughout.

    Attributes:
        schedule: One of `SCHEDULES`.
        stages: How often "iterative" and "gradual" cut, 2 to 100.
        rewind: Whether every stage runs through the learning rates from their
            peak again (learning-rate rewinding, Renda et al. 2020); otherwise
            the rate falls once over all stages.
        norm_l1: Weight of the L1 norm of batch-norm scales (Network Slimming,
            Liu et al. 2017) of channels that later stages cut, >= 0.
        group_lasso: Weight of the group lasso on filters and channels (Wen et
            al. 2016) that later stages cut, >= 0.
        learned_steps: Whether the steps of grids below 8 bits are trained with
            the weights (LSQ, Esser et al. 2020).
    """

    schedule: str = "one-shot"
    stages: int = 4
    rewind: bool = False
    norm_l1: float = 0.0
    group_lasso: float = 0.0
    learned_steps: bool = True

    def __post_init__(self) -> None:
        if self.schedule not in SCHEDULES:
            raise InvalidInputError(
                unknown_name("training 'schedule'", str(self.schedule), SCHEDULES)
            )
        check_type("training 'stages'", self.stages, int)
        if not 2 <= self.stages <= 100:
            raise InvalidInputError(
                explain("training 'stages'", expected="2 to 100", got=self.stages, remedy="write 4")
            )
        check_type("training 'rewind'", self.rewind, bool)
        check_type("training 'learned_steps'", self.learned_steps, bool)
        for name in ("norm_l1", "group_lasso"):
            value = getattr(self, name)
            if isinstance(value, int):
                check_type(f"training '{name}'", value, int)
            else:
                check_type(f"training '{name}'", value, float)
            if not (math.isfinite(value) and value >= 0.0):
                raise InvalidInputError(
                    explain(
                        f"training '{name}'",
                        expected="a number >= 0",
                        got=value,
                        remedy="write 0.0001, or 0 for none",
                    )
                )
            if value > 0.0 and self.schedule == "one-shot":
                raise InvalidInputError(
                    explain(
                        f"training '{name}'",
                        expected="0 where everything is cut before training",
                        got=value,
                        remedy="choose the schedule 'iterative' or 'gradual'",
                    )
                )

    @classmethod
    def from_mapping(cls, values: Mapping[str, Any]) -> "TrainingConfig":
        """Read a configuration from keys and values; unknown keys are refused."""
        keys = [item.name for item in fields(cls)]
        return cls(**check_record(values, what="'training'", keys=keys))

    def cut_shares(self) -> tuple[float, ...]:
        """Return how much of the cut has been made in each stage; the last is 1.

        Example:
            >>> TrainingConfig(schedule="gradual", stages=4).cut_shares()
            (0.578125, 0.875, 0.984375, 1.0)
        """
        if self.schedule == "one-shot":
            return (1.0,)
        power = 3 if self.schedule == "gradual" else 1
        steps = range(1, self.stages + 1)
        return tuple(1.0 - (1.0 - step / self.stages) ** power for step in steps)

    def image_shares(self) -> tuple[float, ...]:
        """Return the share of the training images that each stage sees; they sum to 1.

        Example:
            >>> TrainingConfig(schedule="gradual", stages=3).image_shares()
            (0.25, 0.25, 0.5)
        """
        if self.schedule == "one-shot":
            return (1.0,)
        if self.schedule == "iterative":
            return (1.0 / self.stages,) * self.stages
        return (*(RAMP / (self.stages - 1),) * (self.stages - 1), 1.0 - RAMP)
