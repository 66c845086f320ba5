import copy
import random
import statistics
import time
from collections.abc import Sequence

import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from autocompress.transform.criteria import CRITERIA, gather_evidence
from autocompress.transform.ranks import Ranks
from autocompress.transform.surgeon import Surgeon
from cifar10_models import make_model
from seasoned import SHAPES, pruned, seasoned


def _drawn(graph: ModelGraph, seed: int, criteria: Sequence[str] = tuple(CRITERIA)) -> Candidate:
    """Draw a candidate that does a little of everything."""
    rng = random.Random(seed)
    bits = ((2, 8), (4, 8), (8, 8), (32, 32))
    blocks = [block.name for block in graph.blocks if block.droppable]
    layers = {layer.name: rng.choice(bits) for layer in graph.layers if layer.quantisable}
    return Candidate(
        pruning_ratios={g.name: rng.random() * 0.8 for g in graph.groups if g.prunable},
        dropped_blocks=tuple(name for name in blocks if rng.random() < 0.3),
        criterion=rng.choice(criteria),
        layers={n: LayerConfig(weight_bits=w, activation_bits=a) for n, (w, a) in layers.items()},
    )


@pytest.mark.parametrize("name", SHAPES)
def test_what_is_kept_gives_the_same_models_as_a_fresh_start(name: str) -> None:
    model, inputs = seasoned(name)
    graph = trace(model, inputs)
    labels = torch.arange(len(inputs)) % 4

    def gather() -> object:
        return gather_evidence(
            model,
            graph,
            [inputs],
            lambda module, batch: module(batch),
            lambda outputs, _: nn.functional.cross_entropy(outputs, labels),
            seed=7,
        )

    surgeon = Surgeon(model, graph, ((inputs,), {}), gather=gather, seed=7)
    for seed in range(12):
        candidate = _drawn(graph, seed)
        kept = surgeon.compress(candidate)
        ranks = Ranks(model, graph, gather=gather, seed=7)
        fresh = compress_model(model, graph, candidate, ((inputs,), {}), ranks=ranks)
        assert kept.record == fresh.record
        ours, theirs = kept.network.state_dict(), fresh.network.state_dict()
        assert list(ours) == list(theirs)
        assert all(torch.equal(ours[key], theirs[key]) for key in ours)


@pytest.mark.parametrize("name", ["ResidualNet", "InvertedResidualNet", "Mlp"])
def test_results_share_nothing_with_the_model_or_each_other(name: str) -> None:
    model, inputs = seasoned(name)
    graph = trace(model, inputs)
    before = copy.deepcopy(model.state_dict())
    surgeon = Surgeon(model, graph, ((inputs,), {}))
    candidate = Candidate(pruning_ratios=pruned(graph, 0.5))
    first, second = surgeon.compress(candidate), surgeon.compress(candidate)
    whole = surgeon.compress(Candidate())
    unchanged = copy.deepcopy(second.network.state_dict())
    with torch.no_grad():
        for result in (first, whole):
            for tensor in (*result.parameters(), *result.buffers()):
                tensor.zero_()
    assert all(torch.equal(t, before[key]) for key, t in model.state_dict().items())
    assert all(torch.equal(t, unchanged[key]) for key, t in second.network.state_dict().items())


def test_every_group_has_scores() -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    scores = Surgeon(model, graph, ((inputs,), {})).scores("l2")
    assert {n: len(found) for n, found in scores.items()} == {
        group.name: group.channels for group in graph.groups if group.prunable
    }


@pytest.mark.bench
def test_another_candidate_of_a_resnet_56_takes_less_than_50_ms() -> None:
    model, inputs = make_model(56).eval(), torch.randn(2, 3, 32, 32)
    graph = trace(model, inputs)
    surgeon = Surgeon(model, graph, ((inputs,), {}))
    seconds = []
    for seed in range(12):
        candidate = _drawn(graph, seed, criteria=("l1", "l2", "bn_scale"))
        started = time.process_time()
        surgeon.compress(candidate)
        seconds.append(time.process_time() - started)
    assert statistics.median(seconds[2:]) < 0.05
