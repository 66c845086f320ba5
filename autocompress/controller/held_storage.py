"""An Optuna storage that one process writes: what it holds is read once, not at every look."""

import copy
from collections.abc import Container, Mapping, Sequence
from datetime import datetime
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.study._frozen import FrozenStudy
from optuna.trial import FrozenTrial, TrialState

from autocompress.errors import StudyError, explain

DRAFT = -1
"""Number of a trial that is not written yet, where Optuna has an identifier."""

_ONE_STUDY = explain(
    "held storage",
    expected="its one study to stay",
    got="another to create, or this to delete",
    remedy="use the storage that is held",
)


class HeldStorage(BaseStorage):
    """Another storage, and what is known of its one study.

    Optuna reads every running trial anew whenever a sampler looks, with all
    its parameters, since others may have written them, and writes a trial
    parameter by parameter. Here nobody else writes: a trial is read again only
    after it was written to, and one that is asked for is a draft, which
    samplers may attach notes to, until `begin` writes it as a whole.
    """

    def __init__(self, backend: BaseStorage) -> None:
        """Hold a storage; it is read when something is asked for.

        Args:
            backend: The storage, which no other process writes meanwhile.
        """
        self._backend = backend
        self._trials: dict[int, FrozenTrial] = {}
        self._is_read = False
        self._changed: set[int] = set()
        self._attributes: dict[str, dict[str, Any]] = {}
        self._draft: FrozenTrial | None = None

    def draft(self, study_id: int) -> FrozenTrial:
        """Return the next trial, which is not written; one before it is forgotten."""
        self._draft = FrozenTrial(
            number=len(self.get_all_trials(study_id, deepcopy=False)),
            trial_id=DRAFT,
            state=TrialState.RUNNING,
            value=None,
            datetime_start=datetime.now(),
            datetime_complete=None,
            params={},
            distributions={},
            user_attrs={},
            system_attrs={},
            intermediate_values={},
        )
        return self._draft

    def begin(
        self,
        study_id: int,
        draft: FrozenTrial,
        params: Mapping[str, Any],
        distributions: Mapping[str, BaseDistribution],
        attributes: Mapping[str, Any],
    ) -> FrozenTrial:
        """Write a draft as a running trial, in one transaction.

        Args:
            study_id: Optuna's identifier of the study.
            draft: From `draft`.
            params: A value for every parameter.
            distributions: A distribution for every parameter.
            attributes: User attributes.

        Returns:
            What was written.

        Raises:
            StudyError: If another process has written trials.
        """
        self._draft = None
        draft.params, draft.distributions = dict(params), dict(distributions)
        draft.user_attrs = dict(attributes)
        draft._validate()
        return self.get_trial(self.create_new_trial(study_id, draft))

    def create_new_trial(self, study_id: int, template_trial: FrozenTrial | None = None) -> int:
        """Write a trial."""
        known = len(self.get_all_trials(study_id, deepcopy=False))
        trial_id = self._backend.create_new_trial(study_id, template_trial)
        number = self._reread(trial_id).number
        if number != known:
            raise StudyError(
                explain(
                    "study",
                    expected=f"{known} trials, as this process wrote them",
                    got=f"{number}, so that another process writes them too",
                    remedy="end one of the two searches, then run its command again",
                )
            )
        return trial_id

    def get_trial(self, trial_id: int) -> FrozenTrial:
        """Return a trial, or the draft."""
        if trial_id == DRAFT and self._draft is not None:
            return self._draft
        if trial_id in self._changed or trial_id not in self._trials:
            return self._reread(trial_id)
        return self._trials[trial_id]

    def get_all_trials(
        self,
        study_id: int,
        deepcopy: bool = True,
        states: Container[TrialState] | None = None,
    ) -> list[FrozenTrial]:
        """Return the trials in the order of their numbers."""
        if not self._is_read:
            found = self._backend.get_all_trials(study_id, deepcopy=False)
            found.sort(key=lambda trial: trial.number)
            self._trials = {trial._trial_id: trial for trial in found}
            self._is_read = True
        for trial_id in tuple(self._changed):
            self._reread(trial_id)
        trials = [t for t in self._trials.values() if states is None or t.state in states]
        return copy.deepcopy(trials) if deepcopy else trials

    def _reread(self, trial_id: int) -> FrozenTrial:
        trial = self._trials[trial_id] = self._backend.get_trial(trial_id)
        self._changed.discard(trial_id)
        return trial

    def set_trial_param(
        self,
        trial_id: int,
        param_name: str,
        param_value_internal: float,
        distribution: BaseDistribution,
    ) -> None:
        """Write one parameter of a running trial."""
        self._changed.add(trial_id)
        self._backend.set_trial_param(trial_id, param_name, param_value_internal, distribution)

    def set_trial_state_values(
        self, trial_id: int, state: TrialState, values: Sequence[float] | None = None
    ) -> bool:
        """Begin or end a trial."""
        self._changed.add(trial_id)
        return self._backend.set_trial_state_values(trial_id, state, values)

    def set_trial_intermediate_value(
        self, trial_id: int, step: int, intermediate_value: float
    ) -> None:
        """Write an intermediate value of a running trial."""
        self._changed.add(trial_id)
        self._backend.set_trial_intermediate_value(trial_id, step, intermediate_value)

    def set_trial_user_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a user attribute of a running trial."""
        self._changed.add(trial_id)
        self._backend.set_trial_user_attr(trial_id, key, value)

    def set_trial_system_attr(self, trial_id: int, key: str, value: Any) -> None:
        """Write a system attribute of a running trial, or note it on the draft."""
        if trial_id == DRAFT and self._draft is not None:
            self._draft.system_attrs[key] = value
            return
        self._changed.add(trial_id)
        self._backend.set_trial_system_attr(trial_id, key, value)

    def get_study_user_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the study's user attributes; they are not to be changed."""
        if "user" not in self._attributes:
            self._attributes["user"] = self._backend.get_study_user_attrs(study_id)
        return self._attributes["user"]

    def get_study_system_attrs(self, study_id: int) -> dict[str, Any]:
        """Return the study's system attributes; they are not to be changed."""
        if "system" not in self._attributes:
            self._attributes["system"] = self._backend.get_study_system_attrs(study_id)
        return self._attributes["system"]

    def set_study_user_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write a user attribute of the study."""
        self._attributes.pop("user", None)
        self._backend.set_study_user_attr(study_id, key, value)

    def set_study_system_attr(self, study_id: int, key: str, value: Any) -> None:
        """Write a system attribute of the study."""
        self._attributes.pop("system", None)
        self._backend.set_study_system_attr(study_id, key, value)

    def create_new_study(
        self, directions: Sequence[StudyDirection], study_name: str | None = None
    ) -> int:
        """Refuse a second study."""
        raise StudyError(_ONE_STUDY)

    def delete_study(self, study_id: int) -> None:
        """Refuse to delete the study."""
        raise StudyError(_ONE_STUDY)

    def get_study_id_from_name(self, study_name: str) -> int:
        """Return Optuna's identifier of the study."""
        return self._backend.get_study_id_from_name(study_name)

    def get_study_name_from_id(self, study_id: int) -> str:
        """Return the study's name."""
        return self._backend.get_study_name_from_id(study_id)

    def get_study_directions(self, study_id: int) -> list[StudyDirection]:
        """Return the directions of the objectives."""
        return self._backend.get_study_directions(study_id)

    def get_all_studies(self) -> list[FrozenStudy]:
        """Return all studies of the storage."""
        return self._backend.get_all_studies()

    def remove_session(self) -> None:
        """Close the connections of this thread."""
        self._backend.remove_session()
