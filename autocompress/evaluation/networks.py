"""Whole networks of a search space, written and timed so that a profile learns from them."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from torch import nn

from autocompress.artifact.quick_onnx import write_quickly
from autocompress.artifact.saturation import resolve_range
from autocompress.artifact.session import bound_call, open_model
from autocompress.artifact.torch_file import write_program
from autocompress.core.candidate import Candidate
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.target import FLOAT, Target
from autocompress.cost.measurement import (
    Call,
    block_medians,
    example_arrays,
    relative_widths,
    time_interleaved,
)
from autocompress.cost.profile import DeviceProfile
from autocompress.errors import ExportError
from autocompress.evaluation.calibration import settle_on
from autocompress.graph.inputs import ModelInputs
from autocompress.space.bound import BoundSpace
from autocompress.transform.surgeon import Surgeon

TOGETHER = 5
"""Networks that are timed in one run, beside the original."""

RUN_SECONDS, WIDTH = 2.0, 0.03
"""Longest of these runs, and the relative width of the intervals at which it may end."""

FEWEST_ROUNDS = 24

DISTURBED = 1.3
"""Slowness of the original, over its best, in a run that is done again."""


class NetworkWriter:
    """Writes candidates of one model as files that are only timed.

    Args:
        model: The original, in eval mode; not changed.
        space: Its search space, bound for the target.
        examples: Inputs of one forward call.
        target: What will run the files.
    """

    def __init__(
        self, model: nn.Module, space: BoundSpace, examples: ModelInputs, target: Target
    ) -> None:
        self.space, self.examples, self.target = space, examples, target
        self.inputs = (examples.args, examples.kwargs)
        quantisation = resolve_range(QuantisationConfig(), target)
        self.surgeon = Surgeon(model, space.graph, self.inputs, seed=0, quantisation=quantisation)

    def draw(self, count: int) -> Iterator[Candidate]:
        """Draw candidates: the original, plain int8, then samples of the space; none twice."""
        seen: set[Candidate] = set()
        fixed = [self.space.uniform(FLOAT, FLOAT, 0.0), self.space.uniform(8, 8, 0.0)]
        for index in range(4 * count):
            candidate = fixed[index] if index < len(fixed) else self.space.sample(index)
            if candidate not in seen and len(seen) < count:
                seen.add(candidate)
                yield candidate

    def write(self, candidate: Candidate, path: Path) -> None:
        """Write the file of one candidate.

        Raises:
            ExportError: If the model cannot be exported.
        """
        # Which channels go does not change the time, and weights alone are enough to tell.
        compressed = self.surgeon.compress(replace(candidate, criterion="l1"))
        settle_on(compressed, self.examples)
        if self.target.file_name.endswith(".pt2"):
            write_program(compressed, path, self.inputs)
        else:
            write_quickly(compressed, path, self.inputs, runtime=self.target.runtime)


def measure_networks(
    profile: DeviceProfile,
    space: BoundSpace,
    model: nn.Module,
    examples: ModelInputs,
    *,
    count: int,
    seconds: float,
    on_progress: Callable[[int, int], None] | None = None,
) -> DeviceProfile:
    """Time candidates of a model from end to end, and refit its profile to them.

    They are timed in turns with the original, and their ratios to it count,
    so that the host may run faster or slower meanwhile. Runs in which the
    original was much slower than at its best are done once more.

    Args:
        profile: The kernels of the model's space.
        space: The space, bound for the profile's target.
        model: The original, in eval mode; not changed.
        examples: Inputs of one forward call.
        count: Candidates at most, the original among them.
        seconds: Time after which no further one is written.
        on_progress: Told how many are done, and of how many.

    Returns:
        The refitted profile.
    """
    started, writer = time.monotonic(), NetworkWriter(model, space, examples, profile.target)
    drawn = list(writer.draw(count))
    batches = [drawn[first : first + TOGETHER] for first in range(1, len(drawn), TOGETHER)]
    waiting, again = list(range(len(batches))), False
    runs: dict[int, tuple[dict[Candidate, float], float]] = {}
    longest, threads = min(RUN_SECONDS, 0.5 * seconds), profile.target.threads
    with tempfile.TemporaryDirectory() as folder:
        reference = _written(writer, drawn[0], Path(folder) / "reference")
        while waiting and time.monotonic() - started < seconds:
            number = waiting.pop(0)
            calls: list[Call] = [reference]
            standing: list[Candidate] = []
            for place, candidate in enumerate(batches[number]):
                if standing and time.monotonic() - started > seconds:
                    break
                try:
                    calls.append(_written(writer, candidate, Path(folder) / str(place)))
                except ExportError:  # one that cannot be written tells nothing
                    continue
                standing.append(candidate)
            found, milliseconds = ratios_to_first(calls, threads=threads, longest=longest)
            runs[number] = dict(zip(standing, found, strict=True)), milliseconds
            if on_progress is not None:
                on_progress(1 + sum(len(batches[done]) for done in runs), len(drawn))
            if not waiting and not again:
                again, best = True, min(slow for _, slow in runs.values())
                waiting = [done for done, (_, slow) in runs.items() if slow > DISTURBED * best]
    if not runs:
        return profile
    whole = float(np.median([milliseconds for _, milliseconds in runs.values()]))
    ratios = {drawn[0]: 1.0} | {c: ratio for run, _ in runs.values() for c, ratio in run.items()}
    return profile.refit([profile.anchor(space, c, whole * r) for c, r in ratios.items()])


def _written(writer: NetworkWriter, candidate: Candidate, path: Path) -> Call:
    """Write a candidate and return a call that runs it."""
    file = path.with_suffix(Path(writer.target.file_name).suffix)
    writer.write(candidate, file)
    session = open_model(file, writer.target)
    tensors = {
        node.name: tensor.detach().cpu().numpy()
        for node, tensor in zip(session.get_inputs(), writer.examples.tensors, strict=True)
    }
    size = writer.target.batch_size
    tensors = {name: np.resize(array, (size, *array.shape[1:])) for name, array in tensors.items()}
    return bound_call(session, example_arrays(session, tensors))


def ratios_to_first(
    calls: Sequence[Call], *, threads: int, longest: float = RUN_SECONDS
) -> tuple[list[float], float]:
    """Time calls in turns, and compare all others with the first.

    Args:
        calls: The reference and the others.
        threads: Processors that the calling thread is bound to meanwhile.
        longest: Seconds after which no new round starts.

    Returns:
        The ratios of the others to the reference, and its milliseconds.
    """

    def enough(table: np.ndarray) -> bool:
        if len(table) < FEWEST_ROUNDS:
            return False
        widths = relative_widths(block_medians(table / table[:, :1]))
        return bool((widths[1:] <= WIDTH).all())

    table = time_interleaved(
        calls, enough=enough, min_seconds=min(0.5, longest), max_seconds=longest, threads=threads
    )
    ratios = np.median(table / table[:, :1], axis=0)
    return ratios[1:].tolist(), 1e3 * float(np.median(table[:, 0]))
