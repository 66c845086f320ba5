"""Which kernels to measure: few at first, then more where the staircase bends."""

from collections import defaultdict
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence

from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.latency_table import interpolate

BEND = 0.03
"""Relative distance of a time from the line between its neighbours that calls for more."""

ROUND_SHARE = 0.25
"""Share of the kernels that one round of refinement may add."""

Measure = Callable[[Sequence[KernelKey]], Mapping[KernelKey, float]]
_Line = tuple[Hashable, str, int]


def sample_kernels(
    keys: Collection[KernelKey], measure: Measure, most: int
) -> dict[KernelKey, float]:
    """Measure as many kernels as it takes to follow their staircases.

    Of every family, the narrowest, the middle and the widest output of every
    number of inputs are measured. Where a measured width lies off the line between its neighbours,
    the widths beside it follow, those of the sharpest bends first, until
    nothing bends or the number is reached; the others are interpolated.

    Args:
        keys: All kernels that candidates can run.
        measure: Measures kernels.
        most: Kernels to measure at most, but for the first ones.

    Returns:
        Milliseconds of the kernels that were measured.
    """
    waiting = set(keys)
    times = dict(measure(sorted(_first(waiting), key=str)))
    waiting -= times.keys()
    while waiting and len(times) < most:
        bends = {key: bend for key, bend in _bends(waiting, times).items() if bend > BEND}
        room = min(most - len(times), max(8, int(ROUND_SHARE * most)))
        chosen = sorted(bends, key=lambda key: (-bends[key], str(key)))[:room]
        if not chosen:
            break
        times |= measure(chosen)
        waiting -= set(chosen)
    return times


def _first(keys: Collection[KernelKey]) -> set[KernelKey]:
    """Take the ends and the middle of the outputs of every number of inputs."""
    rows: dict[_Line, dict[int, KernelKey]] = defaultdict(dict)
    for key in keys:
        line, width = _lines(key)[0]
        rows[line][width] = key
    return {row[width] for row in rows.values() for width in _ends(row)}


def _ends(widths: Collection[int]) -> set[int]:
    ordered = sorted(widths)
    return {ordered[0], ordered[len(ordered) // 2], ordered[-1]}


def _bends(
    waiting: Collection[KernelKey], times: Mapping[KernelKey, float]
) -> dict[KernelKey, float]:
    """Say how much the staircase bends around each kernel that was not measured."""
    lines: dict[_Line, dict[int, float]] = defaultdict(dict)
    for key, ms in times.items():
        for line, width in _lines(key):
            lines[line][width] = ms
    sharpness = {line: _sharpness(found) for line, found in lines.items()}
    bends = {}
    for key in waiting:
        around = [
            sharp
            for line, width in _lines(key)
            for low, high, sharp in sharpness.get(line, ())
            if low < width < high
        ]
        bends[key] = max(around, default=0.0)
    return bends


def _lines(key: KernelKey) -> list[tuple[_Line, int]]:
    """Name the lines that a kernel lies on, and its width on each."""
    if key.kind not in ("conv", "linear") or key.groups > 1:
        return [((key.family, "both", 0), key.out_channels)]
    return [
        ((key.family, "out", key.in_channels), key.out_channels),
        ((key.family, "in", key.out_channels), key.in_channels),
    ]


def _sharpness(times: Mapping[int, float]) -> list[tuple[int, int, float]]:
    """For every three neighbours, say how far the middle lies from the line of the others."""
    widths = sorted(times)
    found = []
    for low, middle, high in zip(widths, widths[1:], widths[2:], strict=False):
        between = interpolate({low: times[low], high: times[high]}, middle)
        found.append((low, high, abs(times[middle] - between) / times[middle]))
    return found
