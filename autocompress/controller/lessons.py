"""What temperature and weight of the distillation suit: learned on representatives."""

import itertools
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

from autocompress.controller.designs import BASELINES
from autocompress.controller.forecast import Forecast
from autocompress.controller.run import Run
from autocompress.controller.schedule import FEWEST_FINALISTS
from autocompress.core.budget import FINALIST_SHARE
from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.errors import StorageError, StudyError, describe
from autocompress.space.bound import BoundSpace

KINDS = ("low-bit", "pruned", "8-bit")
"""Kinds of candidates, each with lessons of its own; the first that fits counts."""

LEVELS = (0.15, 0.85)
"""Where in its range each number of the distillation is tried."""

REPRESENTATIVES = "lesson_candidates"
"""What the study keeps them under, by their kind."""

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
    minutes would not train the fewest of them well: then they need all there is.
    """
    space, share = run.setup.space, run.setup.training.learning_share
    settings = lesson_settings(space)
    if share == 0.0 or len(settings) < 2:
        return
    found: list[dict[str, Any]] = run.ledger.get("lessons", [])
    if not found and not _has_time(run):
        return
    chosen = _representatives(run, forecast, _room(run, share) // 2)
    pairs = [(kind, setting) for setting in settings for kind in chosen]
    tried = [(lesson["kind"], lesson["distill"]) for lesson in found]
    for number, (kind, setting) in enumerate(pairs):
        if (kind, asdict(setting)) in tried:
            continue
        if not _affordable(run, share, found):
            break
        if not found:
            run.say("lessons", "comparing temperatures and weights of the distillation")
        taught = replace(chosen[kind], distill=setting)
        lesson = _lesson(run, taught, number)
        found.append({"kind": kind, "distill": asdict(setting), **lesson})
        run.ledger.set("lessons", found)
        run.say("lessons", f"lesson {number + 1} of at most {len(pairs)} is over")
    for kind, setting in best_lessons(found).items():
        run.say(
            "lessons",
            f"{kind} finalists take temperature {setting.temperature:.2g} "
            f"and kd_weight {setting.kd_weight:.2g}",
        )


def _lesson(run: Run, candidate: Candidate, number: int) -> dict[str, Any]:
    """Train a candidate from the original; return its accuracy on `val`, or how it failed."""
    slot, begun = LESSON_SLOT + number, time.monotonic()
    run.evaluator.forget(slot)  # of a run that was killed after its training
    accuracy, failure = None, ""
    try:
        _, result = run.evaluator.train(
            candidate,
            slot=slot,
            images=run.schedule.short_images,
            seconds=run.schedule.short_seconds,
            on_step=run.watch("lessons", f"lesson {number + 1}"),
            inherit=False,
        )
        accuracy = result.accuracy
    except (StorageError, StudyError):
        raise
    except Exception as error:  # a lesson fails alone, whatever it was
        failure = describe(error)
        run.say("lessons", f"lesson {number + 1} failed: {failure}")
    run.evaluator.forget(slot)
    return {"accuracy": accuracy, "failure": failure, "seconds": time.monotonic() - begun}


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
        lessons = [x for x in found if x["kind"] == kind and x["accuracy"] is not None]
        if len(lessons) > 1:
            most = max(lessons, key=lambda lesson: lesson["accuracy"])
            best[kind] = DistillConfig(**most["distill"])
    return best


def taught_candidate(run: Run, candidate: Candidate) -> Candidate:
    """Give a finalist the distillation that suits its kind, if that was learned."""
    best = best_lessons(run.ledger.get("lessons", []))
    return replace(candidate, distill=best.get(kind_of(candidate), candidate.distill))


def _has_time(run: Run) -> bool:
    """Tell whether the finalists' minutes train a few of them well; decided once in a study."""
    total, speed = run.schedule.total_seconds, run.evaluator.seconds_per_image
    if total is None or speed == 0.0:  # without a training, there is no share of it, either
        return total is None
    key = f"lessons within {total:g} s"
    if run.ledger.get(key) is None:
        finalists = min(FEWEST_FINALISTS, run.schedule.budget.finalists or FEWEST_FINALISTS)
        needed = finalists * run.schedule.worthwhile_images * speed * run.usual_pace
        enough = FINALIST_SHARE * total >= needed
        run.ledger.set(key, bool(enough))
    return bool(run.ledger.get(key))


def _affordable(run: Run, share: float, found: Sequence[Mapping[str, Any]]) -> bool:
    """Tell whether another lesson fits into the share; one alone would teach nothing."""
    room = _room(run, share)
    if run.schedule.total_seconds is None:
        return room >= 2 and len(found) < room
    spent = sum(lesson["seconds"] for lesson in found)
    return room >= 2 and spent + 0.5 * _each(run) < _seconds(run, share)


def _room(run: Run, share: float) -> int:
    """Return how many lessons the share has room for."""
    if run.schedule.total_seconds is None:
        return round(share / max(1e-9, 1.0 - share) * len(_trained(run)))
    return int(_seconds(run, share) // max(1e-9, _each(run)))


def _seconds(run: Run, share: float) -> float:
    """Return the share of what is spent on training."""
    total = FINALIST_SHARE * (run.schedule.total_seconds or 0.0)
    return share * (total + sum(result.seconds for result in _trained(run)))


def _each(run: Run) -> float:
    """Return what a lesson takes: as much as the short fine-tunes did, within their limit."""
    limit = run.schedule.short_seconds or 0.0
    seconds = [result.seconds for result in _trained(run)]
    return min(limit, sum(seconds) / len(seconds)) if seconds else limit


def _trained(run: Run) -> list[FidelityResult]:
    return [e.fidelities[1] for e in run.ledger.evaluations() if 1 in e.fidelities]


def _representatives(run: Run, forecast: Forecast, kinds: int) -> dict[str, Candidate]:
    """Choose one evaluated candidate of each kind: the cheapest that promises to be feasible.

    They stay for the study, since lessons compare trainings of one candidate.
    """
    kept: dict[str, str] = run.ledger.get(REPRESENTATIVES, {})
    if not kept:
        known = [e for e in run.ledger.evaluations() if e.fidelities and not e.failed]
        known = [e for e in known if e.origin not in BASELINES]
        chosen: dict[str, Evaluation] = {}
        for evaluation in sorted(known, key=lambda e: (_badness(forecast, e), e.slot)):
            chosen.setdefault(kind_of(evaluation.candidate), evaluation)
        found = [kind for kind in KINDS if kind in chosen][:kinds]
        kept = {kind: chosen[kind].candidate.to_json() for kind in found}
        run.ledger.set(REPRESENTATIVES, kept)
    return {kind: Candidate.from_json(kept[kind]) for kind in KINDS if kind in kept}


def _badness(forecast: Forecast, evaluation: Evaluation) -> tuple[float, float]:
    values = forecast.values(evaluation)
    return max(0.0, *forecast.violations(values).values(), 0.0), values["size_bytes"]
