"""The search: baseline, profile, sensitivity, trials, finalists, front."""

import functools
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from autocompress.artifact.onnx_file import write_onnx
from autocompress.controller.designs import first_designs, plain_int8, unmodified
from autocompress.controller.finalists import Finalist, choose_finalists
from autocompress.controller.forecast import Forecast
from autocompress.controller.ladder import Rung, build_ladder
from autocompress.controller.ledger import Ledger, Ticket
from autocompress.controller.members import (
    MemberStore,
    read_members,
    split_front,
    write_front,
)
from autocompress.controller.sampler import make_sampler
from autocompress.controller.schedule import Schedule
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult, MeasuredMember
from autocompress.core.events import Callback, Event
from autocompress.core.objective import Constraint, Objective
from autocompress.core.pareto import non_dominated_rank
from autocompress.core.target import Target
from autocompress.cost.analytic import count_costs
from autocompress.cost.profile import DeviceProfile, profile_device
from autocompress.errors import (
    AutocompressError,
    ExportError,
    StorageError,
    StudyError,
    TrainingError,
    explain,
)
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import Splits, data_digest
from autocompress.evaluation.task import Task
from autocompress.graph.structure import ModelGraph
from autocompress.space.bound import BoundSpace
from autocompress.transform.compress import calibrate_grids
from autocompress.transform.compressed import CompressedModel

FINALISTS = 6
"""Members that a search adds to those it wrote on its way."""

EARLY_MEMBERS = 2
"""Trained candidates that become members before the finalists do."""

LADDER_SHARE = 0.12
"""Share of the minutes that the sensitivity pass may take."""

FAILURES_IN_A_ROW = 6
"""Failed trials in a row that stop a search."""

PROMOTED_SHARE = 1 / 3
"""Share of the trials, by predicted rank, that are worth a short fine-tune."""

MEMBER_SECONDS = 25.0
"""Time assumed for exporting and verifying a member before one was written."""


@dataclass(frozen=True, kw_only=True)
class SearchSetup:
    """Everything a search needs, resolved.

    Attributes:
        model: The trained original, in eval mode on `device`; never changed.
        graph: Its structure.
        space: The search space, bound.
        task: The user's task.
        splits: The batches of the study.
        target: Where artifacts run.
        profile: A given profile of the target; None measures one.
        objectives: What is optimised.
        constraints: What front members must meet.
        budget: What may be spent.
        study_dir: Where everything is written.
        epoch_images: Training images of one epoch.
        sampler: Name of the sampler.
        device: Torch device name.
        seed: The seed of the run.
    """

    model: nn.Module
    graph: ModelGraph
    space: BoundSpace
    task: Task
    splits: Splits
    target: Target
    profile: DeviceProfile | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    budget: Budget
    study_dir: Path
    epoch_images: int
    sampler: str = "tpe"
    device: str = "cpu"
    seed: int = 0


class Search:
    """Runs or continues one study; everything it learns is on disk at once.

    Args:
        setup: What to search.
        ledger: The open ledger of the study.
        callbacks: Told of every step.
    """

    def __init__(
        self, setup: SearchSetup, ledger: Ledger, callbacks: Sequence[Callback] = ()
    ) -> None:
        self.setup, self.ledger, self.callbacks = setup, ledger, tuple(callbacks)
        self.schedule = Schedule(
            budget=setup.budget,
            epoch_images=setup.epoch_images,
            spent_before=float(ledger.get("elapsed_s", 0.0)),
            started=time.monotonic(),
        )
        self.evaluator = Evaluator(
            setup.model,
            setup.graph,
            setup.task,
            setup.splits,
            checkpoints=setup.study_dir / "checkpoints",
            seed=setup.seed,
            device=setup.device,
        )
        self.store = MemberStore(setup.study_dir, setup.task, setup.splits, setup.target)
        self._seconds_per_member = MEMBER_SECONDS

    def run(self) -> None:
        """Run the study to the end of its budget and write its front."""
        baseline = self._baseline()
        profile = self._profile()
        self.forecast = Forecast(
            self.setup.graph, profile, self.setup.objectives, self.setup.constraints, baseline
        )
        for design in first_designs(self.setup.space, self._ladders()):
            self.ledger.enqueue(
                self.setup.space.to_params(design.candidate),
                design.origin,
                {"promote": design.promote},
            )
        self.forecast.learn(self.ledger.evaluations())
        self._trials()
        self._finalists()
        self._measure()
        self._say("done", "the search is complete")

    def _say(self, stage: str, message: str, **details: Any) -> None:
        self.ledger.set("elapsed_s", self.schedule.elapsed)
        event = Event(
            stage=stage,
            message=message,
            elapsed_s=self.schedule.elapsed,
            trials_done=self.ledger.finished,
            trials_total=self.setup.budget.trials,
            seconds_left=self.schedule.seconds_left,
            **details,
        )
        for callback in self.callbacks:
            callback(event)

    # Baseline: the original and its plain int8 quantisation, exported and measured.

    def _baseline(self) -> dict[str, float]:
        known = self.ledger.get("baseline")
        if known is not None:
            return {key: float(value) for key, value in known.items()}
        setup = self.setup
        self._say("baseline", "exporting and measuring the original and plain int8")
        proxy_accuracy = score(setup.model, setup.task, setup.splits.proxy, device=setup.device)
        starts = {"0000": ("unmodified", unmodified(setup.space))}
        if plain_int8(setup.space) != starts["0000"][1]:
            starts["0001"] = ("plain int8", plain_int8(setup.space))
        members = []
        for name, (origin, candidate) in starts.items():
            model = self.evaluator.compress(candidate)
            self.evaluator.settle(model, exact=True)
            members.append(self._write(name, model, {}, origin=origin, trained_images=0))
        members = self.store.measure(members, seconds=15.0)
        for member in members:
            self._say("baseline", f"{member.measured['origin']} measured", member=member)
        values = members[0].values()
        baseline = {
            "accuracy": values["accuracy"],
            "proxy_accuracy": proxy_accuracy,
            **{
                key: values[key]
                for key in ("latency_ms", "size_bytes", "macs", "bops", "parameters")
            },
        }
        self.ledger.set("baseline", baseline)
        return baseline

    # Profile: kernels of the space on the target, corrected by the baseline's artifacts.

    def _profile(self) -> DeviceProfile:
        path = self.setup.study_dir / "profile.json"
        if path.exists():
            return DeviceProfile.load(path)
        if self.setup.profile is not None:
            self.setup.profile.save(path)
            return self.setup.profile
        self._say("profile", "measuring the kernels of the search space on the target")
        total = self.schedule.total_seconds
        profile = profile_device(
            self.setup.graph,
            self.setup.space.pruning_choices,
            self.setup.target,
            seconds=40.0 if total is None else min(40.0, 0.04 * total),
        )
        profile = self._refit(profile, read_members(self.setup.study_dir))
        profile = self._probe_boundaries(profile)
        profile.save(path)
        return profile

    def _probe_boundaries(self, profile: DeviceProfile) -> DeviceProfile:
        """Measure a network of alternating precisions, if the space offers any."""
        plain = plain_int8(self.setup.space)
        mixed = replace(plain, layers=dict(list(plain.layers.items())[::2])).canonical()
        if len(mixed.layers) in (0, len(plain.layers)):
            return profile
        members = read_members(self.setup.study_dir)
        path = self.setup.study_dir / "probe.onnx"
        model = self.evaluator.compress(mixed)
        calibrate_grids(model, self.setup.splits.calibration[:1], self.setup.task.run)
        write_onnx(model, path, self.evaluator.inputs)
        reference = members[0]
        measured = self.store.time([self.setup.study_dir / reference.path, path], seconds=5.0)
        path.unlink()
        latency = measured[1].ratio * float(reference.measured["latency_ms"])
        return profile.refit([profile.anchor(self.setup.graph, mixed, latency)])

    def _refit(self, profile: DeviceProfile, members: Sequence[MeasuredMember]) -> DeviceProfile:
        """Correct a profile by measured members; a given profile stays as it is."""
        if self.setup.profile is not None:
            return profile
        anchors = [
            profile.anchor(self.setup.graph, member.candidate, float(member.measured["latency_ms"]))
            for member in members
            if "latency_ms" in member.measured
        ]
        return profile.refit(anchors)

    # Sensitivity: a ladder from plain int8 down, by divergence per cost saved.

    def _ladders(self) -> dict[str, list[Rung]]:
        """Build, or read, one ladder for each cost that is an objective."""
        known = self.ledger.get("ladders")
        if known is None:
            self._say("sensitivity", "trying what each block, group and layer is worth")
            costs = [o.name for o in self.setup.objectives if o.name != "accuracy"]
            deviation = functools.cache(self.evaluator.deviation)
            known = {}
            for number, name in enumerate(costs):
                rungs = self._ladder(name, deviation, LADDER_SHARE / (len(costs) - number))
                known[name] = [
                    {"candidate": r.candidate.to_json(), "deviation": r.deviation, "cost": r.cost}
                    for r in rungs
                ]
                self._say(
                    "sensitivity",
                    f"{len(rungs)} candidates down to {rungs[-1].cost:.0%} of plain int8's {name}",
                )
            self.ledger.set("ladders", known)
        return {
            name: [
                Rung(**{**rung, "candidate": Candidate.from_json(rung["candidate"])})
                for rung in rungs
            ]
            for name, rungs in known.items()
        }

    def _ladder(
        self, name: str, deviation: Callable[[Candidate], float], share: float
    ) -> list[Rung]:
        total, begun = self.schedule.total_seconds, self.schedule.elapsed

        def enough() -> bool:
            return total is not None and self.schedule.elapsed - begun > share * total

        return build_ladder(
            self.setup.space,
            plain_int8(self.setup.space),
            deviation,
            functools.cache(lambda candidate: self.forecast.costs(candidate)[name]),
            enough=enough,
        )

    # Trials: the proxy for all, a short fine-tune for those that promise most.

    def _trials(self) -> None:
        failures: list[str] = []
        propose = functools.partial(make_sampler, self.setup.sampler, self.setup.seed)
        while not self.schedule.trials_over(self.ledger.finished):
            ticket = self.ledger.ask(self.setup.space, propose)
            try:
                self._trial(ticket)
                failures.clear()
            except (StorageError, StudyError):
                raise
            except (AutocompressError, RuntimeError, MemoryError) as error:
                reason = f"{type(error).__name__}: {error}"
                self.ledger.fail(ticket, reason)
                self._say("trials", f"trial {ticket.slot} failed: {reason}")
                failures.append(reason)
                if len(failures) >= FAILURES_IN_A_ROW:
                    raise StudyError(
                        explain(
                            "search",
                            expected="trials that succeed",
                            got=f"{len(failures)} failures in a row, mostly "
                            f"'{Counter(failures).most_common(1)[0][0]}'",
                            remedy="mend the cause and run the same command again",
                        )
                    ) from error

    def _trial(self, ticket: Ticket) -> None:
        costs = self.forecast.costs(ticket.candidate)
        evaluation = Evaluation(
            slot=ticket.slot, candidate=ticket.candidate, origin=ticket.origin, costs=costs
        )
        over = {
            c.name: c.violation(costs | {"accuracy": 1.0}, self.forecast.baseline)
            for c in self.setup.constraints
        }
        worst = max(over, key=lambda name: over[name], default=None)
        if (
            worst is not None
            and over[worst] > 0.1
            and ticket.origin not in ("unmodified", "plain int8")
        ):
            self.ledger.prune(ticket, f"predicted {worst} is {over[worst]:.0%} over its limit")
            self._say("trials", f"trial {ticket.slot} stopped: {worst} over its limit")
            return
        evaluation = self._reached(ticket, evaluation, 0, self.evaluator.proxy(ticket.candidate))
        if self._promoted(ticket, evaluation):
            model, result = self.evaluator.train(
                ticket.candidate,
                slot=ticket.slot,
                images=self.schedule.short_images,
                seconds=self.schedule.short_seconds,
            )
            evaluation = self._reached(ticket, evaluation, 1, result)
            self.forecast.learn([*self.ledger.evaluations(), evaluation])
            self._early_member(ticket, model, evaluation)
        values = self.forecast.values(evaluation)
        evaluation = replace(evaluation, predicted_accuracy=values["accuracy"])
        counted = {key: value for key, value in costs.items() if key != "latency_ms"}
        self.ledger.complete(
            ticket,
            self.forecast.losses(values),
            counted
            | {
                "latency_ms_predicted": costs["latency_ms"],
                "profile_version": self.forecast.profile.version,
            },
            values["accuracy"],
            self.forecast.violations(values),
        )
        self._say("trials", f"trial {ticket.slot} ({ticket.origin})", evaluation=evaluation)

    def _reached(
        self, ticket: Ticket, evaluation: Evaluation, fidelity: int, result: FidelityResult
    ) -> Evaluation:
        self.ledger.record(ticket, fidelity, result)
        return replace(evaluation, fidelities={**evaluation.fidelities, fidelity: result})

    def _promoted(self, ticket: Ticket, evaluation: Evaluation) -> bool:
        """Tell whether a proxied candidate gets a short fine-tune."""
        others = [e for e in self.ledger.evaluations() if 0 in e.fidelities]
        spent = sum(e.fidelities[1].seconds for e in others if 1 in e.fidelities)
        if not self.schedule.may_train(spent):
            return False
        if ticket.attributes.get("promote"):
            return True
        if ticket.origin in ("unmodified", "plain int8") or len(others) < 6:
            return False
        table = [self.forecast.losses(self.forecast.values(e)) for e in (*others, evaluation)]
        ranks = non_dominated_rank(np.array(table))
        trained = sum(1 in e.fidelities for e in others)
        best = ranks[-1] <= np.quantile(ranks, PROMOTED_SHARE)
        return bool(best) and trained < PROMOTED_SHARE * (len(others) + 1)

    # Members: on disk as soon as there is something to show, then the finalists.

    def _write(
        self,
        name: str,
        model: CompressedModel,
        predicted: dict[str, float],
        *,
        origin: str,
        trained_images: int,
    ) -> MeasuredMember:
        started = self.schedule.elapsed
        costs = count_costs(self.setup.graph, model.record.candidate)
        member = self.store.write(
            name, model, predicted, costs, origin=origin, trained_images=trained_images
        )
        self._seconds_per_member = max(
            0.5 * self._seconds_per_member, self.schedule.elapsed - started
        )
        return member

    def _early_member(self, ticket: Ticket, model: CompressedModel, evaluation: Evaluation) -> None:
        """Export a trained candidate at once, so that an early stop leaves a front."""
        name = f"{ticket.slot:04d}"
        written = {member.id for member in read_members(self.setup.study_dir)}
        if len(written) >= 2 + EARLY_MEMBERS or name in written:
            return
        try:
            member = self._write(
                name,
                model,
                self.forecast.values(evaluation),
                origin=ticket.origin,
                trained_images=evaluation.fidelities[1].trained_images,
            )
        except ExportError as error:
            self._say("trials", f"trial {ticket.slot} was not exported: {error}")
            return
        reference = read_members(self.setup.study_dir)[0]
        _, member = self.store.measure([reference, member], seconds=8.0)
        self._update_front()
        self._say("trials", f"member {name} is on disk", member=member)

    def _finalists(self) -> None:
        evaluations = [e for e in self.ledger.evaluations() if e.fidelities]
        self.forecast.learn(evaluations)
        final = set(self.ledger.get("finalists", []))
        values = [self.forecast.values(e) for e in evaluations]
        violations = [max(self.forecast.violations(v).values(), default=0.0) for v in values]
        kept = [e.slot for e in evaluations if e.slot < 2 or f"{e.slot:04d}" in final]
        room = FINALISTS - len(final)
        left = self.schedule.seconds_left
        if left is not None:
            room = min(room, int(left // (1.5 * self._seconds_per_member)))
        if room <= 0 or not evaluations:
            return
        chosen = choose_finalists(
            evaluations,
            values,
            np.array([self.forecast.losses(v) for v in values]),
            np.array(violations),
            self.forecast.reference(),
            self.forecast.baseline["accuracy"],
            room,
            kept,
        )
        self._say("finalists", f"fine-tuning and exporting {len(chosen)} finalists")
        for position, finalist in enumerate(chosen):
            left = self.schedule.seconds_left
            if left is not None and left < 0.5 * self._seconds_per_member and len(final) > 1:
                self._say("finalists", "the budget is spent; the other finalists wait for more")
                break
            try:
                self._finalist(finalist, chosen[position:])
            except (TrainingError, ExportError) as error:
                self._say("finalists", f"finalist {finalist.evaluation.slot} failed: {error}")
                continue
            final.add(f"{finalist.evaluation.slot:04d}")
            self.ledger.set("finalists", sorted(final))

    def _finalist(self, finalist: Finalist, waiting: Sequence[Finalist]) -> None:
        evaluation = finalist.evaluation
        name = f"{evaluation.slot:04d}"
        seconds, images = None, self.schedule.full_images
        if self.schedule.seconds_left is not None:
            reserved = len(waiting) * self._seconds_per_member + self._measuring_seconds()
            usable = max(0.0, self.schedule.seconds_left - reserved)
            shares = sum(f.share for f in waiting) or 1.0
            seconds = usable * finalist.share / shares
            images = 100 * self.setup.epoch_images
        if finalist.share == 0.0 or (seconds is not None and seconds < 1.0):
            images = 0
        model, result = self.evaluator.train(
            evaluation.candidate, slot=evaluation.slot, images=images, seconds=seconds
        )
        predicted = finalist.predicted
        member = self._write(
            name,
            model,
            predicted,
            origin=evaluation.origin,
            trained_images=result.trained_images,
        )
        reference = read_members(self.setup.study_dir)[0]
        _, member = self.store.measure([reference, member], seconds=6.0)
        self._update_front()
        self._say("finalists", f"member {name} is on disk", member=member)

    def _measuring_seconds(self) -> float:
        total = self.schedule.total_seconds
        return 40.0 if total is None else min(40.0, 0.05 * total)

    def _measure(self) -> None:
        """Measure all members in one interleaved run, and write the front."""
        members = read_members(self.setup.study_dir)
        if len(members) > 1:
            self._say("measure", f"measuring {len(members)} members side by side")
            self.store.measure(members, seconds=self._measuring_seconds())
        profile = self._refit(self.forecast.profile, read_members(self.setup.study_dir))
        profile.save(self.setup.study_dir / "profile.json")
        self._update_front()

    def _update_front(self) -> None:
        members = read_members(self.setup.study_dir)
        front, others = split_front(
            members, self.setup.objectives, self.setup.constraints, self.forecast.baseline
        )
        baseline: dict[str, Any] = dict(members[0].measured)
        int8 = [m for m in members if m.measured["origin"] == "plain int8"]
        if int8:
            baseline["int8"] = dict(int8[0].measured)
        write_front(self.setup.study_dir, baseline, front, others)


def study_identity(setup: SearchSetup, weights_digest: str) -> dict[str, str]:
    """Name what a study belongs to; a study is not continued on anything else."""
    return {
        "model": setup.graph.fingerprint,
        "weights": weights_digest,
        "space": setup.space.fingerprint,
        "data": data_digest(setup.splits.val),
        "target": f"{setup.target.name}, {setup.target.threads} threads, "
        f"batch {setup.target.batch_size}",
    }
