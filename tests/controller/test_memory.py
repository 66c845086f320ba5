import numpy as np
import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState, create_trial

from autocompress.controller.current import CurrentStudy, Judgement
from autocompress.controller.genes import Genes
from autocompress.controller.memory import PROPOSAL, Memory

SPACE = {"x": IntDistribution(0, 4), "y": IntDistribution(0, 4)}
GENES = Genes.of(SPACE)


def trial(x: int, y: int | None = None, **fields: object) -> optuna.trial.FrozenTrial:
    params = {"x": x} | ({} if y is None else {"y": y})
    return create_trial(
        params=params,
        distributions={name: SPACE[name] for name in params},
        **({"values": [float(x), 1.0]} | fields),  # type: ignore[arg-type]
    )


def study_of(*trials: optuna.trial.FrozenTrial) -> optuna.Study:
    study = optuna.create_study(directions=["minimize", "maximize"])
    study.add_trials(trials)
    return study


def test_completed_trials_become_rows_of_losses() -> None:
    study = study_of(
        trial(1, 2), trial(3, constraints={"limit": 0.5}), trial(2, 2, values=[np.inf, 0.0])
    )
    history = Memory().history(study, GENES)
    assert history.rows.tolist() == [[1.0, 2.0], [3.0, 0.0]]
    assert history.active.tolist() == [[True, True], [True, False]]
    assert history.losses.tolist() == [[1.0, -1.0], [3.0, -1.0]]
    assert history.feasible.tolist() == [True, False]
    assert history.places.tolist() == [0, 1]
    assert history.own.all()


def test_places_do_not_count_what_failed() -> None:
    study = study_of(trial(0, 0), trial(1, 1, state=TrialState.FAIL, values=None), trial(2, 2))
    assert Memory().history(study, GENES).places.tolist() == [0, 1]
    assert Memory.place(study, study.trials[-1]) == 1
    assert Memory.spent(study, GENES).tolist() == [[1.0, 1.0]]


def test_trials_that_run_are_known_by_their_proposals() -> None:
    study = study_of(trial(0, 0))
    mine, proposed, suggested, unknown = (study.ask() for _ in range(4))
    study._storage.set_trial_system_attr(proposed._trial_id, PROPOSAL, {"x": 3.0, "y": 1.0})
    suggested.suggest_int("x", 0, 4)
    suggested.suggest_int("y", 0, 4)
    unknown.suggest_int("x", 0, 4)
    rows = Memory.pending(study, GENES, study.trials[mine.number])
    assert rows.tolist() == [[3.0, 1.0], list(map(float, suggested.params.values()))]


def test_values_that_change_are_read_again() -> None:
    study, memory = CurrentStudy(study_of(trial(1, 2), trial(3, 3))), Memory()
    before = memory.history(study, GENES)
    study.judge = lambda seen: Judgement(losses=[9.0, seen.params["x"]], violations={"size": -1.0})
    after = memory.history(study, GENES)
    assert before.losses.tolist() == [[1.0, -1.0], [3.0, -1.0]]
    assert after.losses.tolist() == [[9.0, -1.0], [9.0, -3.0]]
    assert after.constraints["size"].tolist() == [-1.0, -1.0]
    assert before.equals(before.first(2))
    assert not before.equals(after)


def test_the_space_is_what_never_changed() -> None:
    study = study_of(trial(1, 2))
    study.add_trial(
        create_trial(
            values=[0.0, 0.0],
            params={"x": 0, "y": 7},
            distributions={"x": SPACE["x"], "y": IntDistribution(0, 9)},
        )
    )
    assert Memory().space(study) == {"x": SPACE["x"]}
