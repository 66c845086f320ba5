import optuna
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from autocompress.controller.current import (
    EARLIER,
    CurrentStudy,
    Judgement,
    by_number,
    earlier_trials,
)
from autocompress.controller.records import evaluation
from autocompress.controller.sampler import distributions
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(1, 32))


def told() -> optuna.Study:
    study = optuna.create_study(directions=["minimize"] * 2)
    for value in (1.0, 2.0):
        trial = study.ask({"x": IntDistribution(0, 5)})
        trial.set_constraint("old", 1.0)
        study.tell(trial, [value, -value])
    study.tell(study.ask(), state=TrialState.PRUNED)
    return study


def test_without_a_judge_trials_are_as_they_were_told() -> None:
    study = told()
    assert CurrentStudy(study).trials == study.trials


def test_completed_trials_show_what_they_are_judged_at() -> None:
    study = told()
    view = CurrentStudy(study)
    view.judge = lambda trial: Judgement(
        losses=[10.0 + trial.number, 0.0], violations={"size": 0.5 - trial.number}
    )
    seen = view.get_trials(deepcopy=False)
    assert [trial.values for trial in seen] == [[10.0, 0.0], [11.0, 0.0], None]
    assert [dict(trial.constraints) for trial in seen[:2]] == [{"size": 0.5}, {"size": -0.5}]
    assert [trial.params for trial in seen] == [trial.params for trial in study.trials]
    assert study.trials[0].values == [1.0, -1.0]
    again = view.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    assert all(one is other for one, other in zip(again, seen, strict=False))
    assert len(again) == 2


def test_samplers_learn_from_the_judged_values() -> None:
    """What was told says low x is good; the judge says that high x is."""
    study = optuna.create_study()
    for x in range(0, 20):
        trial = study.ask(fixed_distributions={"x": IntDistribution(x, x)})
        study.tell(trial, float(x))
    wide = optuna.create_study()
    wide.add_trials(
        [
            optuna.trial.create_trial(
                value=trial.value, params=trial.params, distributions={"x": IntDistribution(0, 19)}
            )
            for trial in study.trials
        ]
    )
    view = CurrentStudy(wide)
    view.judge = lambda trial: Judgement(losses=[-float(trial.params["x"])], violations={})
    sampler = optuna.samplers.TPESampler(seed=0, multivariate=True)
    running = wide.ask()
    frozen = wide.trials[running.number]
    proposed = sampler.sample_relative(view, frozen, {"x": IntDistribution(0, 19)})
    assert proposed["x"] >= 10


def test_a_trial_is_judged_once_while_nothing_is_learned() -> None:
    asked: list[int] = []

    def judge(trial: optuna.trial.FrozenTrial) -> Judgement:
        asked.append(trial.number)
        return Judgement(losses=[0.0, 0.0], violations={})

    view = CurrentStudy(told())
    view.judge = by_number(judge)
    assert [t.values for t in view.trials] == [t.values for t in view.trials]
    assert asked == [0, 1]


def test_trials_of_earlier_studies_join() -> None:
    study = optuna.create_study(directions=["minimize"] * 2)
    candidate = SPACE.uniform(8, 8, 0.5)
    found = FidelityResult(accuracy=0.7, images=10, trained_images=0, seconds=1.0)
    known = Evaluation(slot=-1, candidate=candidate, origin=EARLIER, fidelities={0: found})
    view = CurrentStudy(study)
    assert not view.has_joined
    view.join(earlier_trials([known], SPACE, distributions(SPACE), 2))
    view.judge = lambda trial: Judgement(
        losses=[1.0 - evaluation(trial).fidelities[0].accuracy, 0.0], violations={}
    )
    (seen,) = view.get_trials(states=(TrialState.COMPLETE,))
    assert view.has_joined
    assert seen.number < 0
    assert seen.values[0] == 1.0 - 0.7
    assert SPACE.from_params(seen.params) == candidate
    assert evaluation(seen) == known
    assert view.get_trials(states=(TrialState.RUNNING,)) == []
    assert study.trials == []
