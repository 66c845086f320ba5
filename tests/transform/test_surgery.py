import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError, WrongTypeError
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from autocompress.transform.record import Cut, SurgeryRecord
from autocompress.transform.surgery import axis_size, cut_model, plan_cuts
from seasoned import pruned, seasoned


def _masked(model: nn.Module, dropped: tuple[str, ...], cuts: tuple[Cut, ...]) -> nn.Module:
    """Zero, in a copy, what produces the removed channels; consumers keep all their columns."""
    network = copy.deepcopy(model)
    for name in dropped:
        network.set_submodule(name, nn.Identity())
    for cut in cuts:
        if cut.axis == "out":
            module = network.get_submodule(cut.module)
            with torch.no_grad():
                for tensor in (module.weight, module.bias, getattr(module, "running_mean", None)):
                    if tensor is not None:
                        tensor[list(cut.removed)] = 0
    return network


CASES = [
    ("PlainNet", ()),
    ("ResidualNet", ("layer1.1", "layer2.1")),
    ("OptionANet", ()),
    ("InvertedResidualNet", ("blocks.0",)),
    ("ConcatNet", ()),
    ("Mlp", ()),
]


@pytest.mark.parametrize(("name", "dropped"), CASES, ids=[name for name, _ in CASES])
def test_a_pruned_model_equals_the_masked_original(name: str, dropped: tuple[str, ...]) -> None:
    model, inputs = seasoned(name)
    graph = trace(model, inputs)
    ratios = pruned(graph, 0.4)
    candidate = Candidate(pruning_ratios=ratios, dropped_blocks=dropped).canonical()
    cuts = plan_cuts(model, graph, candidate)
    assert cuts
    network = cut_model(model, dropped, cuts)
    fresh = torch.randn_like(inputs)
    with torch.no_grad():
        expected, got = _masked(model, dropped, cuts)(fresh), network(fresh)
    assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
    assert (got - model(fresh)).abs().max() > 1e-2 * expected.abs().max()
    assert sum(p.numel() for p in network.parameters()) < graph.parameters


def test_the_channels_with_the_smallest_norms_go() -> None:
    model, inputs = seasoned("PlainNet")
    candidate = Candidate(pruning_ratios={"conv2": 0.3})
    cuts = {(c.module, c.axis): c for c in plan_cuts(model, trace(model, inputs), candidate)}
    norms = model.conv2.weight.detach().abs().sum(dim=(1, 2, 3))
    smallest = tuple(sorted(norms.argsort()[: round(0.3 * 16)].tolist()))
    assert set(cuts) == {("conv2", "out"), ("bn2", "out"), ("conv3", "in")}
    assert {cut.removed for cut in cuts.values()} == {smallest}
    assert cuts["conv2", "out"].kept == tuple(c for c in range(16) if c not in smallest)
    network = cut_model(model, (), tuple(cuts.values()))
    kept = list(cuts["conv2", "out"].kept)
    torch.testing.assert_close(network.conv2.weight, model.conv2.weight[kept], rtol=0, atol=0)
    torch.testing.assert_close(network.conv3.weight, model.conv3.weight[:, kept], rtol=0, atol=0)


def test_a_dropped_block_is_the_identity_and_has_no_cuts_or_votes() -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    with torch.no_grad():  # its vote alone would keep the channels that are smallest elsewhere
        model.layer1[1].conv2.weight.copy_(model.layer1[1].conv2.weight * 0)
        model.layer1[1].conv2.weight[:4] += 100.0
        model.conv1.weight[:4] *= 1e-3
        model.layer1[0].conv2.weight[:4] *= 1e-3
    voted = Candidate(pruning_ratios={"conv1": 0.5})
    dropped = Candidate(pruning_ratios={"conv1": 0.5}, dropped_blocks=("layer1.1",))
    with_vote, without = (plan_cuts(model, graph, c) for c in (voted, dropped))
    assert next(c.removed for c in with_vote if c.module == "conv1") == (4, 5, 6, 7)
    assert next(c.removed for c in without if c.module == "conv1") == (0, 1, 2, 3)
    assert not [c for c in without if c.module.startswith("layer1.1.")]
    only = cut_model(model, ("layer1.1",), ())
    by_hand = copy.deepcopy(model)
    by_hand.layer1 = by_hand.layer1[:1]
    with torch.no_grad():
        torch.testing.assert_close(only(inputs), by_hand(inputs), rtol=0, atol=0)


def test_at_least_one_channel_is_left() -> None:
    model, inputs = seasoned("Mlp")
    cuts = plan_cuts(model, trace(model, inputs), Candidate(pruning_ratios={"fc1": 0.99}))
    assert len(next(c for c in cuts if c.module == "fc1").kept) == 1


@pytest.mark.parametrize(
    ("candidate", "message"),
    [
        (Candidate(pruning_ratios={"conv2": 0.5}), "channel group.*did you mean"),
        (Candidate(dropped_blocks=("layer1.2",)), "did you mean 'layer1.[01]'"),
        (Candidate(pruning_ratios={"fc": 0.5}), "prunable group, got output layer"),
        (Candidate(dropped_blocks=("layer2.0",)), "expected a droppable block"),
    ],
)
def test_what_the_model_lacks_or_cannot_do_is_refused(candidate: Candidate, message: str) -> None:
    model, inputs = seasoned("ResidualNet")
    with pytest.raises(InvalidInputError, match=message):
        plan_cuts(model, trace(model, inputs), candidate)


def test_cuts_of_another_architecture_are_refused() -> None:
    model, _ = seasoned("PlainNet")
    with pytest.raises(InvalidInputError, match="'out' axis has 9 channels, got 8"):
        cut_model(model, (), [Cut(module="conv1", axis="out", size=9, removed=(0,))])
    with pytest.raises(InvalidInputError, match="got none"):
        cut_model(model, (), [Cut(module="conv9", axis="out", size=9, removed=(0,))])
    with pytest.raises(InvalidInputError, match="block"):
        cut_model(model, ("layer1.0",), ())


def test_axes_are_counted() -> None:
    assert axis_size(nn.Conv2d(3, 4, 1), "in") == 3
    assert axis_size(nn.Linear(3, 4), "out") == 4
    assert axis_size(nn.BatchNorm2d(5), "in") == axis_size(nn.GroupNorm(1, 5), "out") == 5
    assert axis_size(nn.LayerNorm(6), "out") == 6
    with pytest.raises(WrongTypeError, match="module ReLU"):
        axis_size(nn.ReLU(), "out")


def test_a_dropped_branch_is_as_if_it_made_zeros() -> None:
    model, inputs = seasoned("BranchNet")
    graph = trace(model, inputs)
    assert graph.branches == {"first", "second"}
    model.second.register_forward_hook(lambda _, __, output: torch.zeros_like(output))
    candidate = Candidate(dropped_blocks=("second",), pruning_ratios={"first.0.0": 0.5})
    pruned = compress_model(model, graph, candidate, ((inputs,), {}))
    whole = compress_model(model, graph, replace(candidate, dropped_blocks=()), ((inputs,), {}))
    with torch.no_grad():
        torch.testing.assert_close(pruned(inputs), whole(inputs))
    assert pruned.record.branches == ("second",)
    assert SurgeryRecord.from_json(pruned.record.to_json()) == pruned.record
