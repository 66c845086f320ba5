import pytest
import torch

import zoo
from autocompress.errors import InvalidInputError
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace


@pytest.fixture(scope="module")
def graph() -> ModelGraph:
    return trace(zoo.ResidualNet(), torch.zeros(2, 3, 16, 16))


def test_everything_is_found_by_its_name(graph: ModelGraph) -> None:
    assert [graph.layer(layer.name) for layer in graph.layers] == list(graph.layers)
    assert [graph.group(group.name) for group in graph.groups] == list(graph.groups)
    assert [graph.block(block.name) for block in graph.blocks] == list(graph.blocks)
    assert graph.groups
    assert graph.blocks


@pytest.mark.parametrize("kind", ["layer", "group", "block"])
def test_an_unknown_name_is_refused_with_the_closest(graph: ModelGraph, kind: str) -> None:
    known = getattr(graph, f"{kind}s")[0].name
    with pytest.raises(InvalidInputError, match=f"did you mean '{known}'"):
        getattr(graph, kind)(f"{known}x")


def test_the_fingerprint_is_of_the_architecture_not_the_weights(graph: ModelGraph) -> None:
    again = trace(zoo.ResidualNet(), torch.zeros(2, 3, 16, 16))
    wider = trace(zoo.ResidualNet(width=16), torch.zeros(2, 3, 16, 16))
    assert (again.fingerprint, hash(again)) == (graph.fingerprint, hash(graph))
    assert wider.fingerprint != graph.fingerprint
