"""What temperature and weight of the distillation suit: learned on representatives."""

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from autocompress.controller.designs import BASELINES
from autocompress.controller.forecast import Forecast
from autocompress.controller.run import Run
from autocompress.core.budget import FINALIST_SHARE
from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.core.evaluation import Evaluation
from autocompress.space.bound import BoundSpace

KINDS = ("low-bit", "pruned", "8-bit")
"""Kinds of candidates, each with lessons of its own; the first that fits counts."""

LEVELS = (0.15, 0.85)
"""Where in its range each number of the distillation is tried."""

LESSON_SLOT = 90_000
"""Slots of the trainings, apart from those of trials."""


def kind_of(candidate: Candidate) -> str:
    """Say what is most delicate about a candidate.

    Example:
        >>> kind_of(Candidate(pruning_ratios={"conv1": 0.5}))
        'pruned'
    """
    if any(bits < 8 for bits in candidate.weight_bits().values()):
        return KINDS[0]
    return KINDS[1] if candidate.pruning_ratios or candidate.dropped_blocks else KINDS[2]


def learn_distillation(run: Run, forecast: Forecast) -> None:
    """Train a representative of each kind with several distillations, and keep what they reach.

    They take `learning_share` of what is spent on training, in time where
    minutes are budgeted, else in number. Nothing is learned where the space fixes the
    distillation, where there is too little for two trainings, or where the finalists'
    minutes would not train one of them well: then they need all there is.
    """
    space, share = run.setup.space, run.setup.training.learning_share
    settings = lesson_settings(space)
    if share == 0.0 or len(settings) < 2:
        return
    found: list[dict[str, Any]] = run.ledger.get("lessons", [])
    if not found and not _has_time(run):
        return
    chosen = _representatives(run, forecast)
    pairs = [(kind, setting) for setting in settings for kind in chosen]
    for number, (kind, setting) in enumerate(pairs):
        if number < len(found):
            continue
        if not _affordable(run, share, found):
            break
        if not found:
            run.say("lessons", "comparing temperatures and weights of the distillation")
        slot = LESSON_SLOT + number
        _, result = run.evaluator.train(
            replace(chosen[kind].candidate, distill=setting),
            slot=slot,
            images=run.schedule.short_images,
            seconds=run.schedule.short_seconds,
            on_step=run.watch("lessons", f"lesson {number + 1}"),
            inherit=False,
        )
        run.evaluator.forget(slot)
        found.append(
            {
                "kind": kind,
                "distill": asdict(setting),
                "accuracy": result.accuracy,
                "seconds": result.seconds,
            }
        )
        run.ledger.set("lessons", found)
    for kind, setting in best_lessons(found).items():
        run.say(
            "lessons",
            f"{kind} finalists take temperature {setting.temperature:.2g} "
            f"and kd_weight {setting.kd_weight:.2g}",
        )


def lesson_settings(space: BoundSpace) -> list[DistillConfig]:
    """List the distillations that are compared: corners of the space's ranges, the middle first."""
    free = [p for p in space.distillation if p.low < p.high]
    fixed = {p.name: p.low for p in space.distillation if p.low == p.high}
    marks = [(0.5,) * len(free), *itertools.product(LEVELS, repeat=len(free))] if free else []
    return [
        DistillConfig(
            method=space.method,
            **fixed,
            **{p.name: p.settle(p.from_unit(u)) for p, u in zip(free, units, strict=True)},
        )
        for units in marks
    ]


def best_lessons(found: Sequence[Mapping[str, Any]]) -> dict[str, DistillConfig]:
    """Return the distillation that reached most, for each kind with more than one lesson."""
    best = {}
    for kind in KINDS:
        lessons = [lesson for lesson in found if lesson["kind"] == kind]
        if len(lessons) > 1:
            most = max(lessons, key=lambda lesson: lesson["accuracy"])
            best[kind] = DistillConfig(**most["distill"])
    return best


def taught_candidate(run: Run, candidate: Candidate) -> Candidate:
    """Give a finalist the distillation that suits its kind, if that was learned."""
    best = best_lessons(run.ledger.get("lessons", []))
    return replace(candidate, distill=best.get(kind_of(candidate), candidate.distill))


def _has_time(run: Run) -> bool:
    """Tell whether the finalists' minutes train one of them well; decided once in a study."""
    total, speed = run.schedule.total_seconds, run.evaluator.seconds_per_image
    if total is None:
        return True
    key = f"lessons within {total:g} s"
    if run.ledger.get(key) is None:
        enough = FINALIST_SHARE * total >= run.schedule.worthwhile_images * speed
        run.ledger.set(key, bool(enough))
    return bool(run.ledger.get(key))


def _affordable(run: Run, share: float, found: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether another lesson fits into the share; one alone would teach nothing."""
    trained = [e.fidelities[1] for e in run.ledger.evaluations() if 1 in e.fidelities]
    total = run.schedule.total_seconds
    if total is None:
        allowed = round(share / max(1e-9, 1.0 - share) * len(trained))
        return allowed >= 2 and len(found) < allowed
    seconds = share * (FINALIST_SHARE * total + sum(result.seconds for result in trained))
    each = run.schedule.short_seconds or 0.0
    spent = sum(lesson["seconds"] for lesson in found)
    return 2.0 * each <= seconds and spent + 0.5 * each < seconds


def _representatives(run: Run, forecast: Forecast) -> dict[str, Evaluation]:
    """Choose one evaluated candidate of each kind: the cheapest that promises to be feasible."""
    known = [e for e in run.ledger.evaluations() if e.fidelities and e.origin not in BASELINES]
    chosen: dict[str, Evaluation] = {}
    for evaluation in sorted(known, key=lambda e: (_badness(forecast, e), e.slot)):
        chosen.setdefault(kind_of(evaluation.candidate), evaluation)
    return {kind: chosen[kind] for kind in KINDS if kind in chosen}


def _badness(forecast: Forecast, evaluation: Evaluation) -> tuple[float, float]:
    values = forecast.values(evaluation)
    return max(0.0, *forecast.violations(values).values(), 0.0), values["size_bytes"]
