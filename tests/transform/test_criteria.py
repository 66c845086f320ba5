import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.errors import InvalidInputError
from autocompress.graph.structure import ChannelGroup, GroupMember
from autocompress.graph.tracing import trace
from autocompress.transform.criteria import find_criterion, l1_scores
from zoo import ResidualNet


def _group(channels: int, *members: tuple[str, str]) -> ChannelGroup:
    indices = tuple((index,) for index in range(channels))
    return ChannelGroup(
        name=members[0][0],
        channels=channels,
        members=tuple(GroupMember(module=m, axis=a, indices=indices) for m, a in members),  # type: ignore[arg-type]
        prunable=True,
    )


def test_scores_are_sums_over_the_filters_that_produce_a_channel() -> None:
    model = nn.ModuleDict(
        {
            "a": nn.Conv2d(2, 3, 3),
            "norm": nn.BatchNorm2d(3),
            "b": nn.Conv2d(5, 3, 1),
            "next": nn.Conv2d(3, 4, 1),
        }
    )
    group = _group(3, ("a", "out"), ("norm", "out"), ("b", "out"), ("next", "in"))
    a, b = (model[name].weight.detach().numpy() for name in ("a", "b"))
    expected = [np.abs(a[c]).sum() + np.abs(b[c]).sum() for c in range(3)]
    np.testing.assert_allclose(l1_scores(model, group).numpy(), expected, rtol=1e-6)


def test_a_channel_may_be_several_filters() -> None:
    model = nn.ModuleDict({"a": nn.Linear(3, 6)})
    member = GroupMember(module="a", axis="out", indices=((0, 1), (2, 3), (4, 5)))
    group = ChannelGroup(name="a", channels=3, members=(member,), prunable=True)
    rows = model["a"].weight.detach().abs().sum(dim=1)
    torch.testing.assert_close(l1_scores(model, group), rows.reshape(3, 2).sum(dim=1))


def test_a_transposed_convolution_has_its_outputs_on_the_second_axis() -> None:
    model = nn.ModuleDict({"up": nn.ConvTranspose2d(2, 5, 3)})
    expected = model["up"].weight.detach().abs().sum(dim=(0, 2, 3))
    torch.testing.assert_close(l1_scores(model, _group(5, ("up", "out"))), expected)


def test_members_that_the_model_has_lost_do_not_count() -> None:
    model = ResidualNet().eval()
    group = trace(model, torch.randn(2, 3, 16, 16)).group("conv1")
    whole = l1_scores(model, group)
    lost = model.layer1[1].conv2.weight.detach().abs().sum(dim=(1, 2, 3))
    model.set_submodule("layer1.1", nn.Identity())
    torch.testing.assert_close(l1_scores(model, group), whole - lost)
    assert bool((lost > 0).all())


def test_the_model_is_only_read() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 3)})
    inputs = torch.randn(2, 4)
    before = functional.linear(inputs, model["a"].weight)
    assert not l1_scores(model, _group(3, ("a", "out"))).requires_grad
    torch.testing.assert_close(functional.linear(inputs, model["a"].weight), before)


def test_an_unknown_criterion_is_refused_with_the_closest_name() -> None:
    assert find_criterion("l1") is l1_scores
    with pytest.raises(InvalidInputError, match="did you mean 'l1'"):
        find_criterion("l11")
