"""The trials: the proxy for all, a short fine-tune for those that promise most."""

import functools
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from optuna.samplers import BaseSampler

from autocompress.controller.computed import joint_sampler
from autocompress.controller.current import Judgement
from autocompress.controller.designs import BASELINES
from autocompress.controller.forecast import Forecast
from autocompress.controller.pools import open_pool
from autocompress.controller.progress import Progress
from autocompress.controller.run import Run
from autocompress.controller.sampler import Guide, make_sampler
from autocompress.controller.sensitivity import known_sensitivities
from autocompress.controller.ticket import Ticket
from autocompress.controller.work import Outcome, Work, WorkPool
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation
from autocompress.core.files import write_bytes
from autocompress.core.pareto import non_dominated_rank
from autocompress.core.seeds import derive_seed
from autocompress.errors import (
    ExportError,
    SearchFailedError,
    StorageError,
    StudyError,
    explain,
)

EARLY_MEMBERS = 2
"""Trained candidates that become members before the finalists do."""

EARLY_SHARE = 0.015
"""Share of the minutes that one of them may take."""

FAILURES_IN_A_ROW = 6
"""Failed trials in a row, or trainings in a row that diverge, that stop a search."""

FAILED_SLOTS = 3
"""Different trials among them, at least: one that fails is tried again at once."""

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


HEARTBEAT_SECONDS = 10.0
"""Time between two notes of the time spent, while workers are busy."""


def run_trials(run: Run, forecast: Forecast) -> None:
    """Ask, evaluate and tell until the trials' share of the budget is spent.

    Workers only evaluate. Everything that is decided is decided here, as soon
    as an outcome comes in, so that no worker waits for another.

    Raises:
        SearchFailedError: If `FAILURES_IN_A_ROW` trials failed one after the other.
    """
    run.say("trials", "proposing and trying candidates")
    propose, progress = _sampler(run, forecast), Progress(run, forecast)
    with open_pool(run) as pool:
        flight = _Flight(run, forecast, pool)
        while True:
            while flight.has_room() and not progress.is_enough():
                ticket = run.ledger.ask(run.setup.space, propose, _guide(run, forecast))
                progress.tell()
                flight.begin(ticket)
            if not flight.begun:
                break
            flight.advance()
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


class _Flight:
    """The trials that have begun and not ended, by slot."""

    def __init__(self, run: Run, forecast: Forecast, pool: WorkPool) -> None:
        self._run, self._forecast, self._pool = run, forecast, pool
        self.begun: dict[int, tuple[Ticket, Evaluation]] = {}
        self._failures: list[tuple[int, str]] = []
        self._diverged: list[tuple[int, str]] = []

    def has_room(self) -> bool:
        """Tell whether another trial may begin."""
        total = self._run.ledger.finished + len(self.begun)
        return len(self.begun) < self._pool.capacity and not self._run.schedule.trials_over(total)

    def begin(self, ticket: Ticket) -> None:
        """Have a candidate proxied, unless its costs speak against it."""
        run, forecast = self._run, self._forecast
        with self._isolated(ticket):
            costs = forecast.costs(ticket.candidate)
            worst, violation = _worst(forecast, ticket.candidate)
            if violation > _allowed(run, forecast) and ticket.origin not in BASELINES:
                run.ledger.prune(ticket, f"predicted {worst} is {violation:.0%} over its limit")
                run.say("trials", f"trial {ticket.slot} stopped: {worst} over its limit")
                return
            self.begun[ticket.slot] = (
                ticket,
                Evaluation(
                    slot=ticket.slot, candidate=ticket.candidate, origin=ticket.origin, costs=costs
                ),
            )
            self._pool.submit(Work(slot=ticket.slot, candidate=ticket.candidate, fidelity=0))

    def advance(self) -> None:
        """Wait for an outcome, and decide what becomes of its trial."""
        outcome = self._pool.wait(HEARTBEAT_SECONDS)
        if outcome is None:
            self._run.note_time()
            return
        if outcome.slot not in self.begun:  # it has ended, by another outcome of the same work
            return
        ticket, evaluation = self.begun[outcome.slot]
        ended: Evaluation | None = None
        with self._isolated(ticket):
            if outcome.result is None:
                self._fail(ticket, outcome.failure, lasting=outcome.lasting)
                return
            self._run.ledger.record(ticket, outcome.fidelity, outcome.result)
            found = {**evaluation.fidelities, outcome.fidelity: outcome.result}
            evaluation = replace(evaluation, fidelities=found)
            self.begun[ticket.slot] = (ticket, evaluation)
            if outcome.fidelity == 0 and self._is_promoted(ticket, evaluation):
                self._pool.submit(self._training(ticket))
                return
            if outcome.fidelity > 0:
                self._learn(evaluation, outcome)
            ended = self._complete(ticket, evaluation)
        if ended is not None:
            self._run.say("trials", f"trial {ticket.slot} ({ticket.origin})", evaluation=ended)

    def _is_promoted(self, ticket: Ticket, evaluation: Evaluation) -> bool:
        others = [e for _, e in self.begun.values() if e.slot != ticket.slot]
        return _promoted(self._run, self._forecast, ticket, evaluation, others, self._pool.workers)

    def _training(self, ticket: Ticket) -> Work:
        evaluator, schedule = self._run.evaluator, self._run.schedule
        evaluator.forget(ticket.slot)
        remote = self._pool.is_remote
        return Work(
            slot=ticket.slot,
            candidate=ticket.candidate,
            fidelity=1,
            images=schedule.short_images,
            seconds=schedule.short_seconds,
            weights=evaluator.inherited(ticket.candidate) if remote else b"",
        )

    def _learn(self, evaluation: Evaluation, outcome: Outcome) -> None:
        """Learn from a training, whose weights others go on from."""
        run, forecast = self._run, self._forecast
        self._diverged.clear()
        if self._pool.is_remote:
            run.evaluator.seconds_per_image = outcome.seconds_per_image / _threads_ratio(run)
            write_bytes(run.evaluator.checkpoint(evaluation.slot), outcome.weights)
        forecast.learn([*run.evaluations(), evaluation])
        if not self._pool.is_remote:  # nothing is measured while workers keep the host busy
            _early_member(run, forecast, evaluation)

    def _complete(self, ticket: Ticket, evaluation: Evaluation) -> Evaluation:
        run, forecast, costs = self._run, self._forecast, dict(evaluation.costs)
        values = forecast.values(evaluation)
        evaluation = replace(evaluation, predicted_accuracy=values["accuracy"])
        counted = {key: value for key, value in costs.items() if key != "latency_ms"}
        if ticket.origin in BASELINES:
            run.store.predict(f"{ticket.slot:04d}", values)
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
        del self.begun[ticket.slot]
        self._failures.clear()
        return evaluation

    @contextmanager
    def _isolated(self, ticket: Ticket) -> Iterator[None]:
        """Let a trial fail alone, whatever it was."""
        try:
            yield
        except (SearchFailedError, StorageError, StudyError):
            raise
        except Exception as error:
            self._fail(ticket, f"{type(error).__name__}: {error}", error)

    def _fail(
        self,
        ticket: Ticket,
        reason: str,
        cause: Exception | None = None,
        *,
        lasting: bool = False,
    ) -> None:
        run, failures = self._run, self._diverged if lasting else self._failures
        if lasting:
            run.ledger.prune(ticket, reason)
        else:
            run.ledger.fail(ticket, reason)
        self.begun.pop(ticket.slot, None)
        run.say("trials", f"trial {ticket.slot} failed: {reason}", failure=reason)
        failures.append((ticket.slot, reason))
        many = max(FAILURES_IN_A_ROW, 2 * self._pool.workers)  # a host that is lost takes several
        if len(failures) >= many and len({slot for slot, _ in failures}) >= FAILED_SLOTS:
            raise SearchFailedError(
                explain(
                    "search",
                    expected="trials that succeed",
                    got=f"{len(failures)} failures in a row, mostly "
                    f"'{Counter(why for _, why in failures).most_common(1)[0][0]}'",
                    remedy="mend the cause and run the same command again",
                )
            ) from cause


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

    told = [e for e in run.ledger.evaluations() if 0 in e.fidelities and not e.failed]
    known = [e for e in told if affordable(e.candidate)]

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


def _threads_ratio(run: Run) -> float:
    """Return how many threads this process computes with for each of a worker's.

    Trainings here are taken to be so many times as fast; 1 where a GPU does the work.
    """
    if run.evaluator.device != "cpu" or run.setup.executor.gpus > 0.0:
        return 1.0
    return torch.get_num_threads() / run.setup.executor.cpus


def _promoted(
    run: Run,
    forecast: Forecast,
    ticket: Ticket,
    evaluation: Evaluation,
    begun: Sequence[Evaluation] = (),
    workers: int = 1,
) -> bool:
    """Tell whether a proxied candidate gets a short fine-tune.

    Others that were proxied and have not ended are trained now, on one of the workers.
    """
    training = sum(0 in e.fidelities for e in begun)
    others = [e for e in run.ledger.evaluations() if 0 in e.fidelities and not e.failed]
    seconds = [e.fidelities[1].seconds for e in others if 1 in e.fidelities]
    if not run.schedule.may_train(sum(seconds) / workers, max(seconds, default=0.0)):
        return False
    if ticket.attributes.get("promote"):
        return True
    if ticket.origin in BASELINES or len(others) < 6:
        return False
    table = [forecast.losses(forecast.values(e)) for e in (*others, evaluation)]
    ranks = non_dominated_rank(np.array(table))
    trained = training + sum(1 in e.fidelities for e in others)
    best = ranks[-1] <= np.quantile(ranks, PROMOTED_SHARE)
    return bool(best) and trained < PROMOTED_SHARE * (len(others) + 1)


def _early_member(run: Run, forecast: Forecast, evaluation: Evaluation) -> None:
    """Export a trained candidate at once, so that an early stop leaves a front.

    Where the minutes are few, those that it takes are left to the finalists, which are near.
    """
    total = run.schedule.total_seconds
    if total is not None and run.seconds_per_member > EARLY_SHARE * total:
        return
    name, slot = f"{evaluation.slot:04d}", evaluation.slot
    written = {member.id for member in run.members()}
    if len(written) >= len(BASELINES) + EARLY_MEMBERS or name in written:
        return
    model, _ = run.evaluator.fine_tune(evaluation.candidate, slot=slot, images=0, inherit=False)
    try:
        member = run.write_member(
            name,
            model,
            forecast.values(evaluation),
            origin=evaluation.origin,
            trained_images=evaluation.fidelities[1].trained_images,
        )
    except ExportError as error:
        run.say("trials", f"trial {slot} was not exported: {error}")
        return
    member = run.add_member(member)
    run.say("trials", f"member {name} is on disk", member=member)
