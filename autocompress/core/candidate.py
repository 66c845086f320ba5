"""A candidate: one joint configuration of pruning, dropping, bits and distillation."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from types import MappingProxyType
from typing import Any, Literal, get_args

from autocompress.core.files import parse_json
from autocompress.core.plugins import plugin_names
from autocompress.core.schema import SCHEMA_VERSION, check_name, check_record, unknown_name
from autocompress.core.sparsity import UNSTRUCTURED, parse_pattern, pattern_sparsity
from autocompress.core.target import FLOAT
from autocompress.errors import InvalidInputError, WrongTypeError, check_type, explain

CriterionName = Literal[
    "random",
    "l1",
    "l2",
    "group_norm",
    "bn_scale",
    "taylor",
    "hessian",
    "apoz",
    "fpgm",
    "thinet",
]
"""Ways to rank the channels of a group."""

DEFAULT_CRITERION: CriterionName = "l1"
"""How channels are ranked unless something else is said."""


def known_criteria() -> tuple[str, ...]:
    """List the names of all criteria, registered ones last."""
    own = get_args(CriterionName)
    return (*own, *(name for name in plugin_names("criteria") if name not in own))


UNIFORM, CODEBOOK = "uniform", "codebook"

WEIGHT_FORMATS = (UNIFORM, CODEBOOK)
"""How codes map to weights."""

METHODS = ("logits", "features", "attention", "relation")
"""What of a teacher is matched, beside its logits."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerConfig:
    """How one layer is stored and computed.

    Attributes:
        weight_bits: 1 to 8, or 32 for unquantised.
        activation_bits: Bits of the layer's input, 2 to 8, or 32.
        weight_format: How codes map to weights: "uniform" is a symmetric grid
            (one bit is -1 and 1, two bits are -1, 0 and 1), "codebook" any
            2**weight_bits of the integers in [-127, 127], chosen per layer.
        group_size: Inputs that share a scale, >= 1; 0 for one scale per output.
        sparsity: Fraction of single weights set to zero, [0, 1).
        sparsity_pattern: Which weights may be zero: "unstructured", or "N:M",
            all but N of every M neighbouring inputs, whose sparsity is 1 - N/M.
    """

    weight_bits: int = FLOAT
    activation_bits: int = FLOAT
    weight_format: str = UNIFORM
    group_size: int = 0
    sparsity: float = 0.0
    sparsity_pattern: str = UNSTRUCTURED

    def __post_init__(self) -> None:
        _check_bits("weight_bits", self.weight_bits, lowest=1)
        _check_bits("activation_bits", self.activation_bits, lowest=2)
        if self.weight_format not in WEIGHT_FORMATS:
            raise InvalidInputError(
                unknown_name("'weight_format'", str(self.weight_format), WEIGHT_FORMATS)
            )
        if self.weight_format == CODEBOOK and not 2 <= self.weight_bits <= 8:
            raise InvalidInputError(
                explain(
                    "'weight_bits'",
                    expected="2 to 8 with weight_format 'codebook'",
                    got=self.weight_bits,
                    remedy="set weight_bits: 4, or leave the format out",
                )
            )
        check_type("'group_size'", self.group_size, int)
        if self.group_size < 0:
            raise InvalidInputError(
                explain("'group_size'", expected=">= 0", got=self.group_size, remedy="write 64")
            )
        _check_range("sparsity", self.sparsity, low=0.0, high=1.0, high_included=False)
        object.__setattr__(self, "sparsity", _plain(self.sparsity))
        _check_pattern(self.sparsity_pattern, self.sparsity)

    @property
    def is_default(self) -> bool:
        """Whether the layer is left as it was."""
        return self == LayerConfig()


@dataclass(frozen=True, kw_only=True, slots=True)
class DistillConfig:
    """How the original model teaches the compressed one.

    Attributes:
        temperature: Softens both distributions, > 0 (Hinton et al. 2015).
        kd_weight: Share of the distillation term in the loss, [0, 1].
        method: What is matched beside logits, for `feature_weight`: nothing with
            "logits"; "features" themselves (FitNets, Romero et al. 2015), their
            "attention" maps (Zagoruyko and Komodakis 2017), or the "relation" of
            examples to each other (RKD, Park et al. 2019).
        feature_weight: Weight of that term, >= 0; 0 is none.
    """

    temperature: float = 4.0
    kd_weight: float = 0.9
    method: str = "logits"
    feature_weight: float = 0.0

    def __post_init__(self) -> None:
        _check_range("temperature", self.temperature, low=1e-3, high=1e3)
        _check_range("kd_weight", self.kd_weight, low=0.0, high=1.0)
        _check_range("feature_weight", self.feature_weight, low=0.0, high=1e6)
        check_name("'method'", self.method, METHODS)
        if self.method == METHODS[0] and self.feature_weight > 0.0:
            raise InvalidInputError(
                explain(
                    "'feature_weight'",
                    expected="0 with method 'logits'",
                    got=self.feature_weight,
                    remedy="choose the method 'features', 'attention' or 'relation'",
                )
            )
        for name in ("temperature", "kd_weight", "feature_weight"):
            object.__setattr__(self, name, _plain(getattr(self, name)))


@dataclass(frozen=True, kw_only=True, slots=True)
class Candidate:
    """One joint configuration; equal candidates compress a model alike.

    Attributes:
        pruning_ratios: Group name to fraction of channels removed, [0, 1).
        dropped_blocks: Names of the residual blocks that are removed.
        criterion: How channels are ranked within a group, a `CriterionName`.
        layers: Layer name to its bits and sparsity; layers left out stay as they are.
        distill: How a fine-tune is taught.
    """

    pruning_ratios: Mapping[str, float] = field(default_factory=dict)
    dropped_blocks: tuple[str, ...] = ()
    criterion: str = DEFAULT_CRITERION
    layers: Mapping[str, LayerConfig] = field(default_factory=dict)
    distill: DistillConfig = field(default_factory=DistillConfig)

    def __post_init__(self) -> None:
        for name, ratio in _mapping(self.pruning_ratios, "pruning_ratios").items():
            _check_range(f"pruning_ratios['{name}']", ratio, low=0.0, high=1.0, high_included=False)
        for name, config in _mapping(self.layers, "layers").items():
            if not isinstance(config, LayerConfig):
                raise WrongTypeError(
                    explain(
                        f"layers['{name}']",
                        expected="a LayerConfig",
                        got=type(config).__name__,
                        remedy="write LayerConfig(weight_bits=8, activation_bits=8)",
                    )
                )
        if isinstance(self.dropped_blocks, str) or not all(
            isinstance(name, str) for name in self.dropped_blocks
        ):
            raise WrongTypeError(
                explain(
                    "'dropped_blocks'",
                    expected="a sequence of block names",
                    got=repr(self.dropped_blocks),
                    remedy="write ('layer1.1',)",
                )
            )
        if not isinstance(self.criterion, str):
            raise WrongTypeError(
                explain("'criterion'", expected="a name", got=self.criterion, remedy="write 'l1'")
            )
        check_name("'criterion'", self.criterion, known_criteria())
        ratios = {str(k): _plain(v) for k, v in sorted(self.pruning_ratios.items())}
        object.__setattr__(self, "pruning_ratios", MappingProxyType(ratios))
        object.__setattr__(self, "layers", MappingProxyType(dict(sorted(self.layers.items()))))
        object.__setattr__(self, "dropped_blocks", tuple(sorted(set(self.dropped_blocks))))

    def __hash__(self) -> int:
        return hash(self.to_json())

    def __reduce__(self) -> tuple[Any, ...]:
        return Candidate.from_json, (self.to_json(),)

    def layer(self, name: str) -> LayerConfig:
        """Return the configuration of one layer; unquantised if not listed."""
        return self.layers.get(name, _WHOLE)

    def weight_bits(self) -> dict[str, int]:
        """Return the weight bits of the layers that have fewer than 32, by name."""
        return {
            name: config.weight_bits
            for name, config in self.layers.items()
            if config.weight_bits != FLOAT
        }

    def drops(self, name: str) -> bool:
        """Tell whether a layer or group lies inside a dropped block."""
        return any(is_inside(name, block) for block in self.dropped_blocks)

    def canonical(self) -> "Candidate":
        """Remove what has no effect, so that equal compressions are equal.

        Ratios of zero, unquantised layers, and everything named inside a
        dropped block go, with the last ratio the criterion, and without a
        feature weight the method of distillation. Group names
        start at their first layer, which lies inside a block only when the
        whole group does.

        Example:
            >>> Candidate(pruning_ratios={"conv1": 0.0}).canonical() == Candidate()
            True
        """
        ratios = {
            name: ratio
            for name, ratio in self.pruning_ratios.items()
            if ratio > 0 and not self.drops(name)
        }
        distill = self.distill
        if distill.feature_weight == 0.0 and distill.method != METHODS[0]:
            distill = replace(distill, method=METHODS[0])
        return replace(
            self,
            pruning_ratios=ratios,
            distill=distill,
            criterion=self.criterion if ratios else DEFAULT_CRITERION,
            layers={
                name: config
                for name, config in self.layers.items()
                if not config.is_default and not self.drops(name)
            },
        )

    def to_json(self) -> str:
        """Return the candidate as one line of JSON, keys sorted."""
        record = {
            "schema_version": SCHEMA_VERSION,
            "pruning_ratios": dict(self.pruning_ratios),
            "dropped_blocks": list(self.dropped_blocks),
            "criterion": self.criterion,
            "layers": {
                name: {
                    "weight_bits": config.weight_bits,
                    "activation_bits": config.activation_bits,
                    "weight_format": config.weight_format,
                    "group_size": config.group_size,
                    "sparsity": config.sparsity,
                    "sparsity_pattern": config.sparsity_pattern,
                }
                for name, config in self.layers.items()
            },
            "distill": {
                "temperature": self.distill.temperature,
                "kd_weight": self.distill.kd_weight,
                "method": self.distill.method,
                "feature_weight": self.distill.feature_weight,
            },
        }
        return json.dumps(record, sort_keys=True)

    @classmethod
    def from_json(cls, text: str) -> "Candidate":
        """Read a candidate from what `to_json` returned.

        Raises:
            InvalidInputError: If the text is not JSON, has an unknown key, or
                a value is out of range.
        """
        try:
            decoded = parse_json(text)
        except (TypeError, ValueError) as error:
            raise InvalidInputError(
                explain("candidate", expected="JSON", got=error, remedy="check the text")
            ) from error
        keys = ("pruning_ratios", "dropped_blocks", "criterion", "layers", "distill")
        record = dict(check_record(decoded, what="candidate", keys=keys))
        layer_keys = tuple(item.name for item in fields(LayerConfig))
        distill_keys = ("temperature", "kd_weight", "method", "feature_weight")
        layers = _mapping(record.get("layers", {}), "layers")
        blocks = record.get("dropped_blocks", [])
        if not isinstance(blocks, list) or not all(isinstance(name, str) for name in blocks):
            raise WrongTypeError(
                explain(
                    "candidate 'dropped_blocks'",
                    expected="a list of names",
                    got=blocks,
                    remedy="check the text",
                )
            )
        return cls(
            pruning_ratios=_mapping(record.get("pruning_ratios", {}), "pruning_ratios"),
            dropped_blocks=tuple(blocks),
            criterion=record.get("criterion", DEFAULT_CRITERION),
            layers={
                name: LayerConfig(**check_record(value, what=f"layer '{name}'", keys=layer_keys))
                for name, value in layers.items()
            },
            distill=DistillConfig(
                **check_record(record.get("distill", {}), what="distill", keys=distill_keys)
            ),
        )


def is_inside(name: str, module: str) -> bool:
    """Tell whether a layer or group is a module or lies inside of it.

    Example:
        >>> is_inside("layer1.0.conv1", "layer1.0"), is_inside("layer1.01", "layer1.0")
        (True, False)
    """
    return name == module or name.startswith(f"{module}.")


def _mapping(value: object, key: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise WrongTypeError(
            explain(
                f"candidate '{key}'",
                expected="a mapping of names",
                got=type(value).__name__,
                remedy=f"write {key}: {{}} for none",
            )
        )
    return value


def _plain(value: float) -> float:
    """Return a plain float without a negative zero: equal candidates must hash alike."""
    return float(value) + 0.0


def _check_bits(name: str, value: object, *, lowest: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongTypeError(
            explain(f"'{name}'", expected="an integer", got=repr(value), remedy=f"set {name}: 8")
        )
    if value != FLOAT and not lowest <= value <= 8:
        raise InvalidInputError(
            explain(
                f"'{name}'", expected=f"{lowest} to 8, or 32", got=value, remedy=f"set {name}: 8"
            )
        )


def _check_pattern(pattern: object, sparsity: float) -> None:
    try:
        parsed = parse_pattern(str(pattern))
    except ValueError as error:
        raise InvalidInputError(
            explain("'sparsity_pattern'", expected=error, got=repr(pattern), remedy="leave it out")
        ) from error
    if parsed is not None and sparsity != pattern_sparsity(str(pattern)):
        raise InvalidInputError(
            explain(
                "'sparsity'",
                expected=f"{pattern_sparsity(str(pattern)):g} with sparsity_pattern '{pattern}'",
                got=sparsity,
                remedy="set that, or leave the pattern out",
            )
        )


def _check_range(
    name: str, value: object, *, low: float, high: float, high_included: bool = True
) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongTypeError(
            explain(f"'{name}'", expected="a number", got=repr(value), remedy="give a number")
        )
    inside = low <= value <= high if high_included else low <= value < high
    if not (math.isfinite(value) and inside):
        bracket = "]" if high_included else ")"
        raise InvalidInputError(
            explain(
                f"'{name}'",
                expected=f"a number in [{low:g}, {high:g}{bracket}",
                got=value,
                remedy="choose a value in that range",
            )
        )


_WHOLE = LayerConfig()
"""What a layer has that is not listed."""
