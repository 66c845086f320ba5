"""Choices of ratios, bits and sparsity, each for one part of a model or for several."""

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Generic, TypeVar

from autocompress.core.candidate import UNIFORM, Candidate, LayerConfig
from autocompress.core.target import FLOAT
from autocompress.space.choices import DENSE, PrecisionPair, SparsityLevel

T = TypeVar("T")


@dataclass(frozen=True, kw_only=True, slots=True)
class Knob(Generic[T]):
    """One choice for one or several parts of a model.

    Attributes:
        name: Name of the parameter, after its first member.
        members: The parts that it sets.
        levels: What can be chosen; a value for each member.
    """

    name: str
    members: tuple[str, ...]
    levels: tuple[tuple[T, ...], ...]

    def values(self, level: int) -> dict[str, T]:
        """Return the value of every member at a level."""
        return dict(zip(self.members, self.levels[level], strict=True))

    def nearest(
        self,
        wanted: Mapping[str, T],
        default: T,
        gone: Callable[[str], bool],
        key: Callable[[float, int], tuple[float, int]],
        distance: Callable[[T, T], float],
    ) -> int:
        """Find the level nearest to what the members want, those that are gone not asked.

        Args:
            wanted: Values by member.
            default: The value of members without one, and of all if all are gone.
            gone: Tells whether a member lies in a dropped block.
            key: Orders (distance, level), the least first; breaks ties.
            distance: Between two values, >= 0.
        """
        if len(self.members) == 1:  # most often, and what is gone has no effect anyway
            exact = (wanted.get(self.members[0], default),)
            if exact in self.levels:
                return self.levels.index(exact)
        standing = [name for name in self.members if not gone(name)]

        def cost(level: int) -> float:
            values = self.values(level)
            asked = {name: wanted.get(name, default) for name in standing}
            asked = asked or dict.fromkeys(self.members, default)
            return round(sum(distance(values[name], want) for name, want in asked.items()), 12)

        return min(range(len(self.levels)), key=lambda level: key(cost(level), level))


def make_knobs(
    prefix: str,
    names: Iterable[str],
    ties: Sequence[Sequence[str]],
    levels: Callable[[Sequence[str]], Sequence[tuple[T, ...]]],
) -> tuple[Knob[T], ...]:
    """Make one knob for every set of tied names, and for every other name.

    Args:
        prefix: Begins the names of the parameters, for example "prune:".
        names: Names that have a choice, in order.
        ties: Sets of names that share one.
        levels: Returns the levels of some members.
    """
    set_of = {name: tuple(members) for members in ties for name in members}
    sets = dict.fromkeys(set_of.get(name, (name,)) for name in names)
    return tuple(
        Knob(name=f"{prefix}{members[0]}", members=members, levels=tuple(levels(members)))
        for members in sets
    )


def nearest_levels(
    candidate: Candidate,
    ratios: Iterable[Knob[float]],
    precisions: Iterable[Knob[PrecisionPair]],
    sparsities: Iterable[Knob[SparsityLevel]],
) -> dict[str, int]:
    """Find the level of every knob that is nearest to a candidate; in doubt the mildest.

    Args:
        candidate: What is wanted.
        ratios: Knobs of groups.
        precisions: Knobs of the layers' bits.
        sparsities: Knobs of the layers' sparsity.

    Returns:
        Levels by the knobs' names.
    """
    layers, gone = candidate.layers.items(), candidate.drops
    bits = {name: (c.weight_bits, c.activation_bits) for name, c in layers}
    sparsity = {name: (c.sparsity, c.sparsity_pattern) for name, c in layers}

    def unmasked(name: str) -> bool:  # those of one bit ask for nothing
        return gone(name) or bits.get(name, (FLOAT, FLOAT))[0] == 1

    wanted = candidate.pruning_ratios
    levels = {k.name: k.nearest(wanted, 0.0, gone, _mild_first, _ratios_apart) for k in ratios}
    levels |= {
        k.name: k.nearest(bits, (FLOAT, FLOAT), gone, _mild_last, _pairs_apart) for k in precisions
    }
    return levels | {
        k.name: k.nearest(sparsity, DENSE, unmasked, _mild_first, _sparsity_apart)
        for k in sparsities
    }


def ratio_levels(
    members: Sequence[str], choices: Mapping[str, Sequence[float]]
) -> list[tuple[float, ...]]:
    """List the ratios that groups can have together, from nothing pruned up.

    Args:
        members: Names of groups.
        choices: The ratios that each can have by itself.

    Example:
        >>> ratio_levels(["conv1", "conv2"], {"conv1": (0.0, 0.5), "conv2": (0.0, 0.4, 0.8)})
        [(0.0, 0.0), (0.5, 0.4), (0.5, 0.8)]
    """
    ratios = sorted({ratio for name in members for ratio in choices[name]})
    return list(dict.fromkeys(tuple(_nearest(choices[n], r) for n in members) for r in ratios))


def _nearest(choices: Sequence[float], ratio: float) -> float:
    return min(choices, key=lambda choice: (round(abs(choice - ratio), 12), choice))


def pair_levels(
    members: Sequence[str],
    pairs: Iterable[PrecisionPair],
    ends: Collection[str],
    end_bits: PrecisionPair,
) -> list[tuple[PrecisionPair, ...]]:
    """List the precisions that layers can have together.

    Args:
        members: Names of layers.
        pairs: The precisions, as (weight bits, activation bits).
        ends: Layers that need some bits at least.
        end_bits: That many, as (weight bits, activation bits).

    Example:
        >>> pair_levels(["conv1", "conv2"], [(4, 8), (32, 32)], ["conv1"], (8, 8))
        [((8, 8), (4, 8)), ((32, 32), (32, 32))]
    """

    def held(name: str, pair: PrecisionPair) -> PrecisionPair:
        return (max(pair[0], end_bits[0]), max(pair[1], end_bits[1])) if name in ends else pair

    return [tuple(held(name, pair) for name in members) for pair in pairs]


def layer_configs(
    bits: Mapping[str, PrecisionPair],
    sparsity: Mapping[str, SparsityLevel],
    weight_format: str = UNIFORM,
    group_size: int = 0,
) -> dict[str, LayerConfig]:
    """Put together what is chosen for each layer; one bit has no zero and stays dense.

    Args:
        bits: Precisions by layer.
        sparsity: Sparsities by layer.
        weight_format: Of weights with 2 to 7 bits.
        group_size: Of quantised weights.
    """
    configs = {}
    for name in dict.fromkeys((*bits, *sparsity)):
        weight_bits, activation_bits = bits.get(name, (FLOAT, FLOAT))
        fraction, pattern = DENSE if weight_bits == 1 else sparsity.get(name, DENSE)
        configs[name] = _config(
            weight_bits,
            activation_bits,
            weight_format if 1 < weight_bits < 8 else UNIFORM,
            group_size if weight_bits != FLOAT else 0,
            fraction,
            pattern,
        )
    return configs


@lru_cache(maxsize=1024)
def _config(
    weight_bits: int,
    activation_bits: int,
    weight_format: str,
    group_size: int,
    sparsity: float,
    sparsity_pattern: str,
) -> LayerConfig:
    """Make a configuration once; a search asks for the same few very often."""
    return LayerConfig(
        weight_bits=weight_bits,
        activation_bits=activation_bits,
        weight_format=weight_format,
        group_size=group_size,
        sparsity=sparsity,
        sparsity_pattern=sparsity_pattern,
    )


def _mild_first(distance: float, level: int) -> tuple[float, int]:
    """Prefer the lower of two levels that are equally near."""
    return distance, level


def _mild_last(distance: float, level: int) -> tuple[float, int]:
    """Prefer the higher of two levels that are equally near."""
    return distance, -level


def _ratios_apart(one: float, other: float) -> float:
    """Return how far two ratios are apart."""
    return abs(one - other)


def _pairs_apart(one: PrecisionPair, other: PrecisionPair) -> float:
    """Add up how often weights and activations halve or double."""
    return sum(abs(math.log2(a / b)) for a, b in zip(one, other, strict=True))


def _sparsity_apart(one: SparsityLevel, other: SparsityLevel) -> float:
    """Compare the fractions; patterns decide only between equal ones."""
    return abs(one[0] - other[0]) + 1e-6 * (one[1] != other[1])
