"""Random parameters: spread over levels of compression, or near known ones."""

import math
from collections.abc import Mapping, Sequence

import numpy as np

from autocompress.core.target import FLOAT
from autocompress.space.choices import PrecisionPair
from autocompress.space.parameter import Parameter

ATTEMPTS = 20
"""Mutations tried before a space is taken to have no other candidate."""

_SPREAD = 0.15
"""Standard deviation, in levels, of layers around the level of their kind."""

_USUAL = 0.8
"""Probability that a sample quantises activations as narrowly as it can."""


def stratified(
    parameters: Sequence[Parameter], precisions: Sequence[PrecisionPair], rng: np.random.Generator
) -> dict[str, float]:
    """Draw parameters around a global level of compression, u ~ U(0, 1).

    Pruning and dropping take u times a share of their own, the larger share
    being 1, since both at full strength leave nothing to train. Sparsity takes
    u, and bits sqrt(u), because they cost the least accuracy. Activations of
    one sample share their bits, since a mixture makes runtimes convert back
    and forth.

    Args:
        parameters: The parameters of a bound space.
        precisions: What `precision:` parameters index.
        rng: The source of randomness.

    Returns:
        A value for every parameter.
    """
    level = rng.random()
    shares = rng.random(2)
    prune_level, drop_level = level * shares / shares.max()
    ladder = _bit_ladder(precisions, rng)
    blocks = [parameter.name for parameter in parameters if parameter.name.startswith("drop:")]
    count = round(drop_level * len(blocks))
    dropped = {blocks[index] for index in rng.permutation(len(blocks))[:count]}
    params: dict[str, float] = {}
    for parameter in parameters:
        kind = parameter.name.partition(":")[0]
        if kind == "drop":
            params[parameter.name] = int(parameter.name in dropped)
        elif kind == "prune":
            params[parameter.name] = _rung(prune_level, int(parameter.high) + 1, rng)
        elif kind == "sparsity":
            params[parameter.name] = _rung(level, int(parameter.high) + 1, rng)
        elif kind == "precision":
            params[parameter.name] = ladder[_rung(math.sqrt(level), len(ladder), rng)]
        else:
            params[parameter.name] = parameter.from_unit(rng.random())
    return params


def mutated(
    parameters: Sequence[Parameter],
    params: Mapping[str, float],
    rng: np.random.Generator,
    rate: float,
) -> dict[str, float]:
    """Change each parameter with a probability, at least one in all.

    Integers take a neighbouring value, or any other one time in four; floats
    move by about a seventh of their range.

    Args:
        parameters: The parameters of a bound space.
        params: A value for every parameter.
        rng: The source of randomness.
        rate: Probability of a change, [0, 1].

    Returns:
        New parameters; the given ones stay as they are.
    """
    chosen = rng.random(len(parameters)) < rate
    chosen[rng.integers(len(parameters))] |= not chosen.any()
    changed = dict(params)
    for parameter in (p for p, change in zip(parameters, chosen, strict=True) if change):
        value = params[parameter.name]
        if parameter.kind == "float":
            step = rng.normal(0.0, _SPREAD)
            changed[parameter.name] = parameter.from_unit(parameter.to_unit(value) + step)
            continue
        others = [v for v in range(int(parameter.high) + 1) if v != value]
        near = [v for v in others if abs(v - value) == 1]
        changed[parameter.name] = int(rng.choice(others if rng.random() < 0.25 else near))
    return changed


def _bit_ladder(precisions: Sequence[PrecisionPair], rng: np.random.Generator) -> list[int]:
    """Choose activation bits; list their precisions from widest to narrowest."""
    offered = sorted({activation for _, activation in precisions})
    activation = offered[0] if rng.random() < _USUAL else int(rng.choice(offered))
    ladder = [
        index
        for index, (weight_bits, activation_bits) in enumerate(precisions)
        if activation_bits == activation or weight_bits == FLOAT
    ]
    return ladder[::-1]


def _rung(level: float, count: int, rng: np.random.Generator) -> int:
    """Choose one of `count` rungs near a level of [0, 1]."""
    near = level + rng.normal(0.0, _SPREAD)
    return min(max(int(near * count), 0), count - 1)
