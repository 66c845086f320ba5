"""The sections of a search space file and the values they accept."""

from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, Strict, model_validator

from autocompress.core.candidate import DEFAULT_CRITERION, known_criteria
from autocompress.core.sparsity import parse_pattern
from autocompress.core.target import FLOAT

Text = Annotated[str, Strict()]
Flag = Annotated[bool, Strict()]
Number = Annotated[float, Strict(), Field(allow_inf_nan=False)]
Count = Annotated[int, Strict(), Field(ge=1)]
Globs = tuple[Text, ...]
Ties = tuple[Annotated[Globs, Field(min_length=1)], ...]


def _criterion(name: str) -> str:
    if name not in known_criteria():
        raise ValueError(" or ".join(f"'{known}'" for known in known_criteria()))
    return name


KnownCriterion = Annotated[str, Strict(), AfterValidator(_criterion)]


def _bits(lowest: int) -> AfterValidator:
    def check(bits: int) -> int:
        if bits != FLOAT and not lowest <= bits <= 8:
            raise ValueError(f"{lowest} to 8, or {FLOAT}")
        return bits

    return AfterValidator(check)


def _level(level: float | str) -> float | str:
    is_pattern = isinstance(level, str) and parse_pattern(level) is not None
    if not is_pattern and not (isinstance(level, float) and 0.0 <= level < 1.0):
        raise ValueError("a fraction in [0, 1), or N:M with 1 <= N < M, such as '2:4'")
    return level


Level = Annotated[Number | Text, AfterValidator(_level)]
WeightBits = Annotated[int, Strict(), _bits(1)]
ActivationBits = Annotated[int, Strict(), _bits(2)]


class Section(BaseModel):
    """A part of the file; unknown keys are refused and values never change."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Pruning(Section):
    """How many channels each group may lose.

    Attributes:
        ratios: Fractions of channels to remove, [0, 1), before rounding.
        round_to: Kept channels are a multiple of this; None takes the unit
            of the target, in which fewer channels make a layer faster.
        criteria: How channels may be ranked.
        include: Globs on group names, or types of their first layers.
        exclude: Globs that take groups out again.
        ties: Lists of globs on group names; groups that a list ties share a ratio.
    """

    ratios: tuple[Annotated[Number, Field(ge=0.0, lt=1.0)], ...] = (0.0, 0.25, 0.5, 0.75)
    round_to: Count | None = None
    criteria: Annotated[tuple[KnownCriterion, ...], Field(min_length=1)] = (DEFAULT_CRITERION,)
    include: Globs = ("*",)
    exclude: Globs = ()
    ties: Ties = ()


class Blocks(Section):
    """Which residual blocks may be dropped.

    Attributes:
        drop: Whether any may.
        include: Globs on block names.
        exclude: Globs that take blocks out again.
    """

    drop: Flag = True
    include: Globs = ("*",)
    exclude: Globs = ()


class Quantisation(Section):
    """Which bits each layer may take; 32, unquantised, is always offered.

    Attributes:
        weight_bits: Bits of weights, 1 to 8 or 32.
        activation_bits: Bits of activations, 2 to 8 or 32.
        include: Globs on layer names or types.
        exclude: Globs that take layers out again.
        end_bits: Fewest bits, of weights and activations, of the model's first
            and last layer.
        weight_format: How codes below 8 bits map to weights.
        group_size: Inputs that share a scale; 0 for one scale per output.
        ties: Lists of globs on layer names; layers that a list ties share their bits.
    """

    weight_bits: tuple[WeightBits, ...] = (2, 3, 4, 5, 6, 8, 32)
    activation_bits: tuple[ActivationBits, ...] = (8, 32)
    end_bits: Annotated[int, Strict(), Field(ge=1, le=8)] = 1
    weight_format: Literal["uniform", "codebook"] = "uniform"
    group_size: Annotated[int, Strict(), Field(ge=0)] = 0
    include: Globs = ("*",)
    exclude: Globs = ()
    ties: Ties = ()


class Sparsity(Section):
    """How many single weights each layer may lose; none unless levels are listed.

    Layers of one bit, which has no zero, lose none.

    Attributes:
        levels: Fractions of a layer's weights to set to zero, [0, 1), or "N:M",
            all but N of every M neighbouring inputs; 0 is always offered.
        include: Globs on layer names or types.
        exclude: Globs that take layers out again.
        ties: Lists of globs on layer names; layers that a list ties share a
            level. [["*"]] makes one global level.
    """

    levels: tuple[Level, ...] = ()
    include: Globs = ("*",)
    exclude: Globs = ()
    ties: Ties = ()


class Range(Section):
    """An interval that a number is searched in.

    Attributes:
        low: Smallest value.
        high: Largest value; equal to `low` to fix it.
        log: Whether equal factors are equal steps.
    """

    low: Number
    high: Number
    log: Flag = False

    @model_validator(mode="after")
    def _ordered(self) -> "Range":
        if self.low > self.high:
            raise ValueError("low <= high")
        if self.log and self.low <= 0.0:
            raise ValueError("low > 0 where log is true")
        return self


class Distillation(Section):
    """How a fine-tune may be taught.

    Attributes:
        temperature: Softens teacher and student, > 0.
        kd_weight: Share of the distillation term in the loss, within [0, 1].
        method: What is matched beside logits; see `DistillConfig`.
        feature_weight: Weight of that in the loss, within [0, 1e6].
    """

    temperature: Range = Range(low=1.0, high=8.0, log=True)
    kd_weight: Range = Range(low=0.0, high=0.95)
    method: Literal["logits", "features", "attention", "relation"] = "logits"
    feature_weight: Range = Range(low=0.0, high=0.0)

    @model_validator(mode="after")
    def _inside(self) -> "Distillation":
        if not 1e-3 <= self.temperature.low <= self.temperature.high <= 1e3:
            raise ValueError("a temperature within [0.001, 1000]")
        if not 0.0 <= self.kd_weight.low <= self.kd_weight.high <= 1.0:
            raise ValueError("a kd_weight within [0, 1]")
        if not 0.0 <= self.feature_weight.low <= self.feature_weight.high <= 1e6:
            raise ValueError("a feature_weight within [0, 1000000]")
        if self.method == "logits" and self.feature_weight.high > 0.0:
            raise ValueError("feature_weight 0 with method 'logits'")
        return self
