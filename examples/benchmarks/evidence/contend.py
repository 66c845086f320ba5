"""Other tools' compressions of a subject, each run in its own environment, as cells."""

import json
import os
import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.artifact.saturation import saturates
from autocompress.artifact.static_int8 import static_int8
from autocompress.core.files import read_json, write_json
from autocompress.core.target import Target
from autocompress.errors import describe

HERE = Path(__file__).parent


@dataclass(frozen=True, kw_only=True)
class Contender:
    """A script that is given a bundle, and writes files.

    Attributes:
        title: What it does, in a few words.
        script: Its file in `contenders/`.
        environment: Name of its environment; None for the project's own.
        only: Subjects that it can take; none for all.
    """

    title: str
    script: str
    environment: str | None = None
    only: tuple[str, ...] = ()


CONVOLUTIONAL = ("resnet20", "resnet56", "mobilenet")

CONTENDERS = {
    "nncf": Contender(title="NNCF post-training int8", script="nncf_int8", environment="nncf"),
    "torch-pruning": Contender(
        title="Torch-Pruning at several ratios, fine-tuned, int8",
        script="torch_pruning_int8",
        environment="torch-pruning",
    ),
    "modelopt-fastnas": Contender(
        title="ModelOpt FastNAS at several FLOPs, fine-tuned, int8",
        script="modelopt_fastnas",
        environment="modelopt",
        only=CONVOLUTIONAL,
    ),
    "modelopt-auto": Contender(
        title="ModelOpt auto_quantize", script="modelopt_auto", environment="modelopt"
    ),
    "mct": Contender(title="MCT mixed precision", script="mct_mixed", environment="mct"),
    "neural-compressor": Contender(
        title="Intel Neural Compressor static int8", script="inc_int8", environment="inc"
    ),
    "dense": Contender(
        title="smaller networks from scratch, int8", script="dense", only=("resnet20", "resnet56")
    ),
}
"""The contenders by name; ONNX Runtime's own static int8 is a method of the package."""


def run_contender(
    name: str,
    subject: str,
    root: Path,
    environments: Path,
    *,
    seed: int,
    minutes: float,
    threads: int,
) -> dict[str, Any]:
    """Run a contender on a subject unless it has been; return its record.

    Args:
        name: A key of `CONTENDERS`.
        subject: Name of the subject.
        root: The subject's folder, with "bundle" in it.
        environments: Folder of the virtual environments.
        seed: The seed.
        minutes: Time for all that it trains.
        threads: Threads that it computes with.
    """
    contender, out = CONTENDERS[name], root / "contenders" / name / str(seed)
    path = out / "cell.json"
    if path.is_file() and not read_json(path)["error"]:
        return dict(read_json(path))
    out.mkdir(parents=True, exist_ok=True)
    started, error = time.monotonic(), ""
    if contender.only and subject not in contender.only:
        error = f"does not apply: made for {', '.join(contender.only)}"
    else:
        asked = ["--minutes", str(minutes), "--seed", str(seed)]
        error = _run(contender, root / "bundle", out, environments, asked, minutes, threads)
    files = []
    if not error:
        files, error = _finished(out, root / "bundle")
    record = {
        "schema_version": 1,
        "method": name,
        "seed": seed,
        "seconds": round(time.monotonic() - started, 1),
        "files": files,
        "error": error,
    }
    write_json(path, record)
    return record


def _run(
    contender: Contender,
    bundle: Path,
    out: Path,
    environments: Path,
    asked: list[str],
    minutes: float,
    threads: int,
) -> str:
    """Start a contender and wait; return why it failed, or nothing."""
    python = Path(sys.executable)
    if contender.environment is not None:
        python = environments / contender.environment / "bin" / "python"
    if not python.exists():
        return f"its environment is missing: python environments.py {environments}"
    command = [str(python), str(HERE / "contenders" / f"{contender.script}.py"), str(bundle)]
    command += [str(out), *asked]
    inherited = {key: os.environ[key] for key in os.environ if not key.startswith("PYTHON")}
    inherited |= dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads))
    with (out / "log.txt").open("w") as log:
        try:
            limit = 60 * (10 * minutes + 10)
            code = subprocess.run(
                command, stdout=log, stderr=log, timeout=limit, env=inherited, check=False
            ).returncode
        except subprocess.TimeoutExpired:
            return f"was stopped after {limit / 60:.0f} minutes"
    if code == 0 and (out / "files.json").is_file():
        return ""
    return f"exit code {code}: {_cause((out / 'log.txt').read_text(errors='replace'))}"


def _cause(log: str) -> str:
    """Return the first error of the tracebacks, which led to the others, or else the last line."""
    raised = re.search(r"^[\w.]*(?:Error|Exception)\b.*$", log.partition("Traceback (")[2], re.M)
    return raised[0] if raised else (log.strip().splitlines() or ["no output"])[-1]


def _finished(out: Path, bundle: Path) -> tuple[list[dict[str, Any]], str]:
    """Make int8 what is to be int8; return every file with its targets, or why there is none."""
    calibration, files, refused = np.load(bundle / "calibration.npy"), [], ""
    for entry in json.loads((out / "files.json").read_text()):
        path, targets = out / entry["path"], entry.get("targets")
        if entry.get("quantise"):
            quantised = out / "int8" / path.name
            try:
                static_int8(
                    path,
                    quantised,
                    feeds(path, calibration),
                    reduce_range=saturates(Target.named("onnxruntime-cpu")),
                )
            except Exception as error:  # whatever is wrong with a file of another tool
                refused = f"{path.name}: {describe(error)}"
                print(refused, file=sys.stderr)
                continue
            path = quantised
        files.append({"path": str(path), "targets": targets})
    return files, "" if files else refused or "it wrote no files"


def feeds(path: Path, calibration: np.ndarray) -> list[dict[str, np.ndarray]]:
    """Return calibration batches by the name of a file's only input."""
    import onnx

    name = onnx.load(path, load_external_data=False).graph.input[0].name
    return [{name: batch} for batch in np.array_split(calibration, 8)]


def cells_for(target: str, records: list[dict[str, Any]], root: Path) -> list[dict[str, Any]]:
    """Return records whose files run on a target, relative to a folder."""
    return [
        record
        | {
            "files": [
                os.path.relpath(file["path"], root)
                for file in record["files"]
                if not file["targets"] or target in file["targets"]
            ]
        }
        for record in records
    ]
