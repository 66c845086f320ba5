from itertools import combinations

import numpy as np
import pytest
import torch

from autocompress.transform.codebooks import nearest_entries, optimal_codebook


def _error(values: np.ndarray, weights: np.ndarray, entries: np.ndarray) -> float:
    return float((weights * ((values[:, None] - entries[None]) ** 2).min(axis=1)).sum())


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("entries", [2, 3, 4])
def test_codebooks_are_as_good_as_any_choice_of_integers(seed: int, entries: int) -> None:
    rng = np.random.default_rng(seed)
    values = rng.integers(-12, 13, 30).astype(float)
    weights = rng.random(30) + 0.1
    found = optimal_codebook(torch.tensor(values), torch.tensor(weights), entries)
    assert found.dtype == torch.int8
    assert found.tolist() == sorted(set(found.tolist()))
    least = min(
        _error(values, weights, np.array(chosen))
        for chosen in combinations(range(-12, 13), entries)
    )
    # Means are rounded to integers after clustering, which may cost a little.
    assert _error(values, weights, found.numpy().astype(float)) <= 1.1 * least


def test_few_values_are_kept_as_they_are() -> None:
    found = optimal_codebook(torch.tensor([5.0, -127, 127, 5]), torch.ones(4), 16)
    assert found.tolist() == [-127, 5, 127]


def test_zero_is_held_where_it_is_asked_for() -> None:
    values = torch.tensor([-50.0, -49, 3, 60, 61])
    assert 0 not in optimal_codebook(values, torch.ones(5), 3).tolist()
    assert optimal_codebook(values, torch.ones(5), 3, zero=True).tolist() == [-50, 0, 60]


def test_rounding_takes_the_nearest_entry() -> None:
    book = torch.tensor([-4, 0, 10], dtype=torch.int8)
    scaled = torch.tensor([-100.0, -2.1, -2.0, 4.9, 5.0, 99.0])
    assert nearest_entries(scaled, book).tolist() == [-4, -4, 0, 0, 10, 10]
