"""A ladder of ever cheaper candidates, by greedy steps of least damage per cost saved."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace

from autocompress.core.candidate import Candidate
from autocompress.space.bound import BoundSpace

FRESH_LOOKS = 3
"""Moves that are evaluated anew at each step; the rest keep earlier estimates."""

LARGEST_DEVIATION = 2.0
"""Nats from the original at which the ladder ends: predictions are lost by then."""

SMALLEST_SAVING = 0.002
"""Share of the starting cost that a move must save to count."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One candidate of the ladder.

    Attributes:
        candidate: The candidate.
        deviation: KL(original || candidate) on calibration images, in nats.
        cost: Cost as a fraction of the ladder's first candidate.
    """

    candidate: Candidate
    deviation: float
    cost: float


def build_ladder(
    space: BoundSpace,
    start: Candidate,
    deviation: Callable[[Candidate], float],
    cost: Callable[[Candidate], float],
    *,
    floor: float = 0.3,
    on_look: Callable[[int], None] | None = None,
    enough: Callable[[], bool] = lambda: False,
) -> list[Rung]:
    """Climb from a candidate to cheaper ones, one move at a time.

    A move drops one block, prunes one group to its next width that pays, or
    narrows one layer's weights. Each step takes the move with the least added
    deviation per cost saved. First every move is tried alone; afterwards only
    the few that look best are tried again at each step, since a move hurts
    about as much as it did before (lazy greedy, Minoux 1978).

    Args:
        space: The space, whose choices the moves take.
        start: Where to begin.
        deviation: Damage of a candidate, in nats.
        cost: Cost of a candidate; what the ladder goes down.
        floor: Fraction of the first cost at which to end.
        on_look: Called with the number of candidates tried so far.
        enough: Asked before each trial of a move; True ends the ladder.

    Returns:
        The rungs from the first candidate down.
    """
    full = cost(start)
    rungs = [Rung(candidate=start, deviation=deviation(start), cost=1.0)]
    damage: dict[tuple[str, str], float] = {}
    looks = 0
    while rungs[-1].cost > floor and rungs[-1].deviation < LARGEST_DEVIATION:
        here = rungs[-1]
        options: list[tuple[tuple[str, str], Candidate, float]] = []
        for key, candidate in _moves(space, here.candidate, cost, full):
            options.append((key, candidate, here.cost - cost(candidate) / full))
        unseen = [option for option in options if option[0] not in damage]
        ranked = sorted(options, key=lambda option: damage.get(option[0], 0.0) / option[2])
        tried: list[tuple[float, Rung]] = []
        looked_at: set[tuple[str, str]] = set()
        for key, candidate, saving in (*unseen, *ranked[:FRESH_LOOKS]):
            if key in looked_at:
                continue
            if enough():
                return rungs
            looked_at.add(key)
            found = deviation(candidate)
            damage[key] = max(found - here.deviation, 1e-6)
            rung = Rung(candidate=candidate, deviation=found, cost=here.cost - saving)
            tried.append((damage[key] / saving, rung))
            looks += 1
            if on_look is not None:
                on_look(looks)
        if not tried:
            break
        rungs.append(min(tried, key=lambda entry: entry[0])[1])
    return rungs


def _moves(
    space: BoundSpace, candidate: Candidate, cost: Callable[[Candidate], float], full: float
) -> Iterator[tuple[tuple[str, str], Candidate]]:
    """Yield the moves that save cost, each with what it changes."""
    before = cost(candidate)
    for block in space.blocks:
        if block not in candidate.dropped_blocks:
            dropped = replace(candidate, dropped_blocks=(*candidate.dropped_blocks, block))
            if before - cost(dropped.canonical()) >= SMALLEST_SAVING * full:
                yield ("drop", block), dropped.canonical()
    for group, ratios in space.pruning_choices.items():
        if candidate.drops(group):
            continue
        current = candidate.pruning_ratios.get(group, 0.0)
        for ratio in ratios:
            if ratio <= current:
                continue
            pruned = replace(
                candidate, pruning_ratios={**candidate.pruning_ratios, group: ratio}
            )
            if before - cost(pruned) >= SMALLEST_SAVING * full:
                yield (f"prune {ratio:g}", group), pruned
                break
    for layer in space.layers:
        if candidate.drops(layer):
            continue
        now = candidate.layer(layer)
        narrower = [
            (weight, activation)
            for weight, activation in space.layer_precisions
            if weight < now.weight_bits and activation <= now.activation_bits
        ]
        for weight, activation in sorted(narrower, reverse=True):
            config = replace(now, weight_bits=weight, activation_bits=activation)
            narrowed = replace(candidate, layers={**candidate.layers, layer: config})
            if before - cost(narrowed) >= SMALLEST_SAVING * full / 4:
                yield (f"narrow {weight}", layer), narrowed
                break
