import pytest

from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.cost.pace import TEACHER, TRAFFIC, WORK, pace
from autocompress.graph.structure import Layer
from toy_graphs import residual_graph

GRAPH = residual_graph(3, 32)
ALONE = DistillConfig(kd_weight=0.0)


def _written(layer: Layer) -> float:
    return layer.macs * layer.weight_shape[0] / layer.parameters


def test_the_original_with_a_teacher_is_the_unit() -> None:
    assert pace(GRAPH, Candidate()) == pytest.approx(1.0)
    assert pace(GRAPH, Candidate(distill=ALONE)) == pytest.approx(1.0 / (1.0 + TEACHER))


def test_dropped_blocks_save_more_time_than_pruned_channels() -> None:
    """Half of the channels inside all blocks leave what their sums read and write."""
    blocks = [block.name for block in GRAPH.blocks if block.droppable]
    dropped = Candidate(dropped_blocks=tuple(blocks), distill=ALONE)
    inner = {g.name: 0.5 for g in GRAPH.groups if g.prunable}
    narrow = Candidate(pruning_ratios=inner, distill=ALONE)
    assert pace(GRAPH, dropped) < pace(GRAPH, narrow) < pace(GRAPH, Candidate(distill=ALONE))


def test_time_is_work_and_traffic_counted_by_hand() -> None:
    block = next(block.name for block in GRAPH.blocks if block.droppable)
    macs = sum(layer.macs for layer in GRAPH.layers)
    numbers = sum(_written(layer) for layer in GRAPH.layers)
    gone = [layer for layer in GRAPH.layers if Candidate(dropped_blocks=(block,)).drops(layer.name)]
    work = 1.0 - sum(layer.macs for layer in gone) / macs
    traffic = 1.0 - sum(_written(layer) for layer in gone) / numbers
    expected = (WORK * work + TRAFFIC * traffic) / (1.0 + TEACHER)
    found = pace(GRAPH, Candidate(dropped_blocks=(block,), distill=ALONE))
    assert found == pytest.approx(expected)
