"""Measure latencies side by side, in interleaved rounds, with an interval for each."""

import platform
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binom

from autocompress.artifact.runtime import Array, Inputs, bind_inputs
from autocompress.artifact.session import Session, bound_call, open_model, runtime_errors
from autocompress.core.schema import SCHEMA_VERSION
from autocompress.core.seeds import derive_seed
from autocompress.core.target import ONNXRUNTIME, Target
from autocompress.cost.steady import bound_to, garbage_kept
from autocompress.errors import InvalidInputError, MeasurementError, explain

FloatArray = npt.NDArray[np.float64]
Call = Callable[[], object]
Clock = Callable[[], float]

REPEATS = 5
"""Timed inferences per visit; their median is the sample of the round."""

WARM_UP_ROUNDS = 2
"""Rounds that are thrown away before the first sample."""

MIN_SECONDS = 1.0
"""How long to measure at least, so that more than one moment is seen."""

MAX_BLOCKS = 30
"""Blocks of consecutive rounds that an interval is computed from at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LatencyMeasurement:
    """The latency of one model, measured together with others.

    Attributes:
        median_ms: Median over rounds, milliseconds per inference.
        ci95_ms: 95 % confidence interval of that median.
        samples: One latency per round, in milliseconds, in order.
        ratio: Median over rounds of this latency over the first model's; what
            disturbs a whole round cancels in it.
        ratio_ci95: 95 % confidence interval of the ratio.
        device: Name of the processor.
        threads: Threads that one inference used.
        batch_size: Examples per inference.
        noisy: Whether time ran out before the interval was narrow enough.
        peak_memory_bytes: How much opening the model and its first inference
            added to the process's memory; None if that was not looked at.
    """

    median_ms: float
    ci95_ms: tuple[float, float]
    samples: tuple[float, ...]
    ratio: float
    ratio_ci95: tuple[float, float]
    device: str
    threads: int
    batch_size: int
    noisy: bool
    peak_memory_bytes: int | None = None

    def describe(self) -> str:
        """Say in one sentence what was measured, and whether it can be trusted."""
        width = (self.ci95_ms[1] - self.ci95_ms[0]) / self.median_ms
        said = f"{self.median_ms:.4g} ms, 95 % interval {width:.1%} wide"
        if self.noisy:
            said += (
                "; the host is too noisy: stop other programs, measure for longer, or compare "
                "ratios to a model that is measured with it"
            )
        return said

    def to_json(self) -> dict[str, Any]:
        """Return the measurement as a JSON object."""
        return {
            "schema_version": SCHEMA_VERSION,
            "median_ms": self.median_ms,
            "ci95_ms": list(self.ci95_ms),
            "samples": list(self.samples),
            "ratio": self.ratio,
            "ratio_ci95": list(self.ratio_ci95),
            "device": self.device,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "noisy": self.noisy,
            "peak_memory_bytes": self.peak_memory_bytes,
        }


def measure_interleaved(
    models: Sequence[Path | bytes | Session],
    inputs: Inputs | None = None,
    *,
    threads: int = 1,
    runtime: str = ONNXRUNTIME,
    min_rounds: int = 20,
    max_seconds: float = 20.0,
    target_ci: float = 0.03,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> list[LatencyMeasurement]:
    """Measure models in turns, so that all meet the same conditions.

    In each round every model runs a few times, in a new random order. Rounds
    go on for `MIN_SECONDS` or longer, until the 95 % interval of every median
    is narrow enough. Neighbouring rounds resemble each other, therefore an
    interval is that of the medians of up to `MAX_BLOCKS` blocks of rounds: it
    widens when the machine drifts while it is measured. What other programs
    change between two measurements it cannot know; compare ratios then.

    Args:
        models: Files, their contents or sessions; the first is the reference.
        inputs: One batch that every model takes; None draws random inputs of
            one example for each.
        threads: Threads per inference, >= 1; open sessions keep their own.
        runtime: What opens files, one of `RUNTIMES`; open sessions keep their own.
        min_rounds: Rounds at least, >= 1, while there is time.
        max_seconds: Time for all models together, > 0; at least one round runs.
        target_ci: Width of an interval over its median that is narrow enough.
        seed: Seed of the order and of random inputs.
        clock: Returns the time in seconds.

    Returns:
        One measurement per model, in order.

    Raises:
        InvalidInputError: If there is no model, or inputs do not fit one.
        MissingFileError: If a file does not exist.
        MeasurementError: If the runtime fails while a model runs.
    """
    target = Target(name=runtime, runtime=runtime, threads=threads)
    sessions = [
        open_model(model, target) if isinstance(model, (bytes, Path)) else model for model in models
    ]
    feeds = [example_arrays(session, inputs, seed=seed) for session in sessions]
    try:
        table = time_interleaved(
            [bound_call(session, feed) for session, feed in zip(sessions, feeds, strict=True)],
            threads=threads,
            enough=lambda table: (
                len(table) >= min_rounds
                and bool((relative_widths(block_medians(table)) <= target_ci).all())
            ),
            min_seconds=MIN_SECONDS,
            max_seconds=max_seconds,
            seed=seed,
            clock=clock,
        )
    except runtime_errors() as error:
        raise MeasurementError(
            explain(
                "measuring a latency",
                expected="inputs that every model accepts",
                got=" ".join(str(error).split()),
                remedy="give example inputs of the shape that the models were exported with",
            )
        ) from error
    ratios = table / table[:, :1]
    blocks, ratio_blocks = block_medians(1e3 * table), block_medians(ratios)
    wide = relative_widths(blocks) > target_ci
    return [
        LatencyMeasurement(
            median_ms=1e3 * float(np.median(table[:, column])),
            ci95_ms=_around(median_interval(blocks[:, column]), 1e3 * table[:, column]),
            samples=tuple(1e3 * table[:, column]),
            ratio=float(np.median(ratios[:, column])),
            ratio_ci95=_around(median_interval(ratio_blocks[:, column]), ratios[:, column]),
            device=device_name(runtime),
            threads=threads,
            batch_size=_batch_size(feeds[column]),
            noisy=bool(wide[column]),
        )
        for column in range(len(sessions))
    ]


def time_interleaved(
    calls: Sequence[Call],
    *,
    enough: Callable[[FloatArray], bool],
    min_seconds: float = 0.0,
    max_seconds: float,
    threads: int | None = None,
    seed: int = 0,
    clock: Clock = time.perf_counter,
) -> FloatArray:
    """Time callables in rounds; every round visits all of them in random order.

    A visit is one call that is not timed, then `REPEATS` that are; their
    median is the sample. The garbage collector is off meanwhile.

    Args:
        calls: What to time; m of them.
        enough: Told all samples now and then, at first after each round; True
            ends the measurement.
        min_seconds: Time before which `enough` is not asked.
        max_seconds: Time after which no new round starts.
        threads: Processors that this thread is bound to meanwhile; None binds it to none.
        seed: Seed of the order.
        clock: Returns the time in seconds.

    Returns:
        `n x m` samples in seconds, n >= 1 rounds.

    Raises:
        InvalidInputError: If there is nothing to time.
        MeasurementError: If the clock does not see a call take any time.
    """
    if not calls:
        raise InvalidInputError(
            explain("what to measure", expected="at least one model", got="none", remedy="name one")
        )
    rng = np.random.default_rng(derive_seed(seed, -1, "measurement order"))
    rounds: list[FloatArray] = []
    with garbage_kept(), bound_to(threads):
        for _ in range(WARM_UP_ROUNDS):
            _time_round(calls, rng.permutation(len(calls)), clock)
        start = clock()
        next_look = 1
        while not rounds or clock() - start < max_seconds:
            rounds.append(_time_round(calls, rng.permutation(len(calls)), clock))
            if len(rounds) >= next_look and clock() - start >= min_seconds:
                if enough(np.array(rounds)):
                    break
                next_look = len(rounds) + 1 + len(rounds) // 20
    table = np.array(rounds)
    if not (table > 0).all():
        raise MeasurementError(
            explain(
                "a latency",
                expected="a time above the clock's resolution",
                got="0 s",
                remedy="measure with a larger batch",
            )
        )
    return table


def block_medians(table: FloatArray) -> FloatArray:
    """Join consecutive rows into at most `MAX_BLOCKS` blocks, each its median.

    Args:
        table: `n x m` samples, n >= 1.

    Returns:
        `b x m` medians; the table itself where n is at most `MAX_BLOCKS`.
    """
    blocks = np.array_split(table, min(len(table), MAX_BLOCKS))
    return np.array([np.median(block, axis=0) for block in blocks])


def _around(interval: tuple[float, float], samples: FloatArray) -> tuple[float, float]:
    """Widen an interval of block medians to hold the median of all samples."""
    middle = float(np.median(samples))
    return min(interval[0], middle), max(interval[1], middle)


def median_interval(samples: npt.ArrayLike) -> tuple[float, float]:
    """Bound the median by order statistics, at 95 % confidence or more.

    The k-th smallest and k-th largest of n independent samples enclose the
    median with probability `1 - 2 P(B < k)`, B binomial with n and 1/2, for
    any distribution. Fewer than six samples cannot reach 95 %: their range is
    returned.

    Args:
        samples: n >= 1 values.

    Returns:
        Lower and upper bound.

    Example:
        >>> median_interval([3.0, 1.0, 2.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0])
        (2.0, 8.0)
    """
    ordered = np.sort(np.asarray(samples, dtype=np.float64))
    rank = _rank(len(ordered))
    return float(ordered[rank - 1]), float(ordered[-rank])


def relative_widths(table: FloatArray) -> FloatArray:
    """Width of each column's median interval over its median; infinite below six rows.

    Args:
        table: `n x m` samples, n >= 1, all positive.

    Returns:
        `m` widths.
    """
    if len(table) < 6:
        return np.full(table.shape[1], np.inf)
    ordered, rank = np.sort(table, axis=0), _rank(len(table))
    widths: FloatArray = (ordered[-rank] - ordered[rank - 1]) / np.median(table, axis=0)
    return widths


def example_arrays(
    session: Session,
    inputs: Inputs | None = None,
    *,
    batch_size: int = 1,
    seed: int = 0,
) -> dict[str, Array]:
    """Make one batch for a session, from given arrays or at random.

    Args:
        session: The open model.
        inputs: One batch; None draws standard normal floats, and zeros where
            the model wants integers.
        batch_size: Size of a first axis that the model leaves open.
        seed: Seed of the draws.

    Returns:
        Arrays by input name.

    Raises:
        InvalidInputError: If the arrays do not fit, or the model leaves
            another axis than the first open and no arrays are given.
    """
    if inputs is not None:
        return bind_inputs(session, inputs)
    rng = np.random.default_rng(derive_seed(seed, -1, "measurement inputs"))
    arrays: dict[str, Array] = {}
    for node in session.get_inputs():
        shape = [
            batch_size if axis == 0 and not isinstance(size, int) else size
            for axis, size in enumerate(node.shape)
        ]
        kind = _NUMPY_TYPES.get(node.type)
        if kind is None or not all(isinstance(size, int) for size in shape):
            raise InvalidInputError(
                explain(
                    f"model input '{node.name}'",
                    expected="numpy's numbers, and a fixed shape after the batch axis",
                    got=f"{node.type} of shape {node.shape}",
                    remedy="give example inputs",
                )
            )
        floating = np.issubdtype(kind, np.floating)
        drawn = rng.standard_normal(shape) if floating else np.zeros(shape)
        arrays[node.name] = drawn.astype(kind)
    return arrays


@cache
def device_name(runtime: str = ONNXRUNTIME) -> str:
    """Name the processor of this host that a runtime computes on."""
    if runtime.endswith("cuda"):
        import torch

        return torch.cuda.get_device_name()
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, "") or platform.processor() or platform.machine()


_NUMPY_TYPES: Mapping[str, type[np.generic]] = {
    "tensor(double)": np.float64,
    "tensor(float)": np.float32,
    "tensor(bool)": np.bool_,
    **{f"tensor({t.__name__})": t for t in (np.float16, np.int64, np.int32, np.int16, np.int8)},
    **{f"tensor({t.__name__})": t for t in (np.uint64, np.uint32, np.uint16, np.uint8)},
}


@cache
def _rank(count: int) -> int:
    return max(int(binom.ppf(0.025, count, 0.5)), 1)


def _time_round(calls: Sequence[Call], order: npt.NDArray[np.intp], clock: Clock) -> FloatArray:
    samples = np.empty(len(calls))
    for index in order:
        call = calls[index]
        times: list[float] = []
        call()
        for _ in range(REPEATS):
            start = clock()
            call()
            times.append(clock() - start)
        samples[index] = np.median(times)
    return samples


def _batch_size(feed: dict[str, Array]) -> int:
    first = next(iter(feed.values()))
    return int(first.shape[0]) if first.ndim else 1
