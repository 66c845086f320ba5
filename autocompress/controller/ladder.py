"""A ladder of ever cheaper candidates, by greedy steps of least damage per cost saved."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from autocompress.core.candidate import DEFAULT_CRITERION, UNIFORM, Candidate
from autocompress.space.bound import BoundSpace

LARGEST_DEVIATION = 2.0
"""Nats from the original at which the ladder ends, unless it has to go on: predictions are lost."""

MOST_LOOKS = 10
"""Known moves that are tried anew in a step, at most."""

SMALLEST_SAVING = 0.002
"""Share of the starting cost that a move must save to count."""

STEP = 0.03
"""Share of the starting cost that a rung saves, in as many moves as that takes."""

SMALLEST_DAMAGE = 1e-6
"""Nats that a move is taken to cost at least, so that savings break ties."""

NARROWER = 0.75
"""A move gives a layer's weights at most this share of their bits."""

Costs = Callable[[Sequence[Candidate]], Sequence[float]]
"""Returns the costs of candidates, all at once: one by one they take far longer."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Rung:
    """One candidate of the ladder.

    Attributes:
        candidate: The candidate.
        deviation: KL(original || candidate) on calibration images, in nats; a sum of
            single moves where time for more was short, or predictions were lost before.
        cost: Cost as a fraction of the ladder's first candidate.
    """

    candidate: Candidate
    deviation: float
    cost: float


@dataclass(frozen=True, kw_only=True, slots=True)
class Move:
    """One change that makes a candidate cheaper.

    Attributes:
        kind: "drop", "prune" or "narrow".
        target: The block, group or layer.
        value: The ratio, or the number of weight bits; 0 for a block.
        tied: Names and values of what is tied to the target.
        criterion: How channels are ranked where nothing was pruned before.
        weight_format: Of weights that are narrowed to 2 to 7 bits.
        group_size: Of those.
    """

    kind: str
    target: str
    value: float = 0.0
    tied: tuple[tuple[str, float], ...] = ()
    criterion: str = DEFAULT_CRITERION
    weight_format: str = UNIFORM
    group_size: int = 0

    @property
    def severity(self) -> float:
        """What deviations grow with: squared ratios, or squared steps of grids, of all tied."""
        values = [self.value, *(value for _, value in self.tied)]
        return sum(4.0**-value if self.kind == "narrow" else value**2 for value in values)

    def apply(self, candidate: Candidate) -> Candidate:
        """Return the candidate after the move, canonical."""
        if self.kind == "drop":
            blocks = (*candidate.dropped_blocks, self.target)
            return replace(candidate, dropped_blocks=blocks).canonical()
        values = {self.target: self.value, **dict(self.tied)}
        if self.kind == "prune":
            ratios = {**candidate.pruning_ratios, **values}
            criterion = candidate.criterion if candidate.pruning_ratios else self.criterion
            return replace(candidate, pruning_ratios=ratios, criterion=criterion).canonical()
        layers = {
            name: replace(
                candidate.layer(name),
                weight_bits=int(bits),
                weight_format=self.weight_format if 1 < bits < 8 else UNIFORM,
                group_size=self.group_size,
            )
            for name, bits in values.items()
        }
        return replace(candidate, layers={**candidate.layers, **layers}).canonical()


def build_ladder(
    space: BoundSpace,
    start: Candidate,
    deviation: Callable[[Candidate], float],
    costs: Costs,
    *,
    floor: float = 0.25,
    needed: float = 1.0,
    enough: Callable[[], bool] = lambda: False,
) -> list[Rung]:
    """Climb from a candidate down to cheaper ones.

    A move drops one block, prunes one group to its next width that pays, or
    narrows one layer's weights; what is tied moves together. First every move
    is tried alone: that is the sensitivity pass. A step takes the moves of
    least added deviation per cost saved until it has saved `STEP`. Since a move
    hurts about as much as before, and hardly less, only those that look best are
    tried anew, until the best one is (lazy greedy, Minoux 1978); what a further move of a
    group or layer adds is guessed from the one before. Where time is short, moves that save
    most are tried. Where a limit asks for candidates whose predictions are lost, which training
    brings back, the last rungs are built from what moves did when they were last tried.

    Args:
        space: The space, whose choices the moves take.
        start: Where to begin.
        deviation: Damage of a candidate, in nats.
        costs: Returns the costs of candidates; what the ladder goes down.
        floor: Fraction of the first cost at which to end.
        needed: Fraction of the first cost to which the ladder goes whatever it damages.
        enough: Asked before each evaluation; once True, the rest of the ladder
            is built from the damages known so far, which are added up.

    Returns:
        The rungs from the first candidate down.
    """
    full = costs([start])[0]
    rungs = [Rung(candidate=start, deviation=deviation(start), cost=1.0)]
    damages = _Damages(deviation, enough)
    while rungs[-1].cost > floor:
        here = rungs[-1]
        lost = here.deviation >= LARGEST_DEVIATION
        if lost and here.cost <= needed:
            break
        savings = savings_of_moves(space, here.candidate, costs, full)
        damages.begin(savings, rungs[0] if lost else here)
        candidate, cost, added = here.candidate, here.cost, 0.0
        while here.cost - cost < STEP:
            move = damages.least(candidate, anew=not lost)
            if move is None:
                break
            candidate, added = move.apply(candidate), added + damages.take(move)
            cost = costs([candidate])[0] / full
        if candidate == here.candidate:
            break
        changed = here.deviation + added if lost or enough() else deviation(candidate)
        rungs.append(Rung(candidate=candidate, deviation=changed, cost=cost))
    return rungs


class _Damages:
    """What moves are known, or taken, to add to the deviation; looked up lazily.

    Args:
        deviation: As for `build_ladder`.
        enough: As for `build_ladder`.
    """

    def __init__(self, deviation: Callable[[Candidate], float], enough: Callable[[], bool]) -> None:
        self._deviation, self._enough = deviation, enough
        self._known: dict[Move, float] = {}
        self._taken: dict[tuple[str, str], tuple[float, float]] = {}
        self._savings: dict[Move, float] = {}
        self._fresh: set[Move] = set()
        self._most = 0

    def begin(self, savings: dict[Move, float], base: Rung) -> None:
        """Begin a step from a rung: what nothing is known of is tried, or guessed."""
        self._savings, self._base, self._fresh = dict(savings), base, set()
        for move in sorted(savings, key=lambda move: -savings[move]):
            if move in self._known:
                continue
            severity, damage = self._taken.get((move.kind, move.target), (0.0, 0.0))
            if 0.0 < severity < move.severity:
                growth = move.severity / severity - 1.0
                self._known[move] = max(growth * damage, SMALLEST_DAMAGE)
            elif not self._enough():
                self._look(move)
        self._most = len(self._fresh) + MOST_LOOKS

    def least(self, candidate: Candidate, *, anew: bool) -> Move | None:
        """Return the move that adds least per cost saved to what is standing; None for none.

        Args:
            candidate: What the moves of this step have made so far.
            anew: Whether those that look best are tried at this step's beginning.
        """
        while True:
            left = [m for m in self._savings if m in self._known and not candidate.drops(m.target)]
            if not left:
                return None
            best = min(left, key=lambda move: self._known[move] / self._savings[move])
            tired = len(self._fresh) >= self._most or self._enough()
            if not anew or best in self._fresh or tired:
                return best
            self._look(best)

    def take(self, move: Move) -> float:
        """Count a move as made, and return what it adds."""
        del self._savings[move]
        damage = self._known[move]
        _, before = self._taken.get((move.kind, move.target), (0.0, 0.0))
        self._taken[move.kind, move.target] = move.severity, before + damage
        return damage

    def _look(self, move: Move) -> None:
        added = self._deviation(move.apply(self._base.candidate)) - self._base.deviation
        self._known[move] = max(added, SMALLEST_DAMAGE)
        self._fresh.add(move)


def savings_of_moves(
    space: BoundSpace, candidate: Candidate, costs: Costs, full: float
) -> dict[Move, float]:
    """Return the gentlest moves from a candidate that save enough, and what each saves.

    Args:
        space: The space, whose choices the moves take.
        candidate: Where they begin.
        costs: As for `build_ladder`.
        full: The cost that savings are fractions of.
    """
    moves = [*_moves(space, candidate)]
    here, *found = costs([candidate, *(move.apply(candidate) for move in moves)])
    savings = {move: (here - cost) / full for move, cost in zip(moves, found, strict=True)}
    return _first_that_pays({m: s for m, s in savings.items() if s >= SMALLEST_SAVING})


def _moves(space: BoundSpace, candidate: Candidate) -> Iterator[Move]:
    """Yield all moves from a candidate, gentle ones of a group or layer first."""
    for block in space.blocks:
        if block not in candidate.dropped_blocks:
            yield Move(kind="drop", target=block)
    for groups in space.pruning_knobs:
        standing = [name for name in groups.members if not candidate.drops(name)]
        for level in range(len(groups.levels)) if standing else ():
            ratios = groups.values(level)
            if any(ratios[name] > candidate.pruning_ratios.get(name, 0.0) for name in standing):
                values = [(name, ratios[name]) for name in standing]
                yield _move("prune", values, criterion=space.criteria[0])
    for layers in space.precision_knobs:
        standing = [name for name in layers.members if not candidate.drops(name)]
        now = {name: candidate.layer(name) for name in standing}
        offered = [layers.values(level) for level in range(len(layers.levels))]
        widths = {
            tuple((name, pairs[name][0]) for name in standing)
            for pairs in offered
            if all(pairs[name][1] == now[name].activation_bits for name in standing)
        }
        for bits in sorted(widths, reverse=True) if standing else ():
            shares = [width / now[name].weight_bits for name, width in bits]
            if max(shares) <= 1.0 and min(shares) <= NARROWER:  # ends may have to stay as they are
                written = {"weight_format": space.weight_format, "group_size": space.group_size}
                yield _move("narrow", bits, **written)


def _move(kind: str, values: Sequence[tuple[str, float]], **how: Any) -> Move:
    """Make one move of everything that is tied."""
    return Move(kind=kind, target=values[0][0], value=values[0][1], tied=tuple(values[1:]), **how)


def _first_that_pays(savings: dict[Move, float]) -> dict[Move, float]:
    """Keep the gentlest move of each group and layer; some widths save nothing."""
    kept: dict[tuple[str, str], Move] = {}
    for move in savings:
        kept.setdefault((move.kind, move.target), move)
    return {move: savings[move] for move in kept.values()}
