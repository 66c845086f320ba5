import numpy as np
import torch

from autocompress.graph.structure import GroupMember
from autocompress.transform.criteria.subject import Subject, sum_by_channel
from subjects import make_group, mixed


def test_positions_are_summed_into_their_channels() -> None:
    member = GroupMember(module="a", axis="in", indices=((0, 3), (), (1,)))
    values = torch.tensor([[1.0, 2.0, 4.0, 8.0], [0.5, 0.25, 0.0, 1.0]])
    expected = [[9.0, 0.0, 2.0], [1.5, 0.0, 0.25]]
    np.testing.assert_allclose(sum_by_channel(values, member).numpy(), expected)


def test_producers_have_filters_and_consumers_were_observed() -> None:
    model, graph, _ = mixed()
    subject = Subject(modules=dict(model.named_modules()), group=graph.group("conv"))
    assert [member.module for member, _ in subject.producers()] == ["conv", "depthwise"]
    observed = {"up": torch.zeros(6), "fc": torch.zeros(320)}
    assert [member.module for member, _ in subject.consumers(observed)] == ["up"]
    assert subject.blank().tolist() == [0.0] * 6


def test_axes_are_told_apart() -> None:
    model, _, _ = mixed()
    group = make_group(6, ("conv", "out"), ("up", "in"))
    subject = Subject(modules=dict(model.named_modules()), group=group)
    assert [member.module for member, _ in subject.producers()] == ["conv"]
