from typing import Any

import numpy as np
import pytest

from autocompress.core.candidate import Candidate
from autocompress.core.population import Population
from autocompress.cost.analytic import count_all_costs, count_costs
from autocompress.space.bound import BoundSpace
from autocompress.space.knobs import layer_configs
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

GRAPH = residual_graph(3, 32)
SPACES = {
    "preset": SearchSpace.load("cnn").bind_graph(GRAPH),
    "tied and sparse": SearchSpace.load(
        {
            "schema_version": 1,
            "name": "tied",
            "pruning": {
                "ratios": [0.0, 0.25, 0.5],
                "ties": [["blocks.*"]],
                "criteria": ["l1", "l2"],
            },
            "quantisation": {
                "weight_bits": [4, 8, 32],
                "activation_bits": [8, 32],
                "ties": [["blocks.*.conv1"]],
            },
            "sparsity": {"levels": [0.5, "2:4"], "ties": [["*.conv2"]]},
        }
    ).bind_graph(GRAPH),
    "one bit and sparse": SearchSpace.load(
        {"quantisation": {"weight_bits": [1, 8, 32]}, "sparsity": {"levels": [0.5]}}
    ).bind_graph(GRAPH),
}


def reference(space: BoundSpace, params: dict[str, float]) -> Candidate:
    """Put a candidate together knob by knob."""

    def chosen(knobs: Any) -> dict[str, Any]:
        return {n: v for k in knobs for n, v in k.values(int(params[k.name])).items()}

    return Candidate(
        pruning_ratios=chosen(space.pruning_knobs),
        dropped_blocks=tuple(name for name in space.blocks if params[f"drop:{name}"]),
        criterion=space.criteria[int(params.get("criterion", 0))],
        layers=layer_configs(chosen(space.precision_knobs), chosen(space.sparsity_knobs)),
    ).canonical()


@pytest.mark.parametrize("name", SPACES)
def test_a_population_holds_what_each_row_stands_for(name: str) -> None:
    space = SPACES[name]
    low, high = np.array([(p.low, p.high) for p in space.parameters]).T
    table = np.floor(low + np.random.default_rng(0).random((40, len(low))) * (high + 1 - low))
    table = np.minimum(table, high)
    population = space.population(table)
    assert len(population) == len(list(population)) == 40
    names = [parameter.name for parameter in space.parameters]
    for row, candidate in zip(table.tolist(), population, strict=True):
        params = dict(zip(names, row, strict=True))
        expected = reference(space, params)
        assert candidate.pruning_ratios == expected.pruning_ratios
        assert candidate.layers == expected.layers
        assert candidate.dropped_blocks == expected.dropped_blocks
        assert candidate.criterion == expected.criterion
        assert candidate == space.from_params(params)
    together = count_all_costs(space.graph, population)
    again = count_all_costs(space.graph, Population.of(list(population)))
    for cost, values in together.items():
        alone = [count_costs(space.graph, candidate)[cost] for candidate in population]
        assert values.tolist() == again[cost].tolist() == alone


def test_one_bit_has_nothing_to_mask() -> None:
    space = SPACES["one bit and sparse"]
    sparse = space.uniform(1, 32, 0.0, sparsity=(0.5, "unstructured"))
    assert {config.weight_bits for config in sparse.layers.values()} == {1}
    assert sparse == space.uniform(1, 32, 0.0)
    names = [parameter.name for parameter in space.parameters]
    for bits, expected in ((1, False), (8, True)):
        params = space.to_params(space.uniform(bits, 32, 0.0)) | {"sparsity:conv1": 1}
        active = space.active(np.array([[params[name] for name in names]]))[0]
        assert active[names.index("sparsity:conv1")] == expected
        assert (space.from_params(params).layers["conv1"].sparsity > 0.0) == expected
