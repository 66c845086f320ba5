"""The choices that each group and each layer has, once rounded and filtered."""

from collections.abc import Collection, Iterable, Sequence
from fnmatch import fnmatchcase

from autocompress.core.plugins import plugin_names
from autocompress.core.sparsity import UNSTRUCTURED, pattern_sparsity
from autocompress.core.target import FLOAT, Target

PrecisionPair = tuple[int, int]
"""(weight bits, activation bits) of one layer."""

SparsityLevel = tuple[float, str]
"""(sparsity, pattern) of one layer."""

DENSE: SparsityLevel = (0.0, UNSTRUCTURED)
"""The level of a layer without masked weights."""

_BIT_COSTS = frozenset({"size_bytes", "bops"})
"""Costs that every bit counts for, executed or not."""


def selected(name: str, kind: str, *, include: Iterable[str], exclude: Iterable[str]) -> bool:
    """Tell whether globs choose a part of the model, by its name or its type.

    Args:
        name: Fully qualified name.
        kind: Class name, for example "Conv2d"; "" if it has none.
        include: Globs of which one must match.
        exclude: Globs of which none may match.

    Example:
        >>> selected("layer1.0.conv1", "Conv2d", include=["*"], exclude=["layer1.*"])
        False
    """

    def matches(globs: Iterable[str]) -> bool:
        return any(fnmatchcase(name, glob) or fnmatchcase(kind, glob) for glob in globs)

    return matches(include) and not matches(exclude)


def achieved_ratios(channels: int, ratios: Iterable[float], *, round_to: int) -> tuple[float, ...]:
    """Round pruning ratios to channel counts that a group can keep.

    Kept channels are a multiple of `round_to`, and at least that. A group of
    fewer than `2 * round_to` channels would have no choice then, so it is
    rounded to multiples of an eighth of its channels (at least one) instead.

    Args:
        channels: Channels of the group, >= 1.
        ratios: Fractions of channels to remove, each in [0, 1).
        round_to: Granularity of the kept channels, >= 1.

    Returns:
        The ratios as achieved, ascending, each once, 0.0 always first.

    Example:
        >>> achieved_ratios(32, [0.0, 0.2, 0.5, 0.9], round_to=8)
        (0.0, 0.25, 0.5, 0.75)
        >>> achieved_ratios(6, [0.5], round_to=8)
        (0.0, 0.5)
    """
    step = round_to if channels >= 2 * round_to else max(1, channels // 8)
    kept = {channels}
    for ratio in ratios:
        steps = max(1, int(channels * (1.0 - ratio) / step + 0.5))
        kept.add(min(channels, steps * step))
    return tuple(1.0 - count / channels for count in sorted(kept, reverse=True))


def offered_precisions(
    weight_bits: Iterable[int],
    activation_bits: Collection[int],
    *,
    target: Target | None = None,
    costs: Sequence[str] | None = None,
    group_size: int = 0,
) -> tuple[PrecisionPair, ...]:
    """List the precisions a layer may take, without those that bring nothing.

    Unquantised weights go with unquantised activations only. With a target,
    activations take bits that it executes; if no cost counts stored bits,
    only pairs that the target computes in as such are left.

    Args:
        weight_bits: Bits the search space allows for weights.
        activation_bits: Bits the search space allows for activations.
        target: The device; None leaves its limits out.
        costs: Names of cost objectives and constraints; None if unknown.
        group_size: Inputs that share a scale; 0 for one scale per output.

    Returns:
        Pairs from the narrowest to the widest, ordered by weight bits, then
        by activation bits; (32, 32) always last.

    Example:
        >>> target = Target.named("onnxruntime-cpu")
        >>> offered_precisions([4, 8, 32], [8, 32], target=target, costs=["latency_ms"])
        ((8, 8), (32, 32))
        >>> offered_precisions([4, 32], [4, 8], target=target, costs=["size_bytes"])
        ((4, 8), (32, 32))
    """
    pairs = {(w, a) for w in weight_bits for a in activation_bits if w != FLOAT}
    if target is not None:
        pairs = {pair for pair in pairs if pair[1] in target.activation_bits}
        if costs is not None and not {*_BIT_COSTS, *plugin_names("costs")} & set(costs):
            pairs = {pair for pair in pairs if target.executed(*pair, group_size) == pair}
    return tuple(sorted(pairs | {(FLOAT, FLOAT)}))


def executable_bits(bits: int, target: Target | None) -> int:
    """Return the fewest activation bits, of those that a target executes, that are enough.

    Args:
        bits: Needed, 1 to 8.
        target: The device; None executes any.

    Returns:
        That many; `FLOAT` if the target has none below.

    Example:
        >>> executable_bits(4, Target.named("onnxruntime-cpu"))
        8
    """
    if target is None:
        return bits
    return min((found for found in target.activation_bits if found >= bits), default=FLOAT)


def offered_sparsity(
    levels: Iterable[float | str], costs: Sequence[str] | None = None
) -> tuple[SparsityLevel, ...]:
    """List the levels of sparsity a layer may take, if they bring anything.

    Masked weights make a file smaller and nothing faster, so that there are
    no levels to choose from where no cost counts bytes.

    Args:
        levels: Fractions in [0, 1), or N:M patterns such as "2:4".
        costs: Names of cost objectives and constraints; None if unknown.

    Returns:
        Levels from the mildest to the strongest, the dense one always first.

    Example:
        >>> offered_sparsity([0.75, "2:4"])
        ((0.0, 'unstructured'), (0.5, '2:4'), (0.75, 'unstructured'))
        >>> offered_sparsity([0.75, "2:4"], ["latency_ms"])
        ((0.0, 'unstructured'),)
    """
    if costs is not None and "size_bytes" not in costs:
        return (DENSE,)
    offered = {
        (pattern_sparsity(level), level) if isinstance(level, str) else (float(level), UNSTRUCTURED)
        for level in levels
    }
    return tuple(sorted(offered | {DENSE}))
