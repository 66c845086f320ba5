"""What operators that compute do to channel labels."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from autocompress.graph.inputs import tensors_of
from autocompress.graph.labels import Marks
from autocompress.graph.propagation import Propagation, Rule
from autocompress.graph.structure import loses_whole_groups


def pointwise(run: Propagation, out: object, *args: Any, **kwargs: Any) -> None:
    """Axes that are not broadcast are tied position by position."""
    given = list(tensors_of((args, kwargs)))
    for tensor in tensors_of(out):
        axes: list[Marks | None] = []
        for back in range(tensor.dim(), 0, -1):
            axes.append(
                run.tie(
                    *(
                        run.get(operand)[operand.dim() - back]
                        for operand in given
                        if operand.dim() >= back and operand.shape[-back] == tensor.shape[-back]
                    )
                )
            )
        run.put(tensor, axes)


def convolution(
    run: Propagation,
    out: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: object,
    padding: object,
    dilation: object,
    transposed: bool,
    output_padding: object,
    groups: int,
) -> None:
    """Input channels are summed over; in groups, if the convolution is grouped."""
    channel = x.dim() - weight.dim() + 1
    given, (first, second) = run.get(x)[channel], run.get(weight)[:2]
    axes: list[Marks | None] = [None] * out.dim()
    if groups == 1:
        produced, consumed = (second, first) if transposed else (first, second)
        run.tie(given, consumed)
        _contract(run, consumed)
    elif transposed and (first is None or weight.shape[1] > 1):
        for marks in (given, first, second):
            run.labels.refuse(marks, "grouped transposed convolution")
        return
    else:
        produced = first
        _couple_groups(run, given, first, None if transposed else second, groups)
    axes[channel] = run.tie(produced, *(run.get(bias) if bias is not None else ()))
    run.put(out, axes)


def _couple_groups(
    run: Propagation,
    given: Marks | None,
    produced: Marks | None,
    consumed: Marks | None,
    groups: int,
) -> None:
    """Tie what a grouped convolution needs to stay one.

    Few channels per convolution group: whole convolution groups go. Many:
    each of them loses the same positions.
    """
    if given is None or produced is None:
        run.labels.refuse(produced, "grouped convolution of what has no channels to remove")
        return
    ins, outs = given.reshape(groups, -1), produced.reshape(groups, -1)
    if loses_whole_groups(ins.shape[1], groups):
        run.labels.union(ins[:, :1], ins)
        run.labels.union(ins[:, :1], outs)
        return
    run.labels.union(ins[:1], ins)
    run.labels.union(outs[:1], outs)
    run.tie(consumed, ins[0])
    _contract(run, consumed)


def _contract(run: Propagation, marks: Marks | None) -> None:
    """Note that an axis of a weight consumes channels, so that masking leaves it alone."""
    if marks is not None:
        run.contracted.update(marks.tolist())


def mm(run: Propagation, out: Tensor, a: Tensor, b: Tensor, **_: Any) -> None:
    """A matrix product sums over the last axis of the first matrix."""
    (rows, inner), (given, columns) = run.get(a), run.get(b)
    run.tie(inner, given)
    _contract(run, given)
    run.put(out, [rows, columns])


def addmm(run: Propagation, out: Tensor, bias: Tensor, a: Tensor, b: Tensor, **_: Any) -> None:
    """A matrix product with a bias along the last axis."""
    mm(run, out, a, b)
    if bias.dim() and bias.shape[-1] == out.shape[-1]:
        run.tie(run.get(out)[-1], run.get(bias)[-1])


def linear(
    run: Propagation, out: Tensor, x: Tensor, weight: Tensor, bias: Tensor | None = None
) -> None:
    """A linear layer that was not taken apart."""
    produced, consumed = run.get(weight)
    run.tie(run.get(x)[-1], consumed)
    _contract(run, consumed)
    columns = run.tie(produced, *(run.get(bias) if bias is not None else ()))
    run.put(out, [*run.get(x)[:-1], columns])


def bmm(run: Propagation, out: Tensor, a: Tensor, b: Tensor, **_: Any) -> None:
    """Matrix products, one per position of the first axis."""
    left, right = run.get(a), run.get(b)
    run.tie(left[2], right[1])
    run.put(out, [run.tie(left[0], right[0]), left[1], right[2]])


def baddbmm(run: Propagation, out: Tensor, x: Tensor, a: Tensor, b: Tensor, **_: Any) -> None:
    """Batched matrix products added to a tensor."""
    bmm(run, out, a, b)
    pointwise(run, out, x, out)


def batch_norm(
    run: Propagation, out: Sequence[Tensor], x: Tensor, *args: Any, **kwargs: Any
) -> None:
    """Scale, shift and statistics belong to the channels on axis 1."""
    axes = list(run.get(x))
    own = [run.get(t)[0] for t in tensors_of(args) if t.dim() == 1 and len(t) == x.shape[1]]
    axes[1] = run.tie(axes[1], *own)
    run.put(out[0], axes)


def layer_norm(
    run: Propagation, out: Sequence[Tensor], x: Tensor, shape: Sequence[int], *args: Any
) -> None:
    """Statistics over the last axes depend on every channel there."""
    axes = list(run.get(x))
    own = [run.get(tensor) for tensor in tensors_of(args)]
    for back in range(1, len(shape) + 1):
        axes[-back] = run.tie(axes[-back], *(marks[-back] for marks in own))
        run.labels.refuse(axes[-back], "normalised over its channels (LayerNorm)")
    run.put(out[0], axes)


def group_norm(
    run: Propagation,
    out: Sequence[Tensor],
    x: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    batch: int,
    channels: int,
    positions: int,
    groups: int,
    eps: float,
) -> None:
    """Statistics over a group of channels: whole groups can go."""
    axes = list(run.get(x))
    own = [run.get(tensor)[0] for tensor in tensors_of((weight, bias))]
    marks = axes[1] = run.tie(axes[1], *own)
    if marks is not None and groups == 1:
        run.labels.refuse(marks, "normalised over its channels (GroupNorm)")
    elif marks is not None:
        table = marks.reshape(groups, -1)
        run.labels.union(table[:, :1], table)
    run.put(out[0], axes)


def total(
    run: Propagation,
    out: object,
    x: Tensor,
    dims: int | Sequence[int] | None = None,
    *_: Any,
    **__: Any,
) -> None:
    """A sum or an extremum along some axes; zeros are left to the mask check."""
    reduced = {dim % x.dim() for dim in _listed(dims)}
    axes = run.get(x)
    if not reduced:
        return
    for tensor in tensors_of(out):
        if tensor.dim() == x.dim():
            run.put(tensor, [None if i in reduced else marks for i, marks in enumerate(axes)])
        else:
            run.put(tensor, [marks for i, marks in enumerate(axes) if i not in reduced])


def average(
    run: Propagation,
    out: object,
    x: Tensor,
    dims: int | Sequence[int] | None = None,
    *_: Any,
    **__: Any,
) -> None:
    """A statistic along some axes, which changes with the number of channels, if it is read."""
    for dim in _listed(dims) or range(x.dim()):
        run.labels.refuse(run.get(x)[dim], "averaged over its channels", certain=False)
    total(run, out, x, dims)


def norm(
    run: Propagation,
    out: object,
    x: Tensor,
    order: object = None,
    dims: int | Sequence[int] | None = None,
    *_: Any,
    **__: Any,
) -> None:
    """A vector norm along some axes, of which zeros are no part unless they are counted."""
    total(run, out, x, dims)


def _listed(dims: int | Sequence[int] | None) -> list[int]:
    """List reduced axes; a flag in their place names none."""
    if dims is None or isinstance(dims, bool):
        return []
    return [dims] if isinstance(dims, int) else list(dims)


def softmax(run: Propagation, out: Tensor, x: Tensor, dim: int, *_: Any) -> None:
    """Positions along the axis share a sum."""
    run.labels.refuse(run.get(x)[dim], "softmax over its channels")
    run.put(out, run.get(x))


def embedding(run: Propagation, out: Tensor, weight: Tensor, indices: Tensor, *_: Any) -> None:
    """Rows of a table become the last axis."""
    run.put(out, [None] * indices.dim() + [run.get(weight)[1]])


def attention(
    run: Propagation, out: Sequence[Tensor], q: Tensor, k: Tensor, v: Tensor, *_: Any, **__: Any
) -> None:
    """Scaled dot-product attention: heads are tied, and so are features of query and key."""
    queries, keys, values = run.get(q), run.get(k), run.get(v)
    run.tie(queries[-1], keys[-1])
    heads = [
        run.tie(*several) for several in zip(queries[:-2], keys[:-2], values[:-2], strict=True)
    ]
    run.put(out[0] if isinstance(out, (tuple, list)) else out, [*heads, queries[-2], values[-1]])


def glu(run: Propagation, out: Tensor, x: Tensor, dim: int = -1) -> None:
    """Half of the channels gate the other half."""
    axes = list(run.get(x))
    marks = axes[dim]
    if marks is not None:
        half = len(marks) // 2
        axes[dim] = run.tie(marks[:half], marks[half:])
    run.put(out, axes)


_POINTWISE = (
    *("_prelu_kernel", "hardswish", "hardswish_", "copy_", "masked_fill", "masked_fill_"),
    *("add_", "fill_", "zero_", "normal_", "rsub", "zeros_like", "ones_like", "bernoulli"),
)
_TOTALS = ("sum", "amax", "amin", "max", "min", "any", "all")
_AVERAGES = ("mean", "var", "std", "var_mean", "std_mean")
_NORMS = ("norm", "linalg_vector_norm")

MATH_RULES: dict[str, Rule] = {
    "pointwise": pointwise,
    **dict.fromkeys(_POINTWISE, pointwise),
    **dict.fromkeys(_TOTALS, total),
    **dict.fromkeys(_AVERAGES, average),
    **dict.fromkeys(_NORMS, norm),
    "convolution": convolution,
    "mm": mm,
    "addmm": addmm,
    "linear": linear,
    "bmm": bmm,
    "baddbmm": baddbmm,
    "native_batch_norm": batch_norm,
    "_native_batch_norm_legit": batch_norm,
    "_native_batch_norm_legit_no_training": batch_norm,
    "native_layer_norm": layer_norm,
    "native_group_norm": group_norm,
    "_softmax": softmax,
    "_log_softmax": softmax,
    "_safe_softmax": softmax,
    "embedding": embedding,
    "_scaled_dot_product_flash_attention_for_cpu": attention,
    "_scaled_dot_product_attention_math": attention,
    "_scaled_dot_product_efficient_attention": attention,
    "glu": glu,
}
"""Rules by operator name; "pointwise" stands for all that torch tags so."""
