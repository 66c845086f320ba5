"""The ledger: an Optuna study in SQLite that holds every trial of a search."""

import copy
import math
import weakref
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import optuna
from optuna.samplers import BaseSampler
from optuna.storages import BaseStorage
from optuna.trial import FrozenTrial, TrialState

from autocompress.controller.current import CurrentStudy, by_number, earlier_trials
from autocompress.controller.given import next_given
from autocompress.controller.held_storage import HeldStorage
from autocompress.controller.records import FINAL, evaluation, fidelity_key, finals, rounds, row
from autocompress.controller.sampler import Guide, Proposer, distributions
from autocompress.controller.storage import check_place, check_url, forget_copy, study_exists
from autocompress.controller.study_file import (
    STUDY_NAME,
    check_identity,
    create_study,
    hold,
    keep_copy,
    let_go,
    open_study,
    release,
    write_ahead,
    writing,
)
from autocompress.controller.ticket import RELEASED, Ticket
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.errors import InvalidInputError, StorageError, StudyError, explain
from autocompress.space.bound import BoundSpace

MAX_ATTEMPTS = 3
"""How often a trial is tried before it is pruned with its reason."""

_FINISHED = (TrialState.COMPLETE, TrialState.PRUNED)


class Ledger:
    """All trials of one search, on disk after every call.

    Killing the process at any time loses at most the running trials, and
    those are tried again under the same slots with the same parameters.
    """

    def __init__(
        self, path: Path, study: optuna.Study, storage: BaseStorage, lock: int | None = None
    ) -> None:
        """Wrap a study; use `Ledger.open` or `Ledger.read`."""
        self.path = path
        self._study = study
        self._view = CurrentStudy(study)
        self._read: dict[int, Evaluation] = {}
        self._is_elsewhere = lock is not None and study.study_name != STUDY_NAME
        own = path if lock is not None and not self._is_elsewhere else None
        self._release = weakref.finalize(self, release, storage, lock, own)
        self._running: dict[int, optuna.Trial] = {}

    @classmethod
    def open(
        cls,
        path: Path,
        *,
        metric_names: Sequence[str],
        identity: Mapping[str, str],
        seed: int,
        storage: str | None = None,
        first: Mapping[str, Any] | None = None,
    ) -> "Ledger":
        """Create a ledger, or continue one.

        Trials that a killed process left running are tried again.

        Args:
            path: Its SQLite file.
            metric_names: Names of the objectives; all are minimised.
            identity: What the study belongs to, for example the model's
                fingerprint; another identity is refused.
            seed: The seed of the run.
            storage: Where a new study is kept instead; see `Storage`.
            first: Values by key that a new study has from the start.

        Raises:
            InvalidInputError: If studies cannot be kept at `storage`.
            StudyError: If the study is damaged, in use by another process, or
                belongs to something else; it is not changed then.
            StorageError: If it cannot be written.
        """
        whole = {**identity, "objectives": ", ".join(metric_names), "seed": str(seed)}
        if storage is not None:
            check_url(storage)
        lock = hold(path)  # before it is created, which another process may be about to do
        try:
            if not study_exists(path):
                values = {"identity": whole, "seed": seed, **(first or {})}
                create_study(path, metric_names, values, storage)
            check_place(path, storage)
            study, opened = open_study(path)
        except BaseException:
            let_go(lock)
            raise
        ledger = cls(path, study, opened, lock)
        try:
            check_identity(path, expected=whole, found=ledger.get("identity", {}))
            write_ahead(opened)
            ledger.reap()
        except BaseException:
            ledger.close()
            raise
        forget_copy(path)
        return ledger

    @classmethod
    def read(cls, path: Path) -> "Ledger":
        """Open a ledger for reading only.

        Raises:
            MissingFileError: If there is no such file.
            StudyError: If it is damaged.
        """
        return cls(path, *open_study(path, read_only=True))

    def close(self) -> None:
        """Close the study; trials that still run are tried again, at no attempt of theirs."""
        try:
            with suppress(StorageError), writing(self.path):
                for trial in self._running.values():
                    with suppress(optuna.exceptions.UpdateFinishedTrialError):  # it just ended
                        trial.set_user_attr(RELEASED, True)
            if self._is_elsewhere:
                keep_copy(self.path, self._study)
        finally:
            self._release()

    @property
    def seed(self) -> int:
        """The seed of the run."""
        return int(self.get("seed"))

    @property
    def finished(self) -> int:
        """How many trials are complete or pruned."""
        return sum(trial.state in _FINISHED for trial in self._latest().values())

    def get(self, key: str, default: Any = None) -> Any:
        """Return a value that belongs to the whole study."""
        attributes = self._study._storage.get_study_user_attrs(self._study._study_id)
        return copy.deepcopy(attributes.get(key, default))

    def set(self, key: str, value: Any) -> None:
        """Keep a JSON value that belongs to the whole study.

        Raises:
            InvalidInputError: If the ledger itself uses the key.
        """
        if key in ("identity", "seed", "designs"):
            raise InvalidInputError(
                explain("key", expected="a free name", got=repr(key), remedy="choose another")
            )
        with writing(self.path):
            self._study.set_user_attr(key, value)

    def enqueue(
        self, params: Mapping[str, float], origin: str, attributes: Mapping[str, Any] | None = None
    ) -> None:
        """Queue a design; designs take slots in the order they come in.

        Enqueueing the same design from the same origin again has no effect,
        so a resumed search may enqueue all its designs once more.

        Args:
            params: A value for every parameter of the space.
            origin: What the design is called.
            attributes: JSON values that its ticket will carry.
        """
        designs = self.get("designs", [])
        if any(d["params"] == params and d["origin"] == origin for d in designs):
            return
        design = {"params": dict(params), "origin": origin, "attributes": dict(attributes or {})}
        with writing(self.path):
            self._study.set_user_attr("designs", [*designs, design])

    def designs(self) -> list[dict[str, float]]:
        """Return the parameters of all designs that were queued, in their order."""
        return [dict(design["params"]) for design in self.get("designs", [])]

    def ask(
        self,
        space: BoundSpace,
        sampler: Callable[[int], BaseSampler],
        guide: Guide | None = None,
    ) -> Ticket:
        """Start the next trial: a retry, else a design, else a proposal.

        Args:
            space: The space, bound to the model of the study.
            sampler: Makes the sampler of a slot, for example
                `functools.partial(make_sampler, "tpe", seed)`.
            guide: What is worth a trial; everything by default.

        Raises:
            StorageError: If the study cannot be written.
        """
        with writing(self.path):
            latest = self._latest()
            draft = self._held.draft(self._study._study_id)
            given = next_given(latest, self.get("designs", []), space)
            slot = given.attributes["slot"] if given else max(latest, default=-1) + 1
            self._show(space, guide or Guide())
            proposer = Proposer(
                sampler(slot),
                space,
                seed=self.seed,
                slot=slot,
                known={trial.user_attrs["candidate"] for trial in latest.values()},
                view=self._view,
                guide=guide,
            )
            proposer.prepare(draft)
            given = given or proposer.propose(draft)
            trial = self._held.begin(
                self._study._study_id, draft, given.params, distributions(space), given.attributes
            )
        self._running[trial.number] = optuna.Trial(self._study, trial._trial_id)
        kept = given.attributes
        return Ticket(
            slot=slot,
            trial=trial.number,
            params=trial.params,
            candidate=Candidate.from_json(kept["candidate"]),
            origin=kept["origin"],
            attempt=kept["attempt"],
            attributes=kept["attributes"],
        )

    def record(self, ticket: Ticket, fidelity: int, result: FidelityResult) -> None:
        """Keep what a running trial found at one fidelity."""
        with writing(self.path):
            self._trial(ticket).set_user_attr(fidelity_key(fidelity), result.to_json())

    def record_final(self, slot: int, result: FidelityResult) -> None:
        """Keep what the full fine-tune of a finished trial found.

        Optuna lets nothing be added to a finished trial, so the study holds it.
        """
        with writing(self.path):
            self._study.set_user_attr(f"{FINAL}{slot}", result.to_json())

    def complete(
        self,
        ticket: Ticket,
        losses: Sequence[float],
        costs: Mapping[str, float],
        predicted_accuracy: float | None,
        violations: Mapping[str, float] | None = None,
    ) -> None:
        """End a trial with its losses.

        Args:
            ticket: The trial.
            losses: One number per objective, minimised.
            costs: Costs by name, in their units.
            predicted_accuracy: Predicted accuracy after full fine-tuning.
            violations: Constraint name to violation; feasible at 0 or below.

        Raises:
            InvalidInputError: If a loss is missing or not finite, or the
                ticket is not of a running trial.
        """
        trial = self._trial(ticket)
        if len(losses) != len(self._study.directions) or not all(map(math.isfinite, losses)):
            raise InvalidInputError(
                explain(
                    "'losses'",
                    expected=f"{len(self._study.directions)} finite numbers",
                    got=list(losses),
                    remedy="fail the trial instead",
                )
            )
        with writing(self.path):
            trial.set_user_attr("costs", dict(costs))
            trial.set_user_attr("predicted_accuracy", predicted_accuracy)
            for name, violation in (violations or {}).items():
                trial.set_constraint(name, violation)
        self._end(trial, TrialState.COMPLETE, [float(loss) for loss in losses])

    def prune(self, ticket: Ticket, reason: str) -> None:
        """Stop a trial for good; it counts as finished."""
        self._end(self._trial(ticket), TrialState.PRUNED, reason=reason)

    def fail(self, ticket: Ticket, reason: str) -> None:
        """Give a trial back; it is tried again, at most `MAX_ATTEMPTS` times in all."""
        exhausted = ticket.attempt >= MAX_ATTEMPTS
        state = TrialState.PRUNED if exhausted else TrialState.FAIL
        self._end(self._trial(ticket), state, reason=reason)

    def reap(self) -> int:
        """Fail the trials that no ticket of this process stands for.

        Returns:
            How many there were.
        """
        states = (TrialState.RUNNING, TrialState.WAITING)  # versions up to 0.1 had waiting ones
        trials = self._study.get_trials(deepcopy=False, states=states)
        stale = [trial for trial in trials if trial.number not in self._running]
        for trial in stale:
            begun = trial.state == TrialState.RUNNING and RELEASED not in trial.user_attrs
            tried = trial.user_attrs.get("attempt", 1) - (not begun)
            state = TrialState.PRUNED if tried >= MAX_ATTEMPTS else TrialState.FAIL
            with writing(self.path):
                self._study._storage.set_trial_state_values(trial._trial_id, state)
        return len(stale)

    def evaluations(self) -> list[Evaluation]:
        """Return all complete and pruned trials, by slot."""
        final = finals(self._study)
        return [
            self._evaluation(trial, final)
            for _, trial in sorted(self._latest().items())
            if trial.state in _FINISHED
        ]

    def rounds(self) -> list[dict[str, Any]]:
        """Return what each fit of the predictor showed, as `Round.to_json` does, in order."""
        return rounds(self._study)

    def rows(self) -> list[dict[str, Any]]:
        """Return one flat row per slot, all with the same keys, for a table."""
        final = finals(self._study)
        rows = [row(trial, final.get(slot)) for slot, trial in sorted(self._latest().items())]
        keys = list(dict.fromkeys(key for cells in rows for key in cells))
        return [{key: cells.get(key) for key in keys} for cells in rows]

    def _latest(self) -> dict[int, FrozenTrial]:
        """Return the last attempt of every slot."""
        trials = self._study.get_trials(deepcopy=False)
        return {int(t.user_attrs["slot"]): t for t in trials if "slot" in t.user_attrs}

    def _evaluation(self, trial: FrozenTrial, finals: Mapping[int, FidelityResult]) -> Evaluation:
        """Read a finished trial, once; its full fine-tune may come later."""
        known = self._read.get(trial.number)
        if known is None:
            known = self._read[trial.number] = evaluation(trial)
        final = finals.get(known.slot)
        return known if final is None else replace(known, fidelities={**known.fidelities, 2: final})

    def _show(self, space: BoundSpace, guide: Guide) -> None:
        """Let samplers see the trials as the guide judges them."""
        judge, final = guide.judge, finals(self._study)
        self._view.judge = judge and by_number(lambda t: judge(self._evaluation(t, final)))
        if guide.earlier and not self._view.has_joined:
            objectives = len(self._study.directions)
            self._view.join(earlier_trials(guide.earlier, space, distributions(space), objectives))

    @property
    def _held(self) -> HeldStorage:
        storage = self._study._storage
        if isinstance(storage, HeldStorage):
            return storage
        raise StudyError(
            explain(
                f"study '{self.path}'",
                expected="one that is opened for a search",
                got="one that is only read",
                remedy="open it with Ledger.open",
            )
        )

    def _trial(self, ticket: Ticket) -> optuna.Trial:
        if ticket.trial not in self._running:
            raise InvalidInputError(
                explain(
                    "ticket",
                    expected="a running trial of this ledger",
                    got=f"slot {ticket.slot}",
                    remedy="end every ticket once",
                )
            )
        return self._running[ticket.trial]

    def _end(
        self,
        trial: optuna.Trial,
        state: TrialState,
        losses: list[float] | None = None,
        reason: str = "",
    ) -> None:
        with writing(self.path):
            if reason:
                trial.set_user_attr("reason", reason)
            self._study.tell(trial, losses, state=state)
        del self._running[trial.number]
