import numpy as np
import pytest

from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.population import Population

MANY = [
    Candidate(),
    Candidate(
        pruning_ratios={"conv1": 0.5, "conv2": 0.25},
        dropped_blocks=("block2",),
        criterion="l2",
        layers={"conv2": LayerConfig(weight_bits=4, activation_bits=8)},
    ),
    Candidate(
        pruning_ratios={"conv2": 0.75},
        dropped_blocks=("block1", "block2"),
        layers={
            "conv1": LayerConfig(weight_bits=8, activation_bits=8),
            "conv2": LayerConfig(weight_bits=4, activation_bits=8),
        },
        distill=DistillConfig(temperature=3.0),
    ),
]


def test_candidates_come_back_as_they_went_in() -> None:
    population = Population.of(MANY)
    assert list(population) == [candidate.canonical() for candidate in MANY]
    assert Population.of(population) is population


def test_columns_have_a_row_for_every_candidate_and_the_first_configuration_is_none() -> None:
    population = Population.of(MANY)
    assert population.ratios["conv2"].tolist() == [0.0, 0.25, 0.75]
    assert population.ratios["conv1"].tolist() == [0.0, 0.5, 0.0]
    assert population.dropped["block1"].tolist() == [False, False, True]
    assert population.configs[0] == LayerConfig()
    assert len(population.configs) == len(set(population.configs)) == 3
    codes = population.layers["conv2"]
    assert codes[0] == 0
    assert codes[1] == codes[2] != 0


@pytest.mark.parametrize(
    ("blocks", "gone"),
    [
        ([], [False, False, False]),
        (["block1"], [False, False, True]),
        (["block1", "block2"], [False, True, True]),
        (["a block that nobody drops"], [False, False, False]),
    ],
)
def test_a_candidate_lacks_some_blocks_if_it_drops_any(blocks: list[str], gone: list[bool]) -> None:
    np.testing.assert_array_equal(Population.of(MANY).gone(blocks), gone)


def test_no_candidates_are_a_population_too() -> None:
    assert len(Population.of([])) == 0
    assert list(Population.of([])) == []
