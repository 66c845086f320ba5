import numpy as np
import pytest

from autocompress.controller.acquisition import improvements
from autocompress.core.pareto import hypervolume


@pytest.mark.parametrize("objectives", [1, 2])
def test_improvements_are_differences_of_hypervolumes(objectives: int) -> None:
    rng = np.random.default_rng(objectives)
    for size in (0, 1, 7):
        front = rng.random((size, objectives)) * 1.2
        candidates = np.concatenate([rng.random((40, objectives)) * 1.2, front])
        reference = np.ones(objectives)
        before = hypervolume(front, reference) if size else 0.0
        expected = [
            hypervolume(np.concatenate([front, row[None]]), reference) - before
            for row in candidates
        ]
        np.testing.assert_allclose(improvements(candidates, front, reference), expected, atol=1e-12)


def test_three_objectives_are_sampled_to_within_a_percent_of_the_box() -> None:
    rng = np.random.default_rng(3)
    front, candidates = rng.random((6, 3)), rng.random((30, 3))
    reference = np.ones(3)
    before = hypervolume(front, reference)
    expected = np.array(
        [hypervolume(np.concatenate([front, row[None]]), reference) - before for row in candidates]
    )
    found = improvements(candidates, front, reference)
    np.testing.assert_allclose(found, expected, atol=0.01)
    assert (found[expected == 0.0] == 0.0).all()
