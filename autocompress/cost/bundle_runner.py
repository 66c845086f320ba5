"""Measure the models of a bundle on a device: needs Python, numpy and onnxruntime, nothing else.

    python runner.py [--out measured.json] [--rounds 15]

Bring the file that it writes back, and give it to `autocompress profile CONFIG --from FILE`.
"""

import argparse
import datetime
import gc
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime

REPEATS, WARM_UP, TOGETHER = 5, 2, 120
"""Timed calls of a visit, rounds thrown away, and models that are timed in turns."""

SHORTEST_MS = 1e-4

WIDEST = 0.03
"""Half of the 95 % interval of a network's latency, as a fraction, above which it is timed on."""

CLIPPED = 0.01
"""Difference of the probe's output from one that tells that integer kernels clip."""

LONGEST = 6
"""Rounds of networks at most, in multiples of those of kernels."""


def main() -> int:
    """Measure everything, and write one file."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("measured.json"))
    parser.add_argument("--rounds", type=int, default=15, help="rounds of the kernels, 3 or more")
    options = parser.parse_args()
    folder = Path(__file__).resolve().parent
    if options.rounds < 3:
        parser.error(f"--rounds: expected 3 or more, got {options.rounds}")
    if not (folder / "bundle.json").is_file():
        parser.error(f"expected bundle.json beside {Path(__file__).name}; copy the whole folder")
    bundle = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    threads = int(bundle["target"]["threads"])
    bundle["target"]["saturates"] = clips(folder / bundle["probe"])
    batch_size = int(bundle["target"]["batch_size"])
    bind(threads)

    def call(name: str) -> Callable[[], object]:
        return open_call(folder / name, threads, batch_size)

    started, kernel_ms = time.monotonic(), {}
    pairs = list(bundle["kernels"].items())
    for first in range(0, len(pairs), TOGETHER // 2):
        chunk = pairs[first : first + TOGETHER // 2]
        calls = [call(name) for _, files in chunk for name in (files["one"], files["many"])]
        table = time_rounds(calls, options.rounds)
        slopes = np.median(table[:, 1::2] - table[:, ::2], axis=0) / (bundle["copies"] - 1)
        for (key, _), seconds in zip(chunk, slopes, strict=True):
            kernel_ms[key] = max(1e3 * float(seconds), SHORTEST_MS)
        _say(f"kernels: {len(kernel_ms)} of {len(pairs)}, {time.monotonic() - started:.0f} s")
    network_ms, references, samples, noisy = [], [], [], 0
    networks = bundle["networks"]
    for first in range(1, len(networks), TOGETHER // 20):
        chunk = networks[first : first + TOGETHER // 20]
        calls = [call(network["file"]) for network in (networks[0], *chunk)]
        table = time_rounds(calls, 2 * options.rounds)
        while unsettled(table).any() and len(table) < LONGEST * options.rounds:
            table = np.concatenate([table, time_rounds(calls, options.rounds)])
        noisy += int(unsettled(table).sum())
        samples += [[round(1e3 * value, 5) for value in row] for row in table[:, 1:].T.tolist()]
        references.append(float(np.median(table[:, 0])))
        network_ms += np.median(table[:, 1:] / table[:, :1], axis=0).tolist()
        _say(f"networks: {len(network_ms) + 1} of {len(networks)}")
    whole = 1e3 * float(np.median(references)) if references else 0.0
    measured = {
        **bundle,
        "device": device_name(),
        "versions": {
            "onnxruntime": onnxruntime.__version__,
            "python": platform.python_version(),
        },
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "kernel_ms": kernel_ms,
        "network_ms": [whole, *(whole * ratio for ratio in network_ms)] if references else [],
        "network_samples_ms": samples,
        "noisy": noisy,
    }
    options.out.write_text(json.dumps(measured, indent=2) + "\n", encoding="utf-8")
    if noisy:
        _say(
            f"{noisy} of {len(network_ms)} networks vary by more than {WIDEST:.0%}: the device is "
            "busy; stop what else runs and measure again"
        )
    _say(f"wrote {options.out}")
    return 0


def clips(path: Path) -> bool:
    """Tell whether integer kernels clip: the probe returns ones for ones unless they do."""
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    [node] = session.get_inputs()
    [found] = session.run(None, {node.name: np.ones(node.shape, np.float32)})
    return bool(np.abs(found - 1.0).max() > CLIPPED)


def bind(threads: int) -> None:
    """Stay on as many processors as there are threads, where the system allows that."""
    if sys.platform == "linux":
        allowed = sorted(os.sched_getaffinity(0))
        os.sched_setaffinity(0, allowed[-threads:])


def unsettled(table: "np.ndarray[Any, Any]") -> "np.ndarray[Any, Any]":
    """Tell which networks, timed beside the first, have a wide 95 % interval of the median.

    Its ends are order statistics, of the ratios to the first.
    """
    ratios = np.sort(table[:, 1:] / table[:, :1], axis=0)
    rounds = len(ratios)
    place = max(0, int(0.5 * rounds - 0.98 * rounds**0.5))
    half: np.ndarray[Any, Any] = 0.5 * (ratios[rounds - 1 - place] - ratios[place])
    wide: np.ndarray[Any, Any] = half > WIDEST * np.median(ratios, axis=0)
    return wide


def open_call(path: Path, threads: int, batch_size: int) -> Callable[[], object]:
    """Open a model and return a call that runs it on random inputs."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    # Threads that spin after a run would disturb the models that are timed in turns with it.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    rng, feed = np.random.default_rng(0), {}
    for node in session.get_inputs():
        shape = [size if isinstance(size, int) else batch_size for size in node.shape]
        if node.type == "tensor(float)":
            feed[node.name] = rng.standard_normal(shape).astype(np.float32)
        elif node.type == "tensor(uint8)":
            feed[node.name] = rng.integers(0, 256, shape).astype(np.uint8)
        else:
            kind = {"tensor(int64)": np.int64, "tensor(int32)": np.int32}.get(node.type, np.bool_)
            feed[node.name] = np.zeros(shape, kind)
    return lambda: session.run(None, feed)


def time_rounds(calls: Sequence[Callable[[], object]], rounds: int) -> "np.ndarray[Any, Any]":
    """Time calls in rounds of random order; return `rounds x calls` seconds."""
    rng, table = np.random.default_rng(0), []
    gc.collect()
    gc.disable()
    try:
        for number in range(WARM_UP + rounds):
            row = np.empty(len(calls))
            for index in rng.permutation(len(calls)):
                calls[index]()
                times = []
                for _ in range(REPEATS):
                    start = time.perf_counter()
                    calls[index]()
                    times.append(time.perf_counter() - start)
                row[index] = np.median(times)
            if number >= WARM_UP:
                table.append(row)
    finally:
        gc.enable()
    return np.array(table)


def device_name() -> str:
    """Name the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        lines = []
    for line in lines:
        if line.startswith(("model name", "Model", "Hardware")):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _say(line: str) -> None:
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
