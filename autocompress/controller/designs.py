"""The designs that a search starts with, before its sampler proposes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import ArrayLike
from scipy.stats import qmc

from autocompress.controller.current import EARLIER
from autocompress.controller.ladder import Rung
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.target import FLOAT
from autocompress.space.bound import BoundSpace
from autocompress.transform.allocation import global_ratios

PROMOTED_COSTS = (0.8, 0.62, 0.9, 0.45)
"""Costs, as fractions of the ladder's start, at which rungs are trained early."""

PROMOTED_BELOW_LIMIT = (0.95, 0.75, 0.85, 0.6)
"""The same, as fractions of a limit that is below the start."""

SLACK = 1.1
"""Rungs that cost more than this multiple of a limit are no designs."""

RUNGS, ALLOCATIONS, SPREAD = 12, 24, 16
"""Rungs of the ladders, allocations and Sobol points that become designs, at most."""

SHARES = (1 / 4, 1 / 8, 1 / 20)
"""The same, as shares of the trials that may be made."""

REACH = 0.6
"""How far Sobol points go from the ladder's start to the strongest choices, on average at most."""

AROUND = 0.25
"""How far parameters of a Sobol point differ at most from the level of their kind."""

BASELINES = ("unmodified", "plain int8")
"""Origins that are evaluated whatever they cost, and never trained."""

GIVEN = "given"
"""Origin of candidates that the caller begins with."""

PLAIN_BITS = 8
"""Bits of the plain quantised design that the ladder starts from."""

UNIFORM_RATIOS = (0.25, 0.5)
"""Fractions of the channels that uniform and global pruning remove."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Design:
    """A candidate to evaluate first.

    Attributes:
        candidate: The candidate.
        origin: What it is, for the ledger and the report.
        promote: Whether it is trained at fidelity 1 whatever its proxy says.
    """

    candidate: Candidate
    origin: str
    promote: bool = False


def unmodified(space: BoundSpace) -> Candidate:
    """Return the candidate that leaves the model as it is."""
    return space.uniform(FLOAT, FLOAT, 0.0)


def ladder_start(space: BoundSpace) -> Candidate:
    """Return plain 8-bit quantisation, or the nearest that the space offers."""
    return space.uniform(PLAIN_BITS, PLAIN_BITS, 0.0)


def plain_int8(space: BoundSpace) -> Candidate:
    """Return plain 8-bit quantisation of every layer that can be quantised.

    It is what a search is compared with, whether the space holds it or not.
    """
    config = LayerConfig(weight_bits=PLAIN_BITS, activation_bits=PLAIN_BITS)
    layers = {layer.name: config for layer in space.graph.layers if layer.quantisable}
    return replace(ladder_start(space), layers=layers).canonical()


def counts(trials: int | None) -> tuple[int, int, int]:
    """Return how many rungs, allocations and Sobol points are designs.

    Args:
        trials: Trials that may be made; None for no limit.

    Example:
        >>> counts(40)
        (10, 5, 2)
    """
    most = (RUNGS, ALLOCATIONS, SPREAD)
    if trials is None:
        return RUNGS, RUNGS, 0
    rungs, allocations, spread = (
        min(many, int(share * trials)) for many, share in zip(most, SHARES, strict=True)
    )
    return max(2, rungs), allocations, spread


def first_designs(
    space: BoundSpace,
    ladders: Mapping[str, Sequence[Rung]],
    allowance: Mapping[str, float] | None = None,
    scores: Mapping[str, Mapping[str, ArrayLike]] | None = None,
    *,
    rungs: int = RUNGS,
    others: Mapping[str, Sequence[Candidate]] | None = None,
) -> list[Design]:
    """List the first trials: baselines, the ladder, uniform and global designs.

    The unmodified model comes first, then plain int8 or the nearest to it. Rungs that are promoted
    follow, since fidelity 0 alone misjudges what training recovers, then the
    remaining rungs, what else is given, uniform bit-widths and sparsity, and pruning
    that is uniform or ranks the channels of all groups together.

    Args:
        space: The space bound to the model.
        ladders: By the cost that they go down, from `build_ladder`.
        allowance: Limits of costs, as fractions of the ladder's start.
        scores: By criterion and group, the scores of the channels, for
            pruning that ranks them together.
        rungs: Rungs that become designs, of all ladders together.
        others: Further designs by their origin.

    Returns:
        Designs without repetition, in the order of their trials.
    """
    start = ladder_start(space)
    designs = _baselines(space)
    promoted, remaining = [], []
    for cost, ladder in ladders.items():
        limit = (allowance or {}).get(cost, 1.0)
        affordable = [rung for rung in ladder[1:] if rung.cost <= SLACK * limit]
        chosen = _spaced(affordable or ladder[-1:], max(2, rungs // len(ladders)))
        marks = PROMOTED_COSTS if limit >= 1.0 else PROMOTED_BELOW_LIMIT
        for mark in marks[: max(2, len(marks) // len(ladders))] if chosen else ():
            rung = chosen[_nearest(chosen, min(1.0, limit) * mark)]
            promoted.append(Design(candidate=rung.candidate, origin=f"{cost} ladder", promote=True))
        remaining += [Design(candidate=r.candidate, origin=f"{cost} ladder") for r in chosen]
    designs += [*promoted, *remaining]
    for origin, candidates in (others or {}).items():
        designs += [Design(candidate=candidate, origin=origin) for candidate in candidates]
    narrow = sorted({weight for weight, _ in space.layer_precisions if weight < PLAIN_BITS})
    for weight in reversed(narrow):
        uniform = space.uniform(weight, PLAIN_BITS, 0.0)
        designs.append(Design(candidate=uniform, origin="uniform bits"))
    for ratio in UNIFORM_RATIOS:
        pruned = space.uniform(PLAIN_BITS, PLAIN_BITS, ratio)
        designs.append(Design(candidate=pruned, origin="uniform pruning"))
    for criterion, found in (scores or {}).items():
        for fraction in UNIFORM_RATIOS:
            ratios = global_ratios(found, space.pruning_choices, fraction)
            ranked = replace(start, pruning_ratios=ratios, criterion=criterion)
            designs.append(
                Design(candidate=space.canonical(ranked), origin=f"global {criterion} pruning")
            )
    for level in space.sparsity_levels[1:] if space.sparse_layers else ():
        sparse = space.uniform(PLAIN_BITS, PLAIN_BITS, 0.0, sparsity=level)
        designs.append(Design(candidate=sparse, origin="uniform sparsity"))
    return _unique(designs)


def given_designs(space: BoundSpace, candidates: Sequence[Candidate]) -> list[Design]:
    """List the first trials where they are given: the baselines, then the candidates.

    Args:
        space: The space bound to the model.
        candidates: What to evaluate, of this space.
    """
    given = [Design(candidate=candidate, origin=GIVEN) for candidate in candidates]
    return _unique([*_baselines(space), *given])


def with_earlier(
    space: BoundSpace, designs: Sequence[Design], candidates: Sequence[Candidate]
) -> list[Design]:
    """Add the best candidates of earlier studies: after baselines and given ones, before others.

    Args:
        space: The space bound to the model.
        designs: The first trials.
        candidates: Of this space; what is among the designs is no second one.
    """
    known = {design.candidate for design in designs}
    earlier = [Design(candidate=c, origin=EARLIER) for c in candidates if c not in known]
    firm = {design.candidate for design in _baselines(space)}
    first = [d for d in designs if d.candidate in firm or d.origin == GIVEN]
    return [*first, *earlier, *(design for design in designs if design not in first)]


def _baselines(space: BoundSpace) -> list[Design]:
    start = ladder_start(space)
    is_plain = start == plain_int8(space)
    return [
        Design(candidate=unmodified(space), origin="unmodified"),
        Design(candidate=start, origin="plain int8" if is_plain else "uniform bits"),
    ]


def _unique(designs: Sequence[Design]) -> list[Design]:
    unique: dict[str, Design] = {}
    for design in designs:
        unique.setdefault(design.candidate.to_json(), design)
    return list(unique.values())


def sobol_points(space: BoundSpace, count: int, seed: int) -> list[Candidate]:
    """Spread candidates between plain int8 and strong compression of every kind.

    Each kind of choice has a level, which its parameters vary around:
    independent parameters would all compress about equally. Levels and
    differences are one scrambled Sobol sequence (Sobol 1967; Owen 1998).

    Args:
        space: The space.
        count: How many.
        seed: Decides the scrambling.
    """
    start = space.to_params(ladder_start(space))
    kinds = list(dict.fromkeys(parameter.name.partition(":")[0] for parameter in space.parameters))
    sequence = qmc.Sobol(len(kinds) + len(start), rng=seed)
    points = sequence.random_base2(max(0, count - 1).bit_length())[:count]
    found = []
    for point in points:
        params = {}
        for place, parameter in zip(point[len(kinds) :], space.parameters, strict=True):
            kind = parameter.name.partition(":")[0]
            level = REACH * point[kinds.index(kind)]
            if kind == "drop":
                params[parameter.name] = float(place < level)
                continue
            if kind in ("prune", "sparsity", "precision"):
                end = 0.0 if kind == "precision" else 1.0
                level = float(np.clip(level + AROUND * (2.0 * place - 1.0), 0.0, 1.0))
                begin = parameter.to_unit(start[parameter.name])
                params[parameter.name] = parameter.from_unit(begin + level * (end - begin))
            else:
                params[parameter.name] = parameter.from_unit(place)
        found.append(space.from_params(params))
    return found


def _spaced(rungs: Sequence[Rung], count: int) -> list[Rung]:
    """Take rungs at about equal steps of cost."""
    if len(rungs) <= count:
        return list(rungs)
    high, low = rungs[0].cost, rungs[-1].cost
    marks = [high + (low - high) * step / (count - 1) for step in range(count)]
    picked = {_nearest(rungs, mark) for mark in marks}
    return [rungs[index] for index in sorted(picked)]


def _nearest(rungs: Sequence[Rung], cost: float) -> int:
    """Return the number of the rung whose cost is nearest."""
    return min(range(len(rungs)), key=lambda index: abs(rungs[index].cost - cost))
