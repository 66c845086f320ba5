"""Multi-head attention whose heads are fewer than its width holds."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional


class NarrowAttention(nn.MultiheadAttention):
    """An `nn.MultiheadAttention` that lost heads, with parameters of the same names.

    PyTorch's own ties the width inside to `embed_dim`. Here the packed
    projection makes as many queries, keys and values as heads are left, and
    `out_proj` maps them back to `embed_dim`.
    """

    @staticmethod
    def narrow(module: nn.MultiheadAttention, rows: int) -> None:
        """Turn an attention module into a narrow one, in place.

        Args:
            module: The module; its packed projection is cut by the caller.
            rows: Rows of the packed projection that will be left.
        """
        module.num_heads = rows // (3 * module.head_dim)
        module.__class__ = NarrowAttention
        module._qkv_same_embed_dim = False  # keeps encoder layers off their fused path

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend, as `nn.MultiheadAttention.forward` does.

        Args:
            query: `n x l x embed_dim` with `batch_first`, else `l x n x embed_dim`;
                or `l x embed_dim`.
            key: The same with s for l.
            value: Like `key`.
            key_padding_mask: `n x s`; True, or an addend, where keys are ignored.
            need_weights: Whether the attention weights are returned too.
            attn_mask: `l x s` or `(n * heads) x l x s`, likewise.
            average_attn_weights: Whether the weights are averaged over heads.
            is_causal: A hint that `attn_mask` is causal.

        Returns:
            The output, shaped like `query`, and the weights or None.
        """
        single = query.dim() == 2
        if single:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        weights = self.in_proj_weight.chunk(3)
        biases = (None,) * 3 if self.in_proj_bias is None else self.in_proj_bias.chunk(3)
        q, k, v = (
            functional.linear(t, w, b).reshape(*t.shape[:2], -1, self.head_dim).transpose(1, 2)
            for t, w, b in zip((query, key, value), weights, biases, strict=True)
        )
        mask = _addend(attn_mask, q)
        if mask is not None and mask.dim() == 3:
            mask = mask.unflatten(0, (len(q), -1))
        if key_padding_mask is not None:
            padding = _addend(key_padding_mask, q)
            padding = padding[None] if single else padding
            padding = padding[:, None, None, :]
            mask = padding if mask is None else mask + padding
        scores = q @ k.transpose(-2, -1) * self.head_dim**-0.5
        attended = torch.softmax(scores if mask is None else scores + mask, dim=-1)
        mixed = functional.dropout(attended, self.dropout, self.training) @ v
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        if single:
            out, attended = out[0], attended[0]
        elif not self.batch_first:
            out = out.transpose(0, 1)
        if not need_weights:
            return out, None
        return out, attended.mean(-3) if average_attn_weights else attended


def keep_dense(model: nn.Module) -> None:
    """Keep encoders off nested tensors, in place, where a layer would not take them.

    An `nn.TransformerEncoder` settles when it is built whether padded inputs
    become nested tensors; narrow attention does not read these, and the first
    layer must still have its weights.

    Args:
        model: The model after surgery.
    """
    for module in model.modules():
        if isinstance(module, nn.TransformerEncoder) and not _takes_nested(module):
            module.enable_nested_tensor = module.use_nested_tensor = False


def _takes_nested(encoder: nn.TransformerEncoder) -> bool:
    if any(isinstance(module, NarrowAttention) for module in encoder.modules()):
        return False
    return all(isinstance(layer, nn.TransformerEncoderLayer) for layer in encoder.layers[:1])


def _addend(mask: Tensor | None, like: Tensor) -> Any:
    """Turn a boolean mask, True where nothing is seen, into one that is added."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=like.dtype).masked_fill(mask, float("-inf"))
