"""Importing the package is cheap: it loads neither ray nor onnx."""

import json
import statistics
import subprocess
import sys
import time

import pytest

HEAVY = ("ray", "onnx", "onnxruntime", "onnxscript", "optuna", "openvino", "sklearn", "plotly")


def run(code: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return finished.stdout


def test_the_import_loads_nothing_heavy() -> None:
    loaded = json.loads(run("import autocompress, json, sys; print(json.dumps([*sys.modules]))"))
    assert "autocompress" in loaded
    assert not set(loaded) & set(HEAVY)


def test_help_loads_neither_torch_nor_ray() -> None:
    loaded = json.loads(
        run("import autocompress.cli, json, sys; print(json.dumps([*sys.modules]))")
    )
    assert not set(loaded) & {"torch", *HEAVY}


def test_an_error_class_loads_neither_torch_nor_the_search() -> None:
    code = "import autocompress as ac, json, sys; ac.StudyError; print(json.dumps([*sys.modules]))"
    assert not set(json.loads(run(code))) & {"torch", "autocompress.api", *HEAVY}


@pytest.mark.bench
def test_the_import_takes_less_than_300_ms_more_than_torch() -> None:
    def median_seconds(code: str) -> float:
        times = []
        for _ in range(5):
            start = time.perf_counter()
            run(code)
            times.append(time.perf_counter() - start)
        return statistics.median(times)

    run("import torch, autocompress")  # warms the disk cache
    extra = median_seconds("import torch, autocompress") - median_seconds("import torch")
    assert extra < 0.3
