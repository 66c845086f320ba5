"""Measure any number of ONNX files in one interleaved run; the first is the reference.

python examples/benchmarks/contenders.py --model fp32=a.onnx --model int8=b.onnx --json out.json
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from rich.console import Console
from rich.table import Table

from autocompress.core.files import write_json
from autocompress.cost.measurement import (
    REPEATS,
    LatencyMeasurement,
    device_name,
    measure_interleaved,
)
from autocompress.errors import AutocompressError, InvalidInputError, explain


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the comparison; return the exit code."""
    options = parse(arguments)
    console = Console()
    try:
        if options.smoke:
            with tempfile.TemporaryDirectory() as folder:
                compare(smoke_models(Path(folder)), options, console)
        else:
            compare(named_models(options.model), options, console)
    except AutocompressError as error:
        console.print(f"error: {error}", markup=False, highlight=False)
        return 2
    return 0


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument(
        "--model", action="append", default=[], metavar="NAME=PATH", help="repeat for every file"
    )
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=20.0, help="time for the whole run")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="two tiny models, one second")
    options = parser.parse_args(arguments)
    if options.smoke:
        options.seconds = 1.0
    return options


def named_models(pairs: Sequence[str]) -> dict[str, Path]:
    """Split NAME=PATH pairs, and refuse what is not one."""
    models: dict[str, Path] = {}
    for pair in pairs:
        name, sign, path = pair.partition("=")
        if not (name and sign and path) or name in models:
            raise InvalidInputError(
                explain(
                    "--model", expected="a new NAME=PATH", got=pair, remedy="name every file once"
                )
            )
        models[name] = Path(path)
    return models


def compare(models: dict[str, Path], options: argparse.Namespace, console: Console) -> None:
    """Measure the models, print the table and write the figures."""
    results = measure_interleaved(
        list(models.values()),
        threads=options.threads,
        max_seconds=options.seconds,
        seed=options.seed,
    )
    console.print(table_of(models, results))
    console.print(f"{device_name()}, {options.threads} thread(s), batch 1, ", end="")
    console.print(f"{len(results[0].samples)} interleaved rounds", highlight=False)
    if options.json:
        record = {
            "schema_version": 1,
            "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
            "machine": device_name(),
            "versions": {"onnxruntime": onnxruntime.__version__, "numpy": np.__version__},
            "seed": options.seed,
            "rounds": len(results[0].samples),
            "repeats": REPEATS,
            "models": [
                {"name": name, "file_bytes": path.stat().st_size, **result.to_json()}
                for (name, path), result in zip(models.items(), results, strict=True)
            ],
        }
        write_json(options.json, record)
        console.print(f"written: {options.json}")


def table_of(models: dict[str, Path], results: Sequence[LatencyMeasurement]) -> Table:
    """Lay the figures out in at most 100 columns."""
    table = Table(width=None)
    table.add_column("model", overflow="fold", max_width=24)
    for title in ("median ms", "95 % interval", "ratio", "95 % interval", "KiB", ""):
        table.add_column(title, justify="right", no_wrap=True)
    for (name, path), result in zip(models.items(), results, strict=True):
        table.add_row(
            name,
            f"{result.median_ms:.4f}",
            "{:.4f} - {:.4f}".format(*result.ci95_ms),
            f"{result.ratio:.3f}",
            "{:.3f} - {:.3f}".format(*result.ratio_ci95),
            f"{path.stat().st_size / 1024:.0f}",
            "noisy" if result.noisy else "",
        )
    return table


def smoke_models(folder: Path) -> dict[str, Path]:
    """Write a light and a heavy matrix product."""
    models = {}
    for name, width in (("small", 64), ("large", 512)):
        weight = np.random.default_rng(0).standard_normal((64, width), dtype=np.float32)
        graph = helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            name,
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", width])],
            [numpy_helper.from_array(weight, "w")],
        )
        models[name] = folder / f"{name}.onnx"
        opset = [helper.make_opsetid("", 17)]
        onnx.save(helper.make_model(graph, opset_imports=opset, ir_version=8), models[name])
    return models


if __name__ == "__main__":
    sys.exit(main())
