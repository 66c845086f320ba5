from dataclasses import replace

import numpy as np
import torch
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.population import Population
from autocompress.cost.peak_memory import peak_activation_bytes
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from autocompress.graph.widths import all_widths
from toy_graphs import residual_graph

GRAPH = residual_graph(blocks=2, width=32)
TENSOR = 32 * 8 * 8


def _peak(candidate: Candidate, graph: ModelGraph = GRAPH) -> int:
    population = Population.of([candidate])
    return int(peak_activation_bytes(graph, population, all_widths(graph, population))[0])


def test_the_second_layer_of_a_block_holds_three_tensors() -> None:
    assert _peak(Candidate()) == 3 * 4 * TENSOR


def test_bits_and_pruning_lower_the_peak() -> None:
    int8 = LayerConfig(weight_bits=8, activation_bits=8)
    layers = {layer.name: int8 for layer in GRAPH.layers if layer.quantisable}
    # The output of the last block is read by the classifier in floating point.
    assert _peak(Candidate(layers=layers)) == (1 + 1 + 4) * TENSOR
    whole = Population.of([Candidate()])
    widths = all_widths(GRAPH, whole)
    for block in range(2):
        first, second = f"blocks.{block}.conv1", f"blocks.{block}.conv2"
        widths[first] = replace(widths[first], out_channels=np.array([16]))
        widths[second] = replace(widths[second], in_channels=np.array([16]))
    assert peak_activation_bytes(GRAPH, whole, widths) == 2.5 * 4 * TENSOR


def test_a_chain_holds_two_tensors() -> None:
    chain = ModelGraph(
        layers=GRAPH.layers,
        operations=(),
        groups=GRAPH.groups,
        blocks=(),
        parameters=GRAPH.parameters,
        fingerprint="chain",
    )
    assert _peak(Candidate(), chain) == 2 * 4 * TENSOR


def test_an_embedding_reads_numbers_of_tokens() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Embedding(1000, 16), nn.Flatten(), nn.Linear(80, 4)).eval()
    graph = trace(model, torch.zeros(2, 5, dtype=torch.int64))
    # 5 tokens of 8 bytes, and 5 x 16 floats; the linear layer reads them and writes 4 floats.
    assert _peak(Candidate(), graph) == max(5 * 8 + 80 * 4, 80 * 4 + 4 * 4)
    small = LayerConfig(weight_bits=8, activation_bits=8)
    assert _peak(Candidate(layers={"0": small, "2": small}), graph) == 5 * 8 + 80
