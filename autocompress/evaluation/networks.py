"""Whole networks of a search space, written and timed so that a profile learns from them."""

import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from torch import nn

from autocompress.artifact.quick_onnx import write_quickly
from autocompress.artifact.session import bound_call, open_model
from autocompress.artifact.torch_file import write_program
from autocompress.core.candidate import Candidate
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

FEWEST_ROUNDS = 20


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
        self.surgeon = Surgeon(model, space.graph, self.inputs, seed=0)

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
        compressed = self.surgeon.compress(candidate)
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
    so that the host may run faster or slower meanwhile.

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
    ratios: dict[Candidate, float] = {}
    references: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        reference = _written(writer, drawn[0], Path(folder) / "reference")
        rest = drawn[1:]
        while rest and time.monotonic() - started < seconds:
            batch, rest = rest[:TOGETHER], rest[TOGETHER:]
            calls: list[Call] = [reference]
            standing: list[Candidate] = []
            for number, candidate in enumerate(batch):
                if standing and time.monotonic() - started > seconds:
                    break
                try:
                    calls.append(_written(writer, candidate, Path(folder) / str(number)))
                except ExportError:  # one that cannot be written tells nothing
                    continue
                standing.append(candidate)
            longest = min(RUN_SECONDS, 0.5 * seconds)
            found, milliseconds = _ratios(calls, profile.target.threads, longest)
            ratios |= dict(zip(standing, found, strict=True))
            references.append(milliseconds)
            if on_progress is not None:
                on_progress(len(drawn) - len(rest), len(drawn))
    if not references:
        return profile
    whole = float(np.median(references))
    anchors = [profile.anchor(space, drawn[0], whole)]
    anchors += [profile.anchor(space, c, whole * ratio) for c, ratio in ratios.items()]
    return profile.refit(anchors)


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


def _ratios(calls: Sequence[Call], threads: int, longest: float) -> tuple[list[float], float]:
    """Time calls in turns; return the ratios to the first, and its milliseconds."""

    def enough(table: np.ndarray) -> bool:
        if len(table) < FEWEST_ROUNDS:
            return False
        widths = relative_widths(block_medians(table / table[:, :1]))
        return bool((widths[1:] <= WIDTH).all())

    table = time_interleaved(
        calls, enough=enough, min_seconds=min(0.3, longest), max_seconds=longest, threads=threads
    )
    ratios = np.median(table / table[:, :1], axis=0)
    return ratios[1:].tolist(), 1e3 * float(np.median(table[:, 0]))
