import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.graph.structure import GroupMember
from autocompress.graph.tracing import trace
from autocompress.transform.criteria import gather_evidence
from autocompress.transform.criteria.subject import Subject, sum_by_channel
from subjects import loss, make_group, mixed, run, scores_of


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


class Packed(nn.Module):
    """Attention whose queries, keys and values come from one packed weight."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.attention = nn.Linear(5, 12), nn.MultiheadAttention(12, 3, batch_first=True)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        return self.attention(x, x, x)[0].mean(1)


class Separate(nn.Module):
    """The same function with three projections."""

    def __init__(self, packed: Packed) -> None:
        super().__init__()
        self.stem, self.out, self.num_heads = packed.stem, packed.attention.out_proj, 3
        weights = packed.attention.in_proj_weight.chunk(3)
        self.query, self.key, self.value = (nn.Linear(12, 12) for _ in weights)
        for layer, weight in zip((self.query, self.key, self.value), weights, strict=True):
            layer.weight = nn.Parameter(weight.detach().clone())
            nn.init.zeros_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        q, k, v = (
            layer(x).unflatten(-1, (self.num_heads, -1)).transpose(1, 2)
            for layer in (self.query, self.key, self.value)
        )
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.out(mixed.transpose(1, 2).flatten(2)).mean(1)


@pytest.mark.parametrize("criterion", ["l1", "l2", "taylor", "hessian", "apoz", "thinet"])
def test_heads_of_a_packed_projection_score_as_those_of_separate_ones(criterion: str) -> None:
    packed = Packed().eval()
    batches = [(torch.randn(4, 6, 5), torch.randint(12, (4,))) for _ in range(2)]
    scores = []
    for model, name in ((packed, "attention"), (Separate(packed).eval(), "query")):
        graph = trace(model, batches[0][0])
        assert graph.group(name).channels == 3
        evidence = gather_evidence(model, graph, batches, run, loss)
        scores.append(scores_of(criterion, model, graph.group(name), evidence))
    assert (scores[0] > 0).all()
    if criterion != "thinet":  # which samples outputs, not the same ones of other models
        np.testing.assert_allclose(scores[0], scores[1], rtol=1e-4)
