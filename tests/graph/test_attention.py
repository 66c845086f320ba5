import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.core.candidate import Candidate
from autocompress.cost.analytic import count_costs
from autocompress.graph.attention import NarrowAttention
from autocompress.graph.slicing import prune_groups, remove_channels
from autocompress.graph.structure import ChannelGroup
from autocompress.graph.tracing import trace
from autocompress.graph.widths import pruned_widths
from autocompress.transform.compress import compress_model
from zoo import VisionTransformer


def _members(group: ChannelGroup) -> dict[tuple[str, str], tuple[tuple[int, ...], ...]]:
    return {(member.module, member.axis): member.indices for member in group.members}


def _head(position: int, size: int, parts: int = 1, heads: int = 1) -> tuple[int, ...]:
    """Positions of one head in a projection of several parts."""
    width = size * heads
    return tuple(p * width + position * size + i for p in range(parts) for i in range(size))


def test_heads_of_a_fused_projection_go_whole_and_are_counted() -> None:
    model = VisionTransformer(24, 1, 3)
    groups = trace(model, torch.randn(2, 3, 16, 16)).group_by_name
    heads = _members(groups["layers.0.attn.qkv"])
    assert heads["layers.0.attn.qkv", "out"] == tuple(_head(h, 8, 3, 3) for h in range(3))
    assert heads["layers.0.attn.proj", "in"] == tuple(_head(h, 8) for h in range(3))
    assert heads["layers.0.attn", ".num_heads"] == ((0,), (1,), (2,))
    assert groups["patches"].reason == "normalised over its channels (LayerNorm)"
    assert [n for n, g in groups.items() if g.prunable] == ["layers.0.attn.qkv", "layers.0.fc1"]
    prune_groups(model, [(groups["layers.0.attn.qkv"], [1]), (groups["layers.0.fc1"], [0, 5])])
    assert model.layers[0].attn.num_heads == 2
    assert model(torch.randn(2, 3, 16, 16)).shape == (2, 5)


class SeparateAttention(nn.Module):
    """Self-attention with three projections, as BERT has it."""

    def __init__(self, dim: int, heads: int) -> None:
        super().__init__()
        self.num_attention_heads, self.attention_head_size = heads, dim // heads
        self.all_head_size = dim
        self.query, self.key, self.value = (nn.Linear(dim, dim) for _ in range(3))
        self.dense = nn.Linear(dim, dim)

    def _split(self, x: Tensor) -> Tensor:
        shape = (*x.shape[:-1], self.num_attention_heads, self.attention_head_size)
        return x.view(shape).permute(0, 2, 1, 3)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self._split(self.query(x)), self._split(self.key(x)), self._split(self.value(x))
        scores = q @ k.transpose(-1, -2) / self.attention_head_size**0.5
        mixed = (scores.softmax(-1) @ v).permute(0, 2, 1, 3).contiguous()
        return self.dense(mixed.view(*mixed.shape[:-2], self.all_head_size))


def test_heads_of_separate_projections_and_their_attributes_follow() -> None:
    model = nn.Sequential(nn.Linear(5, 12), SeparateAttention(12, 4), nn.Linear(12, 3))
    groups = trace(model, torch.randn(2, 7, 5)).group_by_name
    group = groups["1.query"]
    assert (group.channels, group.prunable) == (4, True)
    members = _members(group)
    thirds = tuple(_head(h, 3) for h in range(4))
    assert all(members[f"1.{name}", "out"] == thirds for name in ("query", "key", "value"))
    assert members["1.dense", "in"] == members["1", ".all_head_size"] == thirds
    assert groups["0"].prunable
    prune_groups(model, [(group, [0, 2])])
    assert (model[1].num_attention_heads, model[1].all_head_size) == (2, 6)
    assert model(torch.randn(2, 7, 5)).shape == (2, 7, 3)


def _attend(layer: nn.MultiheadAttention, x: Tensor, **options: object) -> Tensor:
    return layer(x, x, x, **options)


@pytest.mark.parametrize("batch_first", [True, False])
@pytest.mark.parametrize("bias", [True, False])
def test_a_narrow_attention_equals_one_whose_heads_are_masked(
    batch_first: bool, bias: bool
) -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(12, 3, bias=bias, batch_first=batch_first).eval()
    if bias:
        nn.init.normal_(layer.in_proj_bias)
    rows = [part * 12 + 4 + i for part in range(3) for i in range(4)]  # the second head
    narrow, masked = copy.deepcopy(layer), copy.deepcopy(layer)
    remove_channels(narrow, "out", rows)
    remove_channels(narrow.out_proj, "in", [4, 5, 6, 7])
    with torch.no_grad():
        masked.in_proj_weight[rows] = 0
        if bias:
            masked.in_proj_bias[rows] = 0
    assert isinstance(narrow, NarrowAttention)
    assert (narrow.num_heads, narrow.embed_dim) == (2, 12)
    x = torch.randn(4, 5, 12)
    n, t = (4, 5) if batch_first else (5, 4)
    padding = torch.zeros(n, t, dtype=torch.bool)
    padding[1, -1] = True
    causal = torch.ones(t, t, dtype=torch.bool).triu(1)
    for options in ({}, {"attn_mask": causal}, {"key_padding_mask": padding}):
        got, weights = _attend(narrow, x, **options)
        expected, _ = _attend(masked, x, **options)
        torch.testing.assert_close(got, expected)
        assert weights.shape == (n, t, t)
    both = {"attn_mask": causal, "key_padding_mask": padding, "need_weights": False}
    torch.testing.assert_close(_attend(narrow, x, **both)[0], _attend(masked, x, **both)[0])
    some = torch.rand(n, 1, t, t) < 0.5
    some[..., 0] = False
    each = {"attn_mask": some.expand(n, 2, t, t).flatten(0, 1)}
    expected, _ = _attend(masked, x, attn_mask=some.expand(n, 3, t, t).flatten(0, 1))
    torch.testing.assert_close(_attend(narrow, x, **each)[0], expected)
    single, weights = _attend(narrow, x[0], average_attn_weights=False)
    torch.testing.assert_close(single, _attend(masked, x[0])[0])
    assert weights.shape == (2, 5, 5)


def test_encoder_layers_lose_heads_and_hidden_features() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(12, 3, 16, batch_first=True)
    model = nn.Sequential(
        *(
            nn.Linear(6, 12),
            nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
            nn.Flatten(),
            nn.Linear(60, 3),
        )
    ).eval()
    groups = trace(model, torch.randn(2, 5, 6)).group_by_name
    prunable = [name for name, group in groups.items() if group.prunable]
    assert prunable == [
        f"1.layers.{i}.{name}" for i in range(2) for name in ("self_attn", "linear1")
    ]
    heads = _members(groups["1.layers.0.self_attn"])
    assert heads["1.layers.0.self_attn", "out"] == tuple(_head(h, 4, 3, 3) for h in range(3))
    assert heads["1.layers.0.self_attn.out_proj", "in"] == tuple(_head(h, 4) for h in range(3))
    prune_groups(model, [(groups[name], [1]) for name in prunable])
    for mode in (torch.enable_grad, torch.no_grad):
        with mode():
            assert model(torch.randn(2, 5, 6)).shape == (2, 3)
    assert model[1].layers[0].self_attn.num_heads == 2
    assert model[1].layers[1].linear2.in_features == 15


def test_a_fixed_number_of_heads_is_refused() -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.qkv, self.proj = nn.Linear(12, 36), nn.Linear(12, 12)

        def forward(self, x: Tensor) -> Tensor:
            q, k, v = self.qkv(x).reshape(*x.shape[:2], 3, 4, 3).permute(2, 0, 3, 1, 4).unbind(0)
            mixed = functional.scaled_dot_product_attention(q, k, v)
            return self.proj(mixed.transpose(1, 2).flatten(2))

    model = nn.Sequential(nn.Linear(5, 12), Attention(), nn.Linear(12, 3))
    group = trace(model, torch.randn(2, 7, 5)).group("1.qkv")
    assert not group.prunable
    assert "does not run" in group.reason


@pytest.mark.parametrize("returned", [0, 1])
def test_averaged_weights_matter_only_where_they_are_read(returned: int) -> None:
    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x, x)[returned]

    model = nn.Sequential(nn.Linear(5, 12), Attention(), nn.Linear((12, 7)[returned], 2))
    group = trace(model, torch.randn(2, 7, 5)).group("1.inner")
    assert group.prunable == (returned == 0)
    assert group.reason == ("", "averaged over its channels")[returned]


def test_projections_of_attention_in_one_module_are_counted() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.MultiheadAttention(12, 3, batch_first=True)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x, x[:, :2], x[:, :2], need_weights=False)[0]

    model = nn.Sequential(nn.Linear(5, 12), Block(), nn.Linear(12, 2)).eval()
    graph = trace(model, torch.randn(2, 7, 5))
    packed, out = graph.layer("1.inner"), graph.layer("1.inner.out_proj")
    assert packed.macs == (7 + 2 + 2) * 12 * 12
    assert out.macs == 7 * 12 * 12
    assert sum(layer.parameters for layer in graph.layers) == graph.parameters
    assert not packed.quantisable
    heads = graph.group("1.inner")
    assert (heads.channels, heads.width) == (3, 12)
    candidate = Candidate(pruning_ratios={"1.inner": 1 / 3})
    widths = pruned_widths(graph, candidate)
    prune_groups(model, [(heads, [1])])
    assert widths["1.inner"].parameters == 24 * 12 + 24
    assert widths["1.inner.out_proj"].parameters == 8 * 12 + 12
    assert sum(w.parameters for w in widths.values()) == sum(p.numel() for p in model.parameters())
    assert widths["1.inner"].macs == packed.macs * 2 // 3
    left = sum(p.numel() for p in model.parameters())
    costs = [count_costs(graph, c) for c in (Candidate(), candidate)]
    assert costs[1]["parameters"] == left
    saved = costs[0]["size_bytes"] - costs[1]["size_bytes"]
    assert saved == pytest.approx(4 * (graph.parameters - left), abs=100)  # the cut is noted


class _Padded(nn.Module):
    """An encoder of padded sequences, whose evaluation goes by nested tensors."""

    def __init__(self) -> None:
        super().__init__()
        layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
        self.e, self.h = nn.TransformerEncoder(layer, 2), nn.Linear(16, 5)

    def forward(self, x: Tensor, pad: Tensor) -> Tensor:
        return self.h(self.e(x, src_key_padding_mask=pad)[:, 0])


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors:UserWarning")
@pytest.mark.parametrize(
    "candidate",
    [
        Candidate(pruning_ratios={"e.layers.1.self_attn": 0.5}),
        Candidate(dropped_blocks=("e.layers.0",)),
    ],
)
def test_encoders_of_padded_sequences_run_after_surgery(candidate: Candidate) -> None:
    model, x, pad = _Padded().eval(), torch.randn(2, 6, 16), torch.zeros(2, 6, dtype=torch.bool)
    pad[1, 4:] = True
    graph = trace(model, (x, pad))
    compressed = compress_model(model, graph, candidate, ((x, pad), {}))
    with torch.no_grad():
        found = compressed(x, pad)
    torch.testing.assert_close(found, compressed(x, pad))  # with gradients, nothing is nested
    assert model.e.use_nested_tensor


def test_groups_of_encoders_of_padded_sequences_are_removed_in_place() -> None:
    model, x, pad = _Padded().eval(), torch.randn(2, 6, 16), torch.zeros(2, 6, dtype=torch.bool)
    prune_groups(model, [(trace(model, (x, pad)).group("e.layers.1.self_attn"), [0])])
    with torch.no_grad():
        assert model(x, pad).shape == (2, 5)
