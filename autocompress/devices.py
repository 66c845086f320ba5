"""The verbs that concern devices: profile one, and measure on it."""

import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.utils._pytree import tree_map_only

from autocompress.artifact.export import Artifact, feed_of
from autocompress.artifact.session import Session, open_model
from autocompress.controller.profiling import Progress, make_bundle, make_profile
from autocompress.core.schema import check_number
from autocompress.core.target import Target
from autocompress.cost.bundle import read_measured
from autocompress.cost.measurement import LatencyMeasurement, measure_interleaved
from autocompress.cost.process_memory import peak_growth
from autocompress.cost.profile import DeviceProfile
from autocompress.cost.resolve import Profile, resolve_target
from autocompress.cost.simulated import SimulatedProfile
from autocompress.errors import InvalidInputError, check_type, explain
from autocompress.evaluation.original import frozen_copy
from autocompress.graph.inputs import ModelInputs
from autocompress.space.bound import BoundSpace


def profile(
    target: str | Target = "onnxruntime-cpu",
    *,
    space: BoundSpace | None = None,
    model: nn.Module | None = None,
    example_inputs: object = None,
    out: str | Path | None = None,
    threads: int = 1,
    seconds: float = 60.0,
    networks: int = 40,
    measured: str | Path | None = None,
    bundle: str | Path | None = None,
    on_progress: Progress | None = None,
) -> Profile | None:
    """Profile a target for a search space: its kernels, and whole networks of the space.

    Simulated targets need nothing but their name.

    Args:
        target: Name of a target, or a `Target`.
        space: The space, bound to a model.
        model: That model, so that whole networks are timed too; not changed.
        example_inputs: A tensor, a tuple, or a dict of one forward call of it.
        out: File to save the profile to; None saves nothing.
        threads: Threads per inference, for a target given by name.
        seconds: Time for the kernels.
        networks: Whole networks to time, or to put into a bundle.
        measured: What the runner of a bundle wrote: nothing is measured here.
        bundle: Folder for models and a runner that measure on another device,
            with Python, numpy and onnxruntime alone; nothing is measured here.
        on_progress: Told what is done, how many, and of how many.

    Returns:
        The profile; None where a bundle is written.

    Raises:
        InvalidInputError: If a number is out of range, or arguments exclude each other.
    """
    _check_seconds(seconds)
    check_number("'networks'", check_type("'networks'", networks, int), low=0)
    resolved = target if isinstance(target, Target) else Target.named(target, threads=threads)
    _check_exclusive(resolved, bundle=bundle, measured=measured, out=out)
    found: Profile
    if resolved.simulation is not None:
        found = SimulatedProfile(target=resolved)
    else:
        space = check_type("'space'", space, BoundSpace)
        examples = None if example_inputs is None else ModelInputs.of(example_inputs)
        original = None if model is None else frozen_copy(model, "cpu", examples)
        if bundle is not None:
            make_bundle(
                Path(bundle),
                resolved,
                space,
                check_type("'model'", original, nn.Module),
                check_type("'example_inputs'", examples, ModelInputs),
                networks=networks,
                on_progress=on_progress,
            )
            return None
        if measured is not None:
            found = read_measured(Path(measured), space)
        else:
            found = make_profile(
                resolved,
                space,
                seconds=seconds,
                networks=networks,
                model=original,
                examples=examples,
                on_progress=on_progress,
            )
    if out is not None:
        found.save(Path(out))
    return found


def warn_of_mismatches(profile: Profile | None) -> list[str]:
    """Warn if a device profile was made on another host; return notes for the report."""
    found = profile.mismatches() if isinstance(profile, DeviceProfile) else []
    for mismatch in found:
        warnings.warn(f"the device profile: {mismatch}", stacklevel=3)
    return [f"The device profile is of another host: {mismatch}." for mismatch in found]


def measure_latency(
    artifact: Artifact | str | Path,
    target: str | Target,
    example_inputs: object,
    *,
    seconds: float = 20.0,
) -> LatencyMeasurement:
    """Measure an artifact alone: latency, its interval and raw samples, and peak memory.

    It goes on until the 95 % interval is within 3 % of the median, or says
    (`noisy`, `describe()`) that the host is too noisy for that.

    Args:
        artifact: From `export`, or the path of an ONNX file.
        target: How it runs: threads and batch size.
        example_inputs: A tensor, a tuple, or a dict of one forward call; the
            first examples are repeated to the target's batch size.
        seconds: Time for the measurement, > 0; at least one inference runs.

    Raises:
        InvalidInputError: If `seconds` is not positive, or the inputs do not fit.
    """
    _check_seconds(seconds)
    resolved = resolve_target(target)[0]
    path = artifact.path if isinstance(artifact, Artifact) else Path(artifact)
    inputs, size = ModelInputs.of(example_inputs), resolved.batch_size
    args, kwargs = tree_map_only(
        Tensor,
        lambda t: t[torch.arange(size) % len(t)] if t.dim() else t,
        (inputs.args, dict(inputs.kwargs)),
    )

    def first() -> tuple[Session, dict[str, NDArray[Any]]]:
        session = open_model(path, resolved)
        feed = feed_of(session, args, kwargs)
        session.run(None, feed)
        return session, feed

    (session, feed), memory = peak_growth(first)
    measured = measure_interleaved(
        [session],
        feed,
        threads=resolved.threads,
        runtime=resolved.runtime,
        max_seconds=seconds,
    )[0]
    return replace(measured, peak_memory_bytes=memory)


def _check_seconds(seconds: object) -> None:
    if not isinstance(seconds, (int, float)):
        check_type("'seconds'", seconds, float)
    elif not seconds > 0:
        raise InvalidInputError(
            explain("'seconds'", expected="> 0", got=seconds, remedy="leave it out")
        )


def _check_exclusive(target: Target, *, bundle: object, measured: object, out: object) -> None:
    """Refuse a bundle beside what it would ignore, and measuring elsewhere what is simulated."""
    if target.simulation is not None and (bundle is not None or measured is not None):
        raise InvalidInputError(
            explain(
                "'bundle'" if measured is None else "'measured'",
                expected="a target that is measured",
                got=f"'{target.name}', which is simulated",
                remedy="leave it out: its costs are computed",
            )
        )
    other = "'measured'" if measured is not None else "'out'" if out is not None else ""
    if bundle is not None and other:
        raise InvalidInputError(
            explain(
                "'bundle'",
                expected="nothing to read or to save beside it",
                got=other,
                remedy="write the bundle first, and read what was measured afterwards",
            )
        )
