import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.graph.attention_product import attention
from autocompress.transform.discovery import discover_plan
from autocompress.transform.grids import activation_grid, activation_values
from seasoned import compressed


def _qkv(heads: int = 4) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    return torch.randn(2, 4, 5, 8), torch.randn(2, heads, 7, 8), torch.randn(2, heads, 7, 6)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"is_causal": True},
        {"scale": 0.1},
        {"attn_mask": torch.randn(5, 7)},
        {"attn_mask": torch.rand(2, 1, 5, 7) < 0.7},
    ],
)
def test_it_computes_what_torch_computes(options: dict) -> None:
    expected = functional.scaled_dot_product_attention(*_qkv(), **options)
    torch.manual_seed(0)
    torch.testing.assert_close(attention(*_qkv(), **options), expected)


def test_heads_may_share_keys() -> None:
    query, key, value = _qkv(heads=2)
    expected = functional.scaled_dot_product_attention(query, key, value, enable_gqa=True)
    torch.testing.assert_close(attention(query, key, value, enable_gqa=True), expected)


def test_dropout_keeps_the_mean() -> None:
    query, key = torch.zeros(1, 1, 2000, 4), torch.randn(1, 1, 50, 4)
    found = attention(query, key, torch.ones(1, 1, 50, 1), dropout_p=0.5)
    assert found.std() > 0.05
    assert found.mean().item() == pytest.approx(1.0, abs=0.02)


class Attention(nn.Module):
    """One head over tokens; input `n x tokens x 8`."""

    def __init__(self, fused: bool) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(8, 24), nn.Linear(8, 8)
        self.fused = fused

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        if self.fused:
            return self.out(functional.scaled_dot_product_attention(q, k, v))
        weights = torch.softmax(q @ k.transpose(-2, -1) / 8**0.5, dim=-1)
        return self.out(weights @ v)


W8A8 = LayerConfig(weight_bits=8, activation_bits=8)


def _on_grid(tensor: torch.Tensor, seen: torch.Tensor) -> torch.Tensor:
    low, high = (float(bound) for bound in seen.aminmax())
    return activation_values(tensor, *activation_grid(low, high, 8), 8)


@pytest.mark.parametrize("fused", [True, False])
def test_grids_reach_inside_attention(fused: bool) -> None:
    model, inputs = Attention(fused).eval(), torch.randn(16, 6, 8)
    result = compressed(model, inputs, Candidate(layers={"qkv": W8A8, "out": W8A8}), "minmax")
    names = [site.name.split(".")[0].rstrip("0123456789") for site, _ in result.sites()]
    assert names == ["qkv", "matmul", "matmul", "out"]  # q, k and v lie on one grid
    weights = {n: result.quantised_weight(n).values() for n in ("qkv", "out")}
    with torch.no_grad():
        # Calibration watches float activations, so the ranges are those of the float pass.
        whole = functional.linear(inputs, weights["qkv"], model.qkv.bias)
        q, k, v = whole.chunk(3, dim=-1)
        attended = torch.softmax(q @ k.transpose(1, 2) / 8**0.5, dim=-1)
        mixed = attended @ v
        first = functional.linear(_on_grid(inputs, inputs), weights["qkv"], model.qkv.bias)
        q2, k2, v2 = _on_grid(first, whole).chunk(3, dim=-1)
        scores = torch.softmax(q2 @ k2.transpose(1, 2) / 8**0.5, dim=-1)
        expected = functional.linear(
            _on_grid(_on_grid(scores, attended) @ v2, mixed), weights["out"], model.out.bias
        )
        torch.testing.assert_close(result(inputs), expected, rtol=1e-4, atol=1e-4)


def test_products_with_unquantised_tensors_stay_unquantised() -> None:
    model, inputs = Attention(True).eval(), torch.randn(2, 6, 8)
    plan = discover_plan(model, ((inputs,), {}), {"out": W8A8})
    assert [site.name for site in plan.sites] == ["out.input"]


@pytest.mark.parametrize("added", [False, True])
def test_a_query_that_attends_to_nothing_stays_finite(added: bool) -> None:
    query, key, value = _qkv()
    mask = torch.rand(2, 1, 5, 7) < 0.7
    mask[0, 0, 3] = False
    given = torch.zeros(mask.shape).masked_fill(~mask, -torch.inf) if added else mask
    expected = functional.scaled_dot_product_attention(query, key, value, attn_mask=given)
    found = attention(query, key, value, attn_mask=given)
    torch.testing.assert_close(found[0, :, 3], value[0].mean(dim=1, keepdim=False))
    found[0, :, 3] = expected[0, :, 3] = 0.0
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    ("kind", "added"),
    [
        (torch.float16, torch.float16),
        (torch.bfloat16, torch.bfloat16),
        (torch.float32, torch.float32),
        (torch.float32, torch.float16),
    ],
)
def test_infinite_masks_stay_finite_in_all_types(kind: torch.dtype, added: torch.dtype) -> None:
    query, key, value = (tensor.to(kind) for tensor in _qkv())
    mask = torch.full((2, 1, 5, 7), -torch.inf, dtype=added)
    assert attention(query.abs(), -key.abs(), value, attn_mask=mask).isfinite().all()
