"""Attention as the operations it consists of, so that grids reach inside."""

import math

import torch
from torch import Tensor

FUSED = "scaled_dot_product_attention"


def attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """Compute what `torch.nn.functional.scaled_dot_product_attention` computes.

    Args:
        query: ... x queries x features.
        key: ... x keys x features.
        value: ... x keys x outputs.
        attn_mask: Booleans, True where attention may go, or numbers that are
            added to the scores; broadcasts with ... x queries x keys.
        dropout_p: Share of the attention that is dropped.
        is_causal: Whether a query attends to no later key.
        scale: Factor on the scores; None for 1 / sqrt(features).
        enable_gqa: Whether several heads of the query share one of the key.

    Returns:
        ... x queries x outputs. Where a query may attend to nothing, that is
        the mean of the values instead of zero.
    """
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)
    factor = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = torch.matmul(query, key.transpose(-2, -1)) * factor
    if is_causal:
        attn_mask = torch.ones(
            query.shape[-2], key.shape[-2], dtype=torch.bool, device=query.device
        ).tril()
    # Infinities would make NaN of a row of them.
    if attn_mask is not None and attn_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attn_mask, torch.finfo(scores.dtype).min)
    elif attn_mask is not None:
        most = min(torch.finfo(kind).max for kind in (scores.dtype, attn_mask.dtype))
        hindrance = torch.neg(attn_mask).clamp(max=most / 2)  # scores are added to it
        scores = scores.sub(hindrance)  # an add would be taken for a residual one
    weights = torch.softmax(scores, dim=-1)
    if dropout_p > 0.0:
        weights = torch.dropout(weights, dropout_p, True)
    return torch.matmul(weights, value)
