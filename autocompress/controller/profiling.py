"""The profile of a device for one model: kernels, then whole networks, here or elsewhere."""

from collections.abc import Callable
from pathlib import Path

from torch import nn

from autocompress.core.target import Target
from autocompress.cost.bundle import write_bundle
from autocompress.cost.profile import DeviceProfile, profile_device, wanted_kernels
from autocompress.evaluation.networks import NetworkWriter, measure_networks
from autocompress.graph.inputs import ModelInputs
from autocompress.space.bound import BoundSpace

Progress = Callable[[str, int, int], None]
"""Told what is measured or written, how many are done, and of how many."""

BUNDLE_KERNELS = 400
"""Kernels that a bundle holds at most: each is two files, which travel."""

NETWORK_SECONDS = 4.0
"""Time that one network may take at most, on average."""


def make_profile(
    target: Target,
    space: BoundSpace,
    *,
    seconds: float,
    networks: int = 0,
    model: nn.Module | None = None,
    examples: ModelInputs | None = None,
    on_progress: Progress | None = None,
) -> DeviceProfile:
    """Profile a target on this host.

    Args:
        target: The runtime and how it is used.
        space: The space, bound to the model.
        seconds: Time for the kernels.
        networks: Whole networks to time, where model and examples are given.
        model: The original, in eval mode; not changed.
        examples: Inputs of one forward call.
        on_progress: Told what is done.
    """

    def told(what: str) -> Callable[[int, int], None] | None:
        return None if on_progress is None else lambda done, of: on_progress(what, done, of)

    profile = profile_device(
        space.graph,
        space.pruning_choices,
        target,
        seconds=seconds,
        find_unit=True,
        on_progress=told("kernels"),
    )
    if not networks or model is None or examples is None:
        return profile
    return measure_networks(
        profile,
        space,
        model,
        examples,
        count=networks,
        seconds=NETWORK_SECONDS * networks,
        on_progress=told("networks"),
    )


def make_bundle(
    folder: Path,
    target: Target,
    space: BoundSpace,
    model: nn.Module,
    examples: ModelInputs,
    *,
    networks: int,
    on_progress: Progress | None = None,
) -> None:
    """Write a bundle that profiles a device elsewhere; see `write_bundle`.

    Args:
        folder: Where to write it.
        target: How ONNX Runtime is used there.
        space: The space, bound to the model.
        model: The original, in eval mode; not changed.
        examples: Inputs of one forward call.
        networks: Whole networks to time.
        on_progress: Told what is done.
    """
    writer = NetworkWriter(model, space, examples, target)
    write_bundle(
        folder,
        target,
        space.graph,
        wanted_kernels(space.graph, space.pruning_choices, target, BUNDLE_KERNELS),
        list(writer.draw(networks)),
        writer.write,
        None if on_progress is None else lambda done, of: on_progress("files", done, of),
    )
