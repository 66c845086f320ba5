"""Profiles of devices that are elsewhere: models to take there, one file to bring back."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from autocompress.artifact.saturation import probe_model
from autocompress.core.candidate import Candidate
from autocompress.core.files import read_json, write_bytes, write_json, write_text
from autocompress.core.schema import SCHEMA_VERSION, check_record
from autocompress.core.target import ONNXRUNTIME, Target
from autocompress.cost import bundle_runner
from autocompress.cost.content import checked_content
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.profile import DeviceProfile, HasGraph
from autocompress.cost.profiling import COPIES, kernel_model
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.structure import ModelGraph

PROBE = "probe.onnx"
"""File that tells whether integer kernels clip."""

_KEYS = ("target", "model", "copies", "kernels", "networks")
_MEASURED = (*_KEYS, "device", "versions", "created", "kernel_ms", "network_ms")
_EXPECTED, _REMEDY = "measurements of a bundle", "run the bundle's runner.py again"
_OPTIONAL = ("network_samples_ms", "noisy", "probe")


def write_bundle(
    folder: Path,
    target: Target,
    graph: ModelGraph,
    kernels: Iterable[KernelKey],
    networks: Sequence[Candidate],
    write_network: Callable[[Candidate, Path], None],
    on_progress: Callable[[int, int], None] | None = None,
) -> None:
    """Write what a device needs to be profiled.

    Args:
        folder: Created; `python runner.py` in it does the rest.
        target: How ONNX Runtime is used there.
        graph: Structure of the model.
        kernels: Kernels to measure.
        networks: Candidates to measure from end to end, the original first.
        write_network: Writes the file of a candidate.
        on_progress: Told how many files are written, and of how many.

    Raises:
        InvalidInputError: If the target does not run ONNX Runtime on a CPU.
    """
    if target.runtime != ONNXRUNTIME:
        raise InvalidInputError(
            explain(
                "a bundle",
                expected="the target onnxruntime-cpu",
                got=f"'{target.name}'",
                remedy="install autocompress on the device to profile other runtimes",
            )
        )
    keys = sorted(set(kernels), key=str)
    files: dict[str, dict[str, str]] = {}
    entries: list[dict[str, Any]] = []
    total = len(keys) + len(networks)
    for number, key in enumerate(keys):
        names = {part: f"kernels/{number:04d}_{part}.onnx" for part in ("one", "many")}
        for part, copies in (("one", 1), ("many", COPIES)):
            model = kernel_model(key, copies, batch_size=target.batch_size)
            write_bytes(folder / names[part], model.SerializeToString())
        files[str(key)] = names
        if on_progress is not None:
            on_progress(len(files), total)
    for number, candidate in enumerate(networks):
        name = f"networks/{number:04d}.onnx"
        write_network(candidate, folder / name)
        entries.append({"file": name, "candidate": candidate.to_json()})
        if on_progress is not None:
            on_progress(len(files) + len(entries), total)
    write_bytes(folder / PROBE, probe_model().SerializeToString())
    write_json(
        folder / "bundle.json",
        {
            "schema_version": SCHEMA_VERSION,
            "target": target.to_json(),
            "model": graph.fingerprint,
            "copies": COPIES,
            "kernels": files,
            "networks": entries,
            "probe": PROBE,
        },
    )
    source = Path(bundle_runner.__file__).read_text(encoding="utf-8")
    write_text(folder / "runner.py", source)


def read_measured(path: Path, space: HasGraph | ModelGraph) -> DeviceProfile:
    """Make a profile of what the runner of a bundle measured.

    Args:
        path: The file that was brought back.
        space: The search space of the same model, or its graph.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If it is no such file, or belongs to another model.
    """
    decoded, keys = read_json(path), (*_MEASURED, *_OPTIONAL)
    graph = space if isinstance(space, ModelGraph) else space.graph
    with checked_content(path, _EXPECTED, remedy=_REMEDY):
        record = check_record(decoded, what="the file", keys=keys, required=_MEASURED)
    if record["model"] != graph.fingerprint:
        raise InvalidInputError(
            explain(
                f"'{path}'",
                expected="measurements of this model",
                got="those of another",
                remedy="give the configuration that the bundle was written with",
            )
        )
    with checked_content(path, _EXPECTED, remedy=_REMEDY):
        return _profile(record, graph)


def _profile(record: Mapping[str, Any], graph: ModelGraph) -> DeviceProfile:
    profile = DeviceProfile(
        target=Target.from_json(record["target"]),
        device=str(record["device"]),
        versions=dict(record["versions"]),
        created=str(record["created"]),
        kernels={KernelKey.parse(key): ms for key, ms in record["kernel_ms"].items()},
    )
    times = record["network_ms"]
    networks = record["networks"] if times else []  # a runner may leave them out
    anchors = [
        profile.anchor(graph, Candidate.from_json(network["candidate"]), ms)
        for network, ms in zip(networks, times, strict=True)
    ]
    return profile.refit(anchors) if anchors else profile
