"""How a candidate is cut, quantised and taught while it is trained: at once, or in stages."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from autocompress.core.recipe import Recipe
from autocompress.core.schema import check_name, check_number, check_record
from autocompress.errors import InvalidInputError, check_type, explain

SCHEDULES = ("one-shot", "iterative", "gradual", "late")
"""Names of the schedules."""

TEACHERS = ("original", "assistant", "self")
"""Who teaches."""

LESSONS = ("throughout", "first", "last", "qkd")
"""When the teacher teaches."""

QUANTISING = ("throughout", "last", "after")
"""When narrow grids are on."""

DATA = ("task", "synthetic")
"""What is trained on."""

ELASTIC = ("auto", "on", "off")
"""Whether weights are shared among candidates."""

RAMP = 0.5
"""Share of the images in which a gradual schedule cuts; the rest trains what is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class TrainingConfig:
    """How candidates are trained, and how finalists are cut while they are.

    "one-shot" cuts everything before training. "iterative" cuts equal parts
    in stages, each trained for as long (Han et al. 2015). "gradual" cuts
    along the cubic curve of Zhu and Gupta (2017), most of it early, in the
    first half of the training. "late" cuts everything after the first half.
    Stages differ in channels, blocks and unstructured sparsity; bits are the
    candidate's own throughout.

    Schedule, `teach` and `quantise` together say the order. To prune, then
    distil: "one-shot" and teach "last"; to distil, then prune: "late" and
    teach "first"; to distil while pruning: "gradual". Likewise for bits, with
    quantise "last", which follows a first half in floating point, or "after",
    which calibrates what was trained in floating point.

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
        teacher: "original"; "assistant", a model halfway to the candidate that
            is taught first, for a third of the images (Mirzadeh et al. 2020); or
            "self", the moving average of the student's own weights (Tarvainen
            and Valpola 2017). Further teachers given to the search join.
        teach: "throughout"; in the "first" or in the "last" half, labels alone
            in the other; or "qkd", a third with labels alone, one in which
            teacher and student learn from each other, and one in which that
            teacher teaches (Kim et al. 2019).
        quantise: "throughout", in the "last" half, or "after" the training.
        short_epochs: Length of a short fine-tune; may be below 1. None scales it to the budget.
        full_epochs: Length of a finalist's, where only trials are budgeted; None is 4, or
            30,000 images if that is more.
        learning_share: Share of the budget for training, [0, 1], in which
            temperatures and weights of the distillation are compared on
            representatives; 0 leaves them as they are drawn.
        elastic: Whether proxies use weights shared by all candidates, trained
            before the trials: "on", "off", or "auto", where they rank
            trained candidates better than the plain proxy does. If their
            training diverges, proxies are plain.
        data: "task", or "synthetic": inputs that are made of the original's batch
            norms take the place of the task's `train`; they need a `kd_weight` of 1.
        recipe: How weights are updated.
    """

    schedule: str = "one-shot"
    stages: int = 4
    rewind: bool = False
    norm_l1: float = 0.0
    group_lasso: float = 0.0
    learned_steps: bool = True
    teacher: str = "original"
    teach: str = "throughout"
    quantise: str = "throughout"
    short_epochs: float | None = None
    full_epochs: float | None = None
    learning_share: float = 0.15
    elastic: str = "off"
    data: str = "task"
    recipe: Recipe = field(default_factory=Recipe)

    def __post_init__(self) -> None:
        if isinstance(self.elastic, bool):  # what YAML makes of on and off
            object.__setattr__(self, "elastic", "on" if self.elastic else "off")
        for name, known in (
            ("schedule", SCHEDULES),
            ("teacher", TEACHERS),
            ("teach", LESSONS),
            ("quantise", QUANTISING),
            ("elastic", ELASTIC),
            ("data", DATA),
        ):
            check_name(f"training '{name}'", getattr(self, name), known)
        check_type("training 'stages'", self.stages, int)
        if not 2 <= self.stages <= 100:
            raise InvalidInputError(
                explain("training 'stages'", expected="2 to 100", got=self.stages, remedy="write 4")
            )
        check_type("training 'rewind'", self.rewind, bool)
        check_type("training 'learned_steps'", self.learned_steps, bool)
        check_type("training 'recipe'", self.recipe, Recipe)
        check_number("training 'learning_share'", self.learning_share, low=0.0, high=1.0)
        for name in ("short_epochs", "full_epochs"):
            if getattr(self, name) is not None:
                check_number(f"training '{name}'", getattr(self, name), low=1e-6)
        for name in ("norm_l1", "group_lasso"):
            value = getattr(self, name)
            check_number(f"training '{name}'", value, low=0.0)
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
        found = dict(check_record(values, what="'training'", keys=keys))
        if "recipe" in found:
            found["recipe"] = Recipe.from_mapping(found["recipe"])
        return cls(**found)

    def at_once(self) -> "TrainingConfig":
        """Return the same for a short training: cut at once, taught throughout by the original."""
        return replace(
            self,
            schedule="one-shot",
            norm_l1=0.0,
            group_lasso=0.0,
            teacher="original",
            teach="throughout",
            quantise="after" if self.quantise == "after" else "throughout",
        )

    def cut_shares(self) -> tuple[float, ...]:
        """Return how much of the cut has been made in each stage; the last is 1.

        Example:
            >>> TrainingConfig(schedule="gradual", stages=4).cut_shares()
            (0.578125, 0.875, 0.984375, 1.0)
        """
        if self.schedule == "one-shot":
            return (1.0,)
        if self.schedule == "late":
            return (0.0, 1.0)
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
        if self.schedule == "late":
            return (0.5, 0.5)
        if self.schedule == "iterative":
            return (1.0 / self.stages,) * self.stages
        return (*(RAMP / (self.stages - 1),) * (self.stages - 1), 1.0 - RAMP)
