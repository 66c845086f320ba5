import numpy as np
import optuna
import torch

from autocompress.controller.haq import WARM_UP, HaqSampler


def run(study: optuna.Study, trials: int, variables: int = 2) -> None:
    for _ in range(trials):
        trial = study.ask()
        levels = [trial.suggest_int(f"x{n}", 0, 7) for n in range(variables)]
        study.tell(trial, float(sum((7 - level) ** 2 for level in levels)))


def test_the_agent_learns_where_rewards_are_and_leaves_torch_alone() -> None:
    state = torch.get_rng_state()
    study = optuna.create_study(sampler=HaqSampler(seed=0))
    run(study, WARM_UP + 24)
    values = np.array([trial.value for trial in study.trials], dtype=np.float64)
    assert values[-8:].mean() < 0.7 * values[:WARM_UP].mean()
    assert torch.equal(torch.get_rng_state(), state)


def test_losses_that_changed_are_learned_anew() -> None:
    """What was learned from other losses is forgotten, as on resuming."""
    studies = [optuna.create_study(sampler=HaqSampler(seed=1)) for _ in range(2)]
    run(studies[0], WARM_UP + 3)
    flipped = [
        optuna.trial.create_trial(
            value=-trial.values[0], params=trial.params, distributions=trial.distributions
        )
        for trial in studies[0].trials
    ]
    studies[1].add_trials(flipped)
    other = optuna.create_study(sampler=studies[0].sampler)  # an agent per study
    other.add_trials(flipped)
    run(studies[1], 1)
    run(other, 1)
    assert studies[1].trials[-1].params == other.trials[-1].params


def test_an_agent_of_two_studies_keeps_them_apart() -> None:
    alone, both = HaqSampler(seed=2), HaqSampler(seed=2)
    run(optuna.create_study(sampler=both), 3, variables=3)
    studies = [optuna.create_study(sampler=sampler) for sampler in (alone, both)]
    for study in studies:
        run(study, WARM_UP + 3)
    first, second = ([trial.params for trial in study.trials] for study in studies)
    assert first == second
