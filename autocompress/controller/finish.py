"""What a search ends with: finalists trained, exported, and measured side by side."""

import functools
import time
from collections.abc import Collection, Sequence

import numpy as np

from autocompress.controller.designs import BASELINES
from autocompress.controller.finalists import Finalist, choose_finalists
from autocompress.controller.forecast import Forecast
from autocompress.controller.lessons import taught_candidate
from autocompress.controller.run import Run
from autocompress.controller.schedule import FEWEST_FINALISTS
from autocompress.controller.start import refit_profile
from autocompress.core.budget import FINALIST_SHARE, Budget
from autocompress.core.evaluation import FidelityResult
from autocompress.errors import MismatchError, StorageError, StudyError, describe

FINALISTS = 6
"""Members that a search adds to those it wrote on its way, where no time is set."""

FAILED, BEGUN = "finalist_failures", "finalists_begun"
"""What the study keeps: reasons by name, and how many finalists there were when those of a
budget began, by the budget."""

VIEWS, TEACHERS_SHARE = "views", 0.25
"""Under which name the study keeps how many epochs are drawn, and which share of the finalists'
time teachers may take for answers to those."""

MOST_FINALISTS = 10
"""Finalists where the time allows to train that many well."""

LAST_SECONDS = 40.0
"""Longest measurement of all members side by side."""


def train_finalists(run: Run, forecast: Forecast) -> None:
    """Fine-tune, export and verify the candidates that span the predicted front.

    They are chosen anew after each one, since what was measured on it corrects
    the predictions for the others. A study that goes on with a larger budget
    has further ones.
    """
    done, failed = set(run.ledger.get("finalists", [])), set[int]()
    earlier = _trained_before(run, len(done))
    while True:
        forecast.profile = refit_profile(run, forecast.profile)
        waiting = _choose(run, forecast, done, failed, earlier)
        if not waiting:
            return
        if not done and not failed:
            run.say("finalists", f"fine-tuning and exporting {len(waiting)} finalists")
        left, slot = run.schedule.seconds_left, waiting[0].evaluation.slot
        if left is not None and left < 0.5 * run.seconds_per_member and len(done) > earlier + 1:
            run.say("finalists", "the budget is spent; the other finalists wait for more")
            return
        try:
            _finalist(run, waiting[0], waiting)
        except (StorageError, StudyError):
            raise
        except Exception as error:  # a finalist fails alone, whatever it was
            run.say("finalists", f"finalist {slot} failed: {describe(error)}")
            run.ledger.set(FAILED, {**run.ledger.get(FAILED, {}), f"{slot:04d}": describe(error)})
            failed.add(slot)
            continue
        done.add(f"{slot:04d}")


def limit_views(run: Run) -> None:
    """Let epochs come again so soon that teachers take no more than their share of the minutes.

    Short fine-tunes draw from them, too. Decided once in a study, so that an interrupted
    training draws the same epochs.
    """
    total = run.schedule.total_seconds
    if total is None or run.setup.training.recipe.views is not None:
        return
    answers = run.evaluator.answers
    if run.ledger.get(VIEWS) is None:
        teachers = 1 + len(run.evaluator.teachers)
        epoch = teachers * run.evaluator.original_seconds * run.setup.epoch_images
        room = int(TEACHERS_SHARE * FINALIST_SHARE * total / max(1e-9, epoch))
        run.ledger.set(VIEWS, max(1, min(answers.views, room)))
    answers.views = min(answers.views, run.ledger.get(VIEWS))


def _trained_before(run: Run, done: int) -> int:
    """Return how many finalists smaller budgets of the study had."""
    budget = run.schedule.budget
    minutes = None if budget.minutes is None else float(budget.minutes)
    key = f"{budget.trials} trials, {minutes} minutes"
    begun: dict[str, int] = run.ledger.get(BEGUN, {})
    if key not in begun:
        begun[key] = done if begun else 0
        run.ledger.set(BEGUN, begun)
    return begun[key]


def _choose(
    run: Run, forecast: Forecast, done: Collection[str], failed: Collection[int], earlier: int
) -> list[Finalist]:
    """Choose those that the budget still has room for, the least compressed first."""
    evaluations = [e for e in run.ledger.evaluations() if e.fidelities and not e.failed]
    evaluations = [e for e in evaluations if e.slot not in failed]
    over, left = len(done) - earlier + len(failed), run.schedule.seconds_left
    room = most_finalists(run.schedule.budget) - over
    if left is not None:
        room = min(int(left // (1.5 * run.seconds_per_member)), _worthwhile(run, left, over))
    if room <= 0 or not evaluations:
        return []
    forecast.learn([*run.setup.earlier.evaluations, *evaluations])
    values = [forecast.values(e) for e in evaluations]
    violations = [max(forecast.violations(v).values(), default=0.0) for v in values]
    return choose_finalists(
        evaluations,
        values,
        np.array([forecast.losses(v) for v in values]),
        np.array(violations),
        forecast.reference(),
        [forecast.gap(e) for e in evaluations],
        forecast.baseline["accuracy"],
        room,
        [e.slot for e in evaluations if e.origin in BASELINES or f"{e.slot:04d}" in done],
    )


def most_finalists(budget: Budget) -> int:
    """Return how many finalists a budget has at most."""
    if budget.finalists is not None:
        return budget.finalists
    return FINALISTS if budget.minutes is None else MOST_FINALISTS


def _worthwhile(run: Run, seconds: float, over: int) -> int:
    """Return how many more finalists the time can train well, at the speed of earlier training."""
    asked = run.schedule.budget.finalists
    if asked is not None or run.evaluator.seconds_per_image == 0.0:
        return (asked or FEWEST_FINALISTS) - over
    speed = run.evaluator.seconds_per_image * run.usual_pace
    each = run.schedule.worthwhile_images * speed
    trained_well = int(seconds // (each + run.seconds_per_member))
    return min(MOST_FINALISTS - over, max(FEWEST_FINALISTS - over, trained_well, 0))


def finalist_images(run: Run, pace: float) -> int:
    """Return how many training images are expected behind a finalist.

    Each goes on from the weights of an earlier one, so that the last has seen
    the images of all, and one in the middle those of half of them.

    Args:
        run: The search.
        pace: Of the finalist, and of those before it; it counts where minutes are budgeted.
    """
    total, each = run.schedule.total_seconds, run.evaluator.seconds_per_image * pace
    if total is None or each == 0.0:
        return run.schedule.full_images
    seconds = FINALIST_SHARE * total
    finalists = _worthwhile(run, seconds, 0)
    share = seconds / finalists - run.seconds_per_member
    return max(1, int(0.5 * (finalists + 1) * share / each))


def measure_members(run: Run, forecast: Forecast) -> None:
    """Measure all members in one interleaved run, and write the front and the profile."""
    members = run.members()
    if len(members) > 1:
        run.say("measure", f"measuring {len(members)} members side by side")
        run.measure(members, seconds=_measuring_seconds(run))
    profile = refit_profile(run, forecast.profile)
    profile.save(run.setup.study_dir / "profile.json")
    run.update_front()


def _finalist(run: Run, finalist: Finalist, waiting: Sequence[Finalist]) -> None:
    evaluation = finalist.evaluation
    name = f"{evaluation.slot:04d}"
    seconds, images = None, run.schedule.full_images
    if run.schedule.seconds_left is not None:
        each = run.seconds_per_member + run.added_seconds
        reserved = len(waiting) * each + _measuring_seconds(run)
        usable = max(0.0, run.schedule.seconds_left - reserved)
        shares = sum(f.share for f in waiting) or 1.0
        seconds = usable * finalist.share / shares
        images = 100 * run.setup.epoch_images
    # A run that was killed may not have come to write the member.
    is_trained = run.evaluator.is_trained(evaluation.slot)
    if is_trained or finalist.share == 0.0 or (seconds is not None and seconds < 1.0):
        images = 0
    begun = time.monotonic()
    model, trained = run.evaluator.fine_tune(
        taught_candidate(run, evaluation.candidate),
        slot=evaluation.slot,
        images=images,
        seconds=seconds,
        on_step=run.watch("finalists", f"finalist {evaluation.slot}"),
        fidelity=2,
        inherit=finalist.share > 0.0 and not is_trained,
    )
    spent = time.monotonic() - begun
    write = functools.partial(
        run.write_member, name, model, finalist.predicted, origin=evaluation.origin
    )
    try:
        member = write(trained_images=trained)
    except MismatchError as error:  # perhaps by chance: on other grids they round otherwise
        if not run.evaluator.calibrate_anew(model):
            raise
        run.say("finalists", f"finalist {evaluation.slot} was calibrated anew: {describe(error)}")
        member = write(trained_images=trained)
    result = FidelityResult(
        accuracy=member.measured["val_accuracy"],
        images=member.measured["val_images"],
        trained_images=trained,
        seconds=spent,
    )
    run.ledger.record_final(evaluation.slot, result)
    member = run.add_member(member)
    run.ledger.set("finalists", sorted({*run.ledger.get("finalists", []), name}))
    failures = run.ledger.get(FAILED, {})
    if name in failures:  # in an earlier run
        del failures[name]
        run.ledger.set(FAILED, failures)
    if images > 0 and seconds is not None and spent >= seconds:  # it took all its time
        run.note_member(time.monotonic() - begun - seconds - run.added_seconds)
    run.say("finalists", f"member {name} is on disk", member=member)


def _measuring_seconds(run: Run) -> float:
    return run.schedule.at_most(LAST_SECONDS, 0.025)
