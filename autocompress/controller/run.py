"""One run of a study: what its stages share."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from autocompress.controller.designs import BASELINES
from autocompress.controller.ledger import Ledger
from autocompress.controller.members import (
    MemberStore,
    read_members,
    split_front,
    timed_with,
    write_front,
)
from autocompress.controller.schedule import Schedule
from autocompress.controller.setup import SearchSetup
from autocompress.core.evaluation import Evaluation, MeasuredMember
from autocompress.core.events import Callback, Event, Stop
from autocompress.cost.analytic import count_costs
from autocompress.cost.pace import pace
from autocompress.cost.simulated import SimulatedProfile
from autocompress.evaluation.evaluator import Evaluator
from autocompress.transform.compressed import CompressedModel

CONTENDER = "int8"
"""Id of plain int8 where the space does not hold it: shown beside the front, never on it."""

HEARTBEAT_SECONDS = 10.0
"""Time between two notes of the time spent, while a model trains."""

NEWS_SECONDS = 60.0
"""Time between two messages while a model trains."""

ADDED_SECONDS = 8.0
"""Longest measurement of a member that was just written."""

MEMBER_SECONDS = 25.0
"""Time assumed for exporting and verifying a member before one was written."""


class Run:
    """A study while it runs: its ledger, clock, evaluator and members.

    Args:
        setup: What to search.
        ledger: The open ledger of the study.
        callbacks: Told of every step.

    Attributes:
        schedule: How the budget is spent, and what is left of it.
        evaluator: Evaluates candidates.
        store: Writes and measures members.
        seconds_per_member: Time that settling and writing one member takes, as
            seen so far in this run and earlier ones.
        added_seconds: Time for which a member that was just written is measured.
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
            short_epochs=setup.training.short_epochs,
            full_epochs=setup.training.full_epochs,
        )
        self.evaluator = Evaluator(
            setup.model,
            setup.graph,
            setup.task,
            setup.splits,
            checkpoints=setup.study_dir / "checkpoints",
            seed=setup.seed,
            device=setup.device,
            training=setup.training,
            quantisation=setup.quantisation,
            teachers=setup.teachers,
        )
        self.store = MemberStore(
            setup.study_dir, setup.model, setup.task, setup.splits, setup.target
        )
        self.seconds_per_member = float(ledger.get("member_s", MEMBER_SECONDS))
        self._speed = self.evaluator.seconds_per_image = float(ledger.get("original_image_s", 0.0))
        self._paces: dict[int, float] = {}
        self.added_seconds = self.schedule.at_most(ADDED_SECONDS, 0.003)

    def say(self, stage: str, message: str, **details: Any) -> None:
        """Tell the callbacks of a step, and the ledger of the time."""
        self.note_time()
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
            try:
                callback(event)
            except Exception as error:  # no trial's fault, and must not count as one
                raise Stop(f"a callback raised {type(error).__name__}") from error

    def note(self, stage: str, words: str) -> None:
        """Say something, and keep it for the report."""
        notes = self.ledger.get("notes", [])
        self.ledger.set("notes", [*notes, f"{words[0].upper()}{words[1:]}."])
        self.say(stage, words)

    def note_time(self) -> None:
        """Keep the time spent so far, and the speed, in case that the process is killed."""
        self.ledger.set("elapsed_s", self.schedule.elapsed)
        if self._speed != self.evaluator.seconds_per_image:
            self._speed = self.evaluator.seconds_per_image
            self.ledger.set("original_image_s", self._speed)

    def note_member(self, seconds: float) -> None:
        """Keep how long a member took to settle and to write."""
        self.seconds_per_member = max(0.5 * self.seconds_per_member, seconds)
        self.ledger.set("member_s", self.seconds_per_member)

    def watch(self, stage: str, what: str) -> Callable[[float], None]:
        """Return a callback for training steps that notes the time and says how far it is.

        Args:
            stage: The stage that trains.
            what: What is trained, in words.
        """
        noted = told = time.monotonic()

        def step(share: float) -> None:
            nonlocal noted, told
            now = time.monotonic()
            if now - told >= NEWS_SECONDS:
                noted = told = now
                self.say(stage, f"{what} is trained to {share:.0%}", progress=share)
            elif now - noted >= HEARTBEAT_SECONDS:
                noted = now
                self.note_time()

        return step

    def evaluations(self) -> list[Evaluation]:
        """Return what is known of candidates, by this study and by earlier ones of the model."""
        return [*self.setup.earlier.evaluations, *self.ledger.evaluations()]

    @property
    def usual_pace(self) -> float:
        """The median `pace` of the candidates that were trained; 1 before there are any."""
        for evaluation in self.ledger.evaluations():
            if evaluation.slot not in self._paces and max(evaluation.fidelities, default=0) > 0:
                self._paces[evaluation.slot] = pace(self.setup.graph, evaluation.candidate)
        return float(np.median([*self._paces.values()])) if self._paces else 1.0

    def members(self) -> list[MeasuredMember]:
        """Read the members on disk, the original first."""
        return read_members(self.setup.study_dir)

    def write_member(
        self,
        name: str,
        model: CompressedModel,
        predicted: dict[str, float],
        *,
        origin: str,
        trained_images: int,
    ) -> MeasuredMember:
        """Export and verify a settled model; see `MemberStore.write`."""
        costs = count_costs(self.setup.graph, model.record.candidate)
        return self.store.write(
            name, model, predicted, costs, origin=origin, trained_images=trained_images
        )

    def add_member(self, member: MeasuredMember) -> MeasuredMember:
        """Measure a written member beside the baselines, and renew the front."""
        measured = self.measure([*self.baselines(), member], seconds=self.added_seconds)
        self.update_front()
        return measured[-1]

    def baselines(self) -> list[MeasuredMember]:
        """Read the original and, where it could be exported, plain int8."""
        return [m for m in self.members() if m.measured["origin"] in BASELINES]

    def measure(self, members: Sequence[MeasuredMember], *, seconds: float) -> list[MeasuredMember]:
        """Measure members side by side; the first is the original. Simulated targets are asked.

        The host may run faster or slower than when the baselines were
        measured first. Latencies as they would have been then are kept for
        the cost model.
        """
        if isinstance(self.setup.profile, SimulatedProfile):
            costs = [
                self.setup.profile.predict_costs(self.setup.graph, m.candidate) for m in members
            ]
            return self.store.simulate(members, costs)
        measured = self.store.measure(members, seconds=seconds)
        latency = {member.id: float(member.measured["latency_ms"]) for member in measured}
        known: dict[str, float] = self.ledger.get("latency_ms", {})
        shared = [np.log(latency[name] / known[name]) for name in known if name in latency]
        drift = float(np.exp(np.mean(shared))) if known and "0000" in latency else 1.0
        corrected = {name: ms / drift for name, ms in latency.items()}
        self.ledger.set("latency_ms", corrected | known)
        return measured

    def update_front(self) -> None:
        """Write `front.json` anew from the members on disk."""
        first, *others = self.members()
        members = [first, *(timed_with(member, first) for member in others)]
        baseline: dict[str, Any] = dict(members[0].measured)
        found = [member for member in members if member.id != CONTENDER]
        front, others = split_front(
            found, self.setup.objectives, self.setup.constraints, members[0].values()
        )
        int8 = [m for m in members if m.measured["origin"] == "plain int8"]
        if int8:
            baseline["int8"] = dict(int8[0].measured)
        write_front(self.setup.study_dir, baseline, front, others)
