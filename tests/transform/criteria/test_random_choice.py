from dataclasses import replace

import numpy as np
import torch
from torch import nn

from subjects import make_group, scores_of

MODEL = nn.ModuleDict({"a": nn.Linear(2, 9)})
GROUP = make_group(9, ("a", "out"))


def test_the_same_seed_draws_the_same_scores() -> None:
    first = scores_of("random", MODEL, GROUP, seed=3)
    torch.rand(5)
    np.testing.assert_array_equal(scores_of("random", MODEL, GROUP, seed=3), first)
    assert ((first >= 0) & (first < 1)).all()
    assert len(set(first)) == 9


def test_other_seeds_and_other_groups_draw_others() -> None:
    first = scores_of("random", MODEL, GROUP, seed=3)
    assert (scores_of("random", MODEL, GROUP, seed=4) != first).any()
    assert (scores_of("random", MODEL, replace(GROUP, name="b"), seed=3) != first).any()


def test_the_random_state_is_left_alone() -> None:
    state = torch.get_rng_state()
    scores_of("random", MODEL, GROUP)
    assert torch.equal(torch.get_rng_state(), state)
