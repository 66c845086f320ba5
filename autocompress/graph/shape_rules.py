"""What operators that move, split or join axes do to channel labels."""

import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from autocompress.graph.inputs import tensors_of
from autocompress.graph.labels import Axes, Marks
from autocompress.graph.propagation import Propagation, Rule


def same(run: Propagation, out: object, x: Tensor, *_: Any, **__: Any) -> None:
    """The output has the axes of the first argument."""
    for tensor in tensors_of(out):
        if tensor.dim() == x.dim():
            run.put(tensor, run.get(x))


def reshape(run: Propagation, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    """Axes are merged and split; an axis keeps labels if it indexes whole units of channels."""
    axes: list[Marks | None] = [None] * out.dim()
    given = run.get(x)
    for sources, targets in matched_axes(x.shape, out.shape):
        flat, lead = _merged(run, given, x.shape, sources)
        if flat is None:
            continue
        if len(targets) == 1:
            axes[targets[0]] = flat
        elif targets:
            shape = tuple(out.shape[axis] for axis in targets)
            chosen, marks = _split(run, flat, shape, lead)
            axes[targets[chosen]] = marks
        run.note(flat)
        for part in (*(given[axis] for axis in sources), *(axes[axis] for axis in targets)):
            if part is not None and len(part) != len(flat):
                run.note(part)
    run.put(out, axes)


def matched_axes(
    before: Sequence[int], after: Sequence[int]
) -> Iterator[tuple[list[int], list[int]]]:
    """Pair the smallest runs of axes that hold equally many elements.

    Example:
        >>> list(matched_axes((2, 12, 5), (2, 3, 4, 5)))
        [([0], [0]), ([1], [1, 2]), ([2], [3])]
    """
    i = j = 0
    while i < len(before) or j < len(after):
        sources, targets = list(range(i, min(i + 1, len(before)))), list(range(j, j + 1))
        targets = [axis for axis in targets if axis < len(after)]
        i, j = i + len(sources), j + len(targets)
        while True:
            have = math.prod(before[axis] for axis in sources)
            want = math.prod(after[axis] for axis in targets)
            if have == want or (have == 0 or want == 0):
                break
            if have < want:
                sources.append(i)
                i += 1
            else:
                targets.append(j)
                j += 1
        yield sources, targets


def _merged(
    run: Propagation, axes: Axes, shape: Sequence[int], sources: Sequence[int]
) -> tuple[Marks | None, int]:
    """Label the flattened axes; also return how many positions come before the labelled axis."""
    marked = [axis for axis in sources if axes[axis] is not None and shape[axis] > 1]
    marked = marked or [axis for axis in sources if axes[axis] is not None]
    layered = [axis for axis in marked if run.labels.is_layered(_marks(axes, axis))]
    if len(layered) > 1:
        for axis in layered:
            run.labels.refuse(axes[axis], "flattened with another axis of channels")
        return None, 1
    if not marked:
        return None, 1
    chosen = layered[0] if layered else marked[-1]
    sizes = [shape[axis] for axis in sources]
    place = list(sources).index(chosen)
    view = [1] * len(sizes)
    view[place] = sizes[place]
    flat = np.broadcast_to(_marks(axes, chosen).reshape(view), sizes).ravel()
    return flat, math.prod(sizes[:place])


def _split(run: Propagation, flat: Marks, shape: tuple[int, ...], lead: int) -> tuple[int, Marks]:
    """Choose the axis that keeps labels, and tie what the other axes tell apart.

    An axis along which the classes already vary alone is taken as it is.
    Otherwise heads are taken whole, where the running code counts heads, and
    equal numbers of channels from each part elsewhere, as shuffling needs.
    """
    table = flat.reshape(shape)
    roots = run.labels.find(table)
    for axis, size in enumerate(shape):
        first = np.moveaxis(roots, axis, 0).reshape(size, -1)[:, :1]
        if size > 1 and (np.moveaxis(roots, axis, 0).reshape(size, -1) == first).all():
            return axis, np.ascontiguousarray(np.moveaxis(table, axis, 0).reshape(size, -1)[:, 0])
    chosen = len(shape) - 1
    counts, sizes = run.head_counts(), run.head_sizes()
    heads = (
        []
        if sizes and shape[-1] not in sizes
        else [
            axis
            for axis, size in enumerate(shape)
            if size in counts or (axis == 0 and lead > 1 and size // lead in counts)
        ]
    )
    inner = [axis for axis in heads if axis < len(shape) - 1]
    if heads:
        chosen = inner[-1] if inner else heads[-1]
    rows = np.moveaxis(table, chosen, 0).reshape(shape[chosen], -1)
    run.labels.union(rows[:, :1], rows)
    return chosen, np.ascontiguousarray(rows[:, 0])


def _marks(axes: Axes, axis: int) -> Marks:
    marks = axes[axis]
    if marks is None:
        raise ValueError(f"axis {axis} carries no labels")
    return marks


def permute(run: Propagation, out: Tensor, x: Tensor, dims: Sequence[int]) -> None:
    """Axes change places."""
    axes = run.get(x)
    run.put(out, [axes[dim] for dim in dims])


def transpose(run: Propagation, out: Tensor, x: Tensor, first: int = 0, second: int = 1) -> None:
    """Two axes change places."""
    axes = list(run.get(x))
    if len(axes) > 1:
        axes[first], axes[second] = axes[second], axes[first]
    run.put(out, axes)


def cut(
    run: Propagation,
    out: Tensor,
    x: Tensor,
    dim: int = 0,
    start: int | None = None,
    end: int | None = None,
    step: int = 1,
) -> None:
    """A slice keeps the labels of what it takes."""
    axes = list(run.get(x))
    marks = axes[dim]
    if marks is not None:
        axes[dim] = marks[slice(start, end, step)]
        if len(marks) != out.shape[dim]:
            run.note(axes[dim])
    run.put(out, axes)


def select(run: Propagation, out: Tensor, x: Tensor, dim: int, index: int) -> None:
    """One position is taken and its axis goes."""
    axes = list(run.get(x))
    del axes[dim]
    run.put(out, axes)


def unbind(run: Propagation, out: Sequence[Tensor], x: Tensor, dim: int = 0) -> None:
    """Every position is taken and the axis goes."""
    for part in out:
        select(run, part, x, dim, 0)


def split(run: Propagation, out: Sequence[Tensor], x: Tensor, sizes: object, dim: int = 0) -> None:
    """Parts of one length must keep one length, so they lose the same positions."""
    axes = list(run.get(x))
    marks = axes[dim]
    start, first = 0, None
    even = len({part.shape[dim] for part in out}) == 1
    for number, part in enumerate(out):
        if marks is not None:
            taken = marks[start : start + part.shape[dim]]
            start += part.shape[dim]
            axes[dim] = taken
            first = run.tie(first, taken) if even else None
            if len(out) > 1:
                run.note(taken, sizes, number)
        run.put(part, axes)


def cat(run: Propagation, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    """Labels follow each other; what has none gets new ones."""
    tensors = [tensor for tensor in tensors if tensor.dim() == out.dim()]
    dim %= out.dim()
    axes: list[Marks | None] = []
    for axis in range(out.dim()):
        marks = [run.get(tensor)[axis] for tensor in tensors]
        if axis != dim:
            axes.append(run.tie(*marks))
        elif all(part is None for part in marks):
            axes.append(None)
        else:
            filled = [
                run.labels.fresh(tensor.shape[axis], weak=True) if part is None else part
                for part, tensor in zip(marks, tensors, strict=True)
            ]
            axes.append(np.concatenate(filled))
    run.put(out, axes)


def stack(run: Propagation, out: Tensor, tensors: Sequence[Tensor], dim: int = 0) -> None:
    """A new axis, which counts tensors; the others are tied."""
    axes = [run.tie(*several) for several in zip(*map(run.get, tensors), strict=True)]
    axes.insert(dim % out.dim(), None)
    run.put(out, axes)


def pad(run: Propagation, out: Tensor, x: Tensor, amounts: Sequence[int], *_: Any) -> None:
    """Zeros are channels of their own; negative amounts cut."""
    axes = list(run.get(x))
    for number in range(len(amounts) // 2):
        axis = len(axes) - 1 - number
        before, after = amounts[2 * number], amounts[2 * number + 1]
        marks = axes[axis]
        if marks is None or (before, after) == (0, 0):
            continue
        front, back = (run.labels.fresh(max(n, 0), weak=True) for n in (before, after))
        run.note(front, amounts, 2 * number, is_padding=True)
        run.note(back, amounts, 2 * number + 1, is_padding=True)
        inner = marks[max(-before, 0) : len(marks) - max(-after, 0)]
        axes[axis] = np.concatenate([front, inner, back])
    run.put(out, axes)


def expand(run: Propagation, out: Tensor, x: Tensor, *_: Any, **__: Any) -> None:
    """Axes of one position are repeated, which leaves them without labels."""
    given, axes = run.get(x), [None] * (out.dim() - x.dim())
    kept = [
        marks if size == target else None
        for marks, size, target in zip(given, x.shape, out.shape[-x.dim() :], strict=x.dim() > 0)
    ]
    run.put(out, [*axes, *kept])


def repeat(run: Propagation, out: Tensor, x: Tensor, *_: Any) -> None:
    """Labels are repeated with their axis."""
    axes: list[Marks | None] = [None] * (out.dim() - x.dim())
    for marks, size, target in zip(
        run.get(x), x.shape, out.shape[out.dim() - x.dim() :], strict=True
    ):
        axes.append(marks if marks is None or size == target else np.tile(marks, target // size))
    run.put(out, axes)


def move(run: Propagation, out: Tensor, x: Tensor, *args: Any) -> None:
    """Positions are rolled or reversed, which must not happen to channels."""
    axes = run.get(x)
    dims = args[-1] if args else []
    for dim in dims if isinstance(dims, (list, tuple)) else [dims]:
        run.labels.refuse(axes[dim], "its channels change places")
    run.put(out, axes)


def pick(run: Propagation, out: Tensor, x: Tensor, dim: int, index: Tensor) -> None:
    """An index picks positions along one axis."""
    axes = list(run.get(x))
    marks = axes[dim]
    if marks is not None:
        axes[dim] = marks[index.detach().cpu().numpy().ravel()]
    run.put(out, axes)


def index(run: Propagation, out: Tensor, x: Tensor, indices: Sequence[Tensor | None]) -> None:
    """Adjacent axes are replaced by those of the index tensors."""
    axes = list(run.get(x))
    taken = [axis for axis, given in enumerate(indices) if given is not None]
    if not taken or taken[-1] - taken[0] + 1 != len(taken):
        for marks in axes:
            run.labels.refuse(marks, "unsupported operator 'index'")
        return
    rest = len(axes) - (taken[-1] + 1)
    new: list[Marks | None] = [None] * (out.dim() - taken[0] - rest)
    run.put(out, [*axes[: taken[0]], *new, *axes[len(axes) - rest :]])


def restride(run: Propagation, out: Tensor, x: Tensor, size: Sequence[int], *_: Any) -> None:
    """Memory is laid out anew under the same axes, as pooling does to channels-last tensors."""
    axes = run.get(out)
    if [len(marks) for marks in axes if marks is not None] != [
        length for length, marks in zip(size, axes, strict=True) if marks is not None
    ]:
        for marks in axes:
            run.labels.refuse(marks, "unsupported operator 'as_strided_'")


def channel_shuffle(run: Propagation, out: Tensor, x: Tensor, groups: int) -> None:
    """Equal numbers of channels go from each part."""
    axes = list(run.get(x))
    marks = axes[1]
    if marks is not None:
        table = marks.reshape(groups, -1)
        run.labels.union(table[:1], table)
        axes[1] = table.T.ravel()
    run.put(out, axes)


def pixel_shuffle(run: Propagation, out: Tensor, x: Tensor, factor: int) -> None:
    """Each output channel comes from `factor` squared input channels."""
    axes = list(run.get(x))
    marks = axes[-3]
    if marks is not None:
        table = marks.reshape(-1, factor**2)
        run.labels.union(table[:, :1], table)
        axes[-3] = table[:, 0]
    run.put(out, [*axes[:-2], None, None])


def pixel_unshuffle(run: Propagation, out: Tensor, x: Tensor, factor: int) -> None:
    """Each input channel goes to `factor` squared output channels."""
    axes = list(run.get(x))
    marks = axes[-3]
    if marks is not None:
        axes[-3] = np.repeat(marks, factor**2)
    run.put(out, [*axes[:-2], None, None])


def spatial(run: Propagation, out: object, x: Tensor, *_: Any, **__: Any) -> None:
    """Pooling, resizing and padding act on the axes behind the channels."""
    first = next(tensors_of(out))
    for tensor in tensors_of(out):
        run.put(
            tensor,
            [
                marks if axis < 2 and x.shape[axis] == first.shape[axis] else None
                for axis, marks in enumerate(run.get(x))
            ],
        )


_POOLS = (
    *("max_pool1d", "max_pool2d_with_indices", "max_pool3d_with_indices", "avg_pool1d"),
    *("avg_pool2d", "avg_pool3d", "_adaptive_avg_pool2d", "_adaptive_avg_pool3d"),
    *("adaptive_max_pool2d", "adaptive_max_pool3d", "upsample_nearest1d", "upsample_nearest2d"),
    *("upsample_nearest3d", "upsample_bilinear2d", "upsample_bicubic2d", "upsample_linear1d"),
    *("upsample_trilinear3d", "_upsample_bilinear2d_aa", "_upsample_bicubic2d_aa"),
    *("reflection_pad1d", "reflection_pad2d", "replication_pad1d", "replication_pad2d"),
)
_RESHAPES = (
    *("view", "_unsafe_view", "reshape", "_reshape_alias", "squeeze", "unsqueeze", "flatten"),
    *("unflatten", "view_as", "reshape_as"),
)
_COPIES = (
    *("clone", "detach", "detach_", "alias", "_to_copy", "lift_fresh", "contiguous"),
    *("dropout", "native_dropout", "lift", "lift_fresh_copy", "alias_copy"),
)

SHAPE_RULES: dict[str, Rule] = {
    **dict.fromkeys(_POOLS, spatial),
    **dict.fromkeys(_RESHAPES, reshape),
    **dict.fromkeys(_COPIES, same),
    "permute": permute,
    "transpose": transpose,
    "t": transpose,
    "slice": cut,
    "select": select,
    "unbind": unbind,
    "split": split,
    "unsafe_split": split,
    "split_with_sizes": split,
    "cat": cat,
    "stack": stack,
    "constant_pad_nd": pad,
    "expand": expand,
    "repeat": repeat,
    "roll": move,
    "flip": move,
    "as_strided_": restride,
    "index_select": pick,
    "index": index,
    "channel_shuffle": channel_shuffle,
    "native_channel_shuffle": channel_shuffle,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
}
"""Rules by operator name."""
