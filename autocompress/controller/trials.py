"""The trials: the proxy for all, a short fine-tune for those that promise most."""

import functools
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import numpy as np
from optuna.samplers import BaseSampler

from autocompress.controller.computed import joint_sampler
from autocompress.controller.current import Judgement
from autocompress.controller.designs import BASELINES
from autocompress.controller.forecast import Forecast
from autocompress.controller.progress import Progress
from autocompress.controller.run import Run
from autocompress.controller.sampler import Guide, make_sampler
from autocompress.controller.sensitivity import known_sensitivities
from autocompress.controller.ticket import Ticket
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.core.pareto import non_dominated_rank
from autocompress.core.seeds import derive_seed
from autocompress.errors import (
    ExportError,
    SearchFailedError,
    StorageError,
    StudyError,
    explain,
)
from autocompress.transform.compressed import CompressedModel

EARLY_MEMBERS = 2
"""Trained candidates that become members before the finalists do."""

FAILURES_IN_A_ROW = 6
"""Failed trials in a row that stop a search."""

PROMOTED_SHARE = 1 / 3
"""Share of the trials, by predicted rank, that are worth a short fine-tune."""

COST_SLACK = 0.1
"""Predicted violation of a cost's limit, as a fraction of it, that still gets a trial.

Where no design meets the limits, it is taken from the nearest of them, so that
the search shows how near a candidate comes.
"""

CAUTION = 1.0
"""Standard deviations by which samplers see what was not trained below its prediction."""

PARENT_RANK = 1
"""Non-dominated rank up to which an evaluated candidate may be mutated."""


def run_trials(run: Run, forecast: Forecast) -> None:
    """Ask, evaluate and tell until the trials' share of the budget is spent.

    Raises:
        SearchFailedError: If `FAILURES_IN_A_ROW` trials failed one after the other.
    """
    failures: list[str] = []
    propose, progress = _sampler(run, forecast), Progress(run, forecast)
    while not (run.schedule.trials_over(run.ledger.finished) or progress.is_enough()):
        ticket = run.ledger.ask(run.setup.space, propose, _guide(run, forecast))
        progress.tell()
        try:
            _trial(run, forecast, ticket)
            failures.clear()
        except (StorageError, StudyError):
            raise
        except Exception as error:  # a trial fails alone, whatever it was
            reason = f"{type(error).__name__}: {error}"
            run.ledger.fail(ticket, reason)
            run.say("trials", f"trial {ticket.slot} failed: {reason}")
            failures.append(reason)
            if len(failures) >= FAILURES_IN_A_ROW:
                raise SearchFailedError(
                    explain(
                        "search",
                        expected="trials that succeed",
                        got=f"{len(failures)} failures in a row, mostly "
                        f"'{Counter(failures).most_common(1)[0][0]}'",
                        remedy="mend the cause and run the same command again",
                    )
                ) from error
    progress.conclude()


def _sampler(run: Run, forecast: Forecast) -> Callable[[int], BaseSampler]:
    """Return what makes the sampler of a slot; one that remembers trials serves all slots."""
    name, seed, space = run.setup.sampler, run.setup.seed, run.setup.space
    if name == "joint":
        own = derive_seed(seed, -1, "sampler")
        known = known_sensitivities(run.ledger, space)
        lasting: BaseSampler = joint_sampler(space, forecast, known, own)
    elif name == "haq":
        lasting = make_sampler(name, seed, 0)
    else:
        return functools.partial(make_sampler, name, seed)
    return lambda _: lasting


def _trial(run: Run, forecast: Forecast, ticket: Ticket) -> None:
    costs = forecast.costs(ticket.candidate)
    evaluation = Evaluation(
        slot=ticket.slot, candidate=ticket.candidate, origin=ticket.origin, costs=costs
    )
    worst, violation = _worst(forecast, ticket.candidate)
    if violation > _allowed(run, forecast) and ticket.origin not in BASELINES:
        run.ledger.prune(ticket, f"predicted {worst} is {violation:.0%} over its limit")
        run.say("trials", f"trial {ticket.slot} stopped: {worst} over its limit")
        return
    evaluation = _reached(run, ticket, evaluation, 0, run.evaluator.proxy(ticket.candidate))
    if _promoted(run, forecast, ticket, evaluation):
        run.evaluator.forget(ticket.slot)
        model, result = run.evaluator.train(
            ticket.candidate,
            slot=ticket.slot,
            images=run.schedule.short_images,
            seconds=run.schedule.short_seconds,
            on_step=run.watch("trials", f"trial {ticket.slot}"),
        )
        evaluation = _reached(run, ticket, evaluation, 1, result)
        forecast.learn([*run.evaluations(), evaluation])
        _early_member(run, forecast, model, evaluation)
    values = forecast.values(evaluation)
    evaluation = replace(evaluation, predicted_accuracy=values["accuracy"])
    counted = {key: value for key, value in costs.items() if key != "latency_ms"}
    run.ledger.complete(
        ticket,
        forecast.losses(values),
        counted
        | {
            "latency_ms_predicted": costs["latency_ms"],
            "profile_version": forecast.profile.version,
        },
        values["accuracy"],
        forecast.violations(values),
    )
    if ticket.origin in BASELINES:
        run.store.predict(f"{ticket.slot:04d}", values)
    run.say("trials", f"trial {ticket.slot} ({ticket.origin})", evaluation=evaluation)


def _worst(forecast: Forecast, candidate: Candidate) -> tuple[str, float]:
    """Name the cost that is furthest over its limit, and by what fraction of it."""
    over = forecast.violations(forecast.costs(candidate) | {"accuracy": 1.0})
    return max(over.items(), key=lambda item: item[1], default=("", 0.0))


def _allowed(run: Run, forecast: Forecast) -> float:
    """Return the violation that still gets a trial: `COST_SLACK` more than the nearest design's."""
    designs = map(run.setup.space.from_params, run.ledger.designs())
    nearest = min((_worst(forecast, candidate)[1] for candidate in designs), default=0.0)
    return max(0.0, nearest) + COST_SLACK


def _guide(run: Run, forecast: Forecast) -> Guide:
    """Say what is worth a trial: what costs allow, near the best of those that were evaluated."""
    allowed = _allowed(run, forecast)

    def affordable(candidate: Candidate) -> bool:
        return _worst(forecast, candidate)[1] <= allowed

    known = [e for e in run.ledger.evaluations() if 0 in e.fidelities and affordable(e.candidate)]

    def judge(evaluation: Evaluation) -> Judgement:
        values = forecast.values(evaluation, caution=CAUTION)
        return Judgement(losses=forecast.losses(values), violations=forecast.violations(values))

    earlier = run.setup.earlier.evaluations
    if not known:
        return Guide(affordable=affordable, judge=judge, earlier=earlier)
    table = [forecast.losses(forecast.values(e)) for e in known]
    ranks = non_dominated_rank(np.array(table))
    best = [e.candidate for e, rank in zip(known, ranks, strict=True) if rank <= PARENT_RANK]
    return Guide(affordable=affordable, parents=tuple(best), judge=judge, earlier=earlier)


def _reached(
    run: Run, ticket: Ticket, evaluation: Evaluation, fidelity: int, result: FidelityResult
) -> Evaluation:
    run.ledger.record(ticket, fidelity, result)
    return replace(evaluation, fidelities={**evaluation.fidelities, fidelity: result})


def _promoted(run: Run, forecast: Forecast, ticket: Ticket, evaluation: Evaluation) -> bool:
    """Tell whether a proxied candidate gets a short fine-tune."""
    others = [e for e in run.ledger.evaluations() if 0 in e.fidelities]
    spent = sum(e.fidelities[1].seconds for e in others if 1 in e.fidelities)
    if not run.schedule.may_train(spent):
        return False
    if ticket.attributes.get("promote"):
        return True
    if ticket.origin in BASELINES or len(others) < 6:
        return False
    table = [forecast.losses(forecast.values(e)) for e in (*others, evaluation)]
    ranks = non_dominated_rank(np.array(table))
    trained = sum(1 in e.fidelities for e in others)
    best = ranks[-1] <= np.quantile(ranks, PROMOTED_SHARE)
    return bool(best) and trained < PROMOTED_SHARE * (len(others) + 1)


def _early_member(
    run: Run, forecast: Forecast, model: CompressedModel, evaluation: Evaluation
) -> None:
    """Export a trained candidate at once, so that an early stop leaves a front."""
    name = f"{evaluation.slot:04d}"
    written = {member.id for member in run.members()}
    if len(written) >= len(BASELINES) + EARLY_MEMBERS or name in written:
        return
    try:
        member = run.write_member(
            name,
            model,
            forecast.values(evaluation),
            origin=evaluation.origin,
            trained_images=evaluation.fidelities[1].trained_images,
        )
    except ExportError as error:
        run.say("trials", f"trial {evaluation.slot} was not exported: {error}")
        return
    member = run.add_member(member)
    run.say("trials", f"member {name} is on disk", member=member)
