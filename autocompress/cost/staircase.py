"""Which widths pay: latency is a staircase in the number of channels."""

from collections.abc import Mapping

from autocompress.core.target import FLOAT, Target
from autocompress.cost.kernel_key import INT8, KernelKey
from autocompress.cost.profiling import measure_kernels

STEPS = (16, 8, 4, 2)
"""Units of channels that are tried, the coarsest first."""

PROBE_WIDTHS = (8, 12, 16, 20, 24, 32, 40, 48, 56, 64)
"""Widths of the probe, multiples of 4."""

PROBE_SIZE = (16, 16)
"""Spatial size of the probe."""

TOLERANCE = 0.1
"""Time that rounding a width up may cost, as a fraction."""


def measure_step(target: Target, *, seconds: float = 5.0) -> int:
    """Measure in which units of channels a target gets faster.

    Args:
        target: The runtime and how it is used.
        seconds: Time for the measurement.

    Returns:
        Channels, from 3x3 convolutions of equal input and output width.
    """
    keys = {
        width: KernelKey(
            kind="conv",
            in_channels=width,
            out_channels=width,
            kernel=(3, 3),
            stride=(1, 1),
            size=PROBE_SIZE,
            bits=INT8 if (INT8, INT8) in target.precisions else FLOAT,
        )
        for width in PROBE_WIDTHS
    }
    times = measure_kernels(
        list(keys.values()),
        threads=target.threads,
        batch_size=target.batch_size,
        runtime=target.runtime,
        seconds=seconds,
    )
    return paying_step({width: times[key] for width, key in keys.items()})


def paying_step(times: Mapping[int, float], tolerance: float = TOLERANCE) -> int:
    """Return the coarsest unit of channels in which nothing worthwhile is lost.

    A unit loses nothing when every measured width, rounded up to a multiple
    of it, takes at most `tolerance` longer.

    Args:
        times: Milliseconds by width.
        tolerance: Time that rounding up may cost, as a fraction.

    Example:
        >>> paying_step({8: 0.20, 12: 0.21, 16: 0.15, 20: 0.21, 24: 0.22, 32: 0.27})
        8
    """
    for step in STEPS:
        rounded = {width: -(-width // step) * step for width in times}
        known = {width: up for width, up in rounded.items() if up in times}
        if known and all(
            times[up] <= (1.0 + tolerance) * times[width] for width, up in known.items()
        ):
            return step
    return 1
