"""The sensitivity pass: ladders from plain int8 down, by divergence per cost saved."""

import hashlib
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from autocompress.controller.computed import Sensitivities, single_changes
from autocompress.controller.designs import ladder_start
from autocompress.controller.forecast import Forecast
from autocompress.controller.ladder import Costs, Rung, build_ladder, savings_of_moves
from autocompress.controller.ledger import Ledger
from autocompress.controller.run import Run
from autocompress.core.candidate import Candidate
from autocompress.evaluation.splits import SENSITIVITY_IMAGES
from autocompress.space.bound import BoundSpace
from autocompress.space.knobs import Knob

KEEP_SECONDS = 5.0
"""Time between two notes of the deviations that are known."""

LOST = 100.0
"""Nats that count where a candidate's predictions are no numbers."""

KEY_DIGITS = 16
"""Hexadecimal digits that a candidate is known by."""

LADDER_SHARE = 0.08
"""Share of the minutes that the sensitivity pass may take."""

FIRST_LOOKS = 0.4
"""Share of that time in which every first move is to be tried alone."""

FORWARDS = 2.0
"""What a move takes, in forward passes of the original: batch norms are recalibrated, too."""

IMAGES, FEWEST_IMAGES = "sensitivity_images", 96
"""Under which name the study keeps how many images deviations are taken on; where minutes are few,
so many at least."""

FLOOR = 0.25
"""Fraction of plain int8's cost at which ladders end, unless a limit asks for less."""

BELOW = 0.6
"""Fraction of a limit to which ladders go: promoted rungs are spread down to there."""


def find_ladders(run: Run, forecast: Forecast) -> dict[str, list[Rung]]:
    """Build, or read, one ladder for each cost that is an objective."""
    known = run.ledger.get("ladders")
    if known is None:
        run.say("sensitivity", "trying what each block, group and layer is worth")
        costs = [o.name for o in run.setup.objectives if o.name != "accuracy"]
        run.evaluator.look_at(_images(run, forecast, costs))
        deviation = _Remembered(run)
        known = {}
        for name in costs:
            rungs = _ladder(run, forecast, name, deviation, LADDER_SHARE / len(costs))
            known[name] = [
                {"candidate": r.candidate.to_json(), "deviation": r.deviation, "cost": r.cost}
                for r in rungs
            ]
            run.say(
                "sensitivity",
                f"{len(rungs)} candidates down to {rungs[-1].cost:.0%} of plain int8's {name}",
            )
        deviation.keep()
        run.ledger.set("ladders", known)
    return {
        name: [
            Rung(**{**rung, "candidate": Candidate.from_json(rung["candidate"])}) for rung in rungs
        ]
        for name, rungs in known.items()
    }


def known_sensitivities(ledger: Ledger, space: BoundSpace) -> Sensitivities:
    """Return what single changes of the ladders' start did, as far as they were tried."""
    known: dict[str, float] = ledger.get("deviations") or {}
    return Sensitivities.find(space, ladder_start(space), lambda c: known.get(_key(c)))


def keep_sensitivities(run: Run) -> None:
    """Keep in words, for readers of the study, what each change did alone to the ladders' start.

    "sensitivities" of the ledger then has a record for each change that was
    tried: "kind" ("prune", "drop", "precision" or "sparsity"), "part",
    "choice" and "divergence" in nats.
    """
    space: BoundSpace = run.setup.space
    start = ladder_start(space)
    known: dict[str, float] = run.ledger.get("deviations") or {}
    knobs: list[Knob[Any]] = [*space.pruning_knobs, *space.precision_knobs, *space.sparsity_knobs]
    levels = {knob.name: [values[0] for values in knob.levels] for knob in knobs}
    own = space.to_params(start)
    records = []
    for name, changes in single_changes(space, start, lambda c: known.get(_key(c))).items():
        kind, _, part = name.partition(":")
        for level, divergence in changes.items():
            if level != own[name]:
                choice = choice_words(kind, levels[name][level] if name in levels else None)
                records.append(
                    {"kind": kind, "part": part, "choice": choice, "divergence": divergence}
                )
    run.ledger.set("sensitivities", records)


def choice_words(kind: str, value: Any) -> str:
    """Say in words what a level of a parameter of one kind stands for.

    Example:
        >>> choice_words("prune", 0.25), choice_words("precision", (4, 8))
        ('25 %', 'W4A8')
    """
    if kind == "drop":
        return "dropped"
    if kind == "prune":
        return f"{value:.0%}".replace("%", " %")
    first, second = value
    return f"W{first}A{second}" if kind == "precision" else f"{first:.0%} {second}"


def _key(candidate: Candidate) -> str:
    return hashlib.sha256(candidate.to_json().encode()).hexdigest()[:KEY_DIGITS]


class _Remembered:
    """Deviations of candidates, kept in the study so that none is evaluated twice."""

    def __init__(self, run: Run) -> None:
        self.run = run
        self.known: dict[str, float] = dict(run.ledger.get("deviations") or {})
        self.kept = time.monotonic()
        run.evaluator.traces = run.ledger.get("hessian_traces")

    def __call__(self, candidate: Candidate) -> float:
        key = _key(candidate)
        if key not in self.known:
            found = self.run.evaluator.deviation(candidate)
            self.known[key] = found if math.isfinite(found) else LOST
            if time.monotonic() - self.kept > KEEP_SECONDS:
                self.keep()
        return self.known[key]

    def keep(self) -> None:
        """Write what is known to the study."""
        self.run.ledger.set("deviations", self.known)
        self.run.ledger.set("hessian_traces", self.run.evaluator.traces)
        self.run.note_time()
        self.kept = time.monotonic()


def _images(run: Run, forecast: Forecast, names: Sequence[str]) -> int:
    """Return how many images let every first move be tried, about; decided once in a study."""
    known: int | None = run.ledger.get(IMAGES)
    if known is None:
        known = SENSITIVITY_IMAGES
        total, space = run.schedule.total_seconds, run.setup.space
        if total is not None:
            start = ladder_start(space)
            full = forecast.costs(start)
            found = [savings_of_moves(space, start, _costs(forecast, n), full[n]) for n in names]
            moves = len({move for savings in found for move in savings})
            seconds = FIRST_LOOKS * LADDER_SHARE / max(1, len(names)) * total
            affordable = seconds / max(1e-9, moves * FORWARDS * run.evaluator.original_seconds)
            known = int(min(SENSITIVITY_IMAGES, max(FEWEST_IMAGES, affordable)))
        run.ledger.set("deviations", {})  # what an older version had begun was on other images
        run.ledger.set(IMAGES, known)
    return known


def _costs(forecast: Forecast, name: str) -> Costs:
    return lambda candidates: [float(c) for c in forecast.all_costs(candidates, [name])[name]]


def _ladder(
    run: Run,
    forecast: Forecast,
    name: str,
    deviation: Callable[[Candidate], float],
    share: float,
) -> list[Rung]:
    total, begun = run.schedule.total_seconds, run.schedule.elapsed
    start = ladder_start(run.setup.space)
    limit = forecast.allowance(start).get(name, 1.0)
    needed = BELOW * limit if limit < 1.0 else 1.0

    def enough() -> bool:
        return total is not None and run.schedule.elapsed - begun > share * total

    return build_ladder(
        run.setup.space,
        start,
        deviation,
        _costs(forecast, name),
        floor=min(FLOOR, needed),
        needed=needed,
        enough=enough,
    )
