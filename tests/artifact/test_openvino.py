"""The ONNX files run in OpenVINO too."""

import warnings
from pathlib import Path

import numpy as np
import pytest
import torch

from autocompress.artifact.exact import ExactModel
from autocompress.artifact.onnx_file import write_onnx
from autocompress.core.candidate import Candidate
from autocompress.graph.tracing import trace
from seasoned import compressed, pruned, seasoned, uniform

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # its import warns about its own modules
    openvino = pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")


@pytest.mark.parametrize(
    ("name", "bits"),
    [
        ("ResidualNet", 8),
        ("OptionANet", 4),
        ("Mlp", 2),
        pytest.param("EveryKind", 4, marks=pytest.mark.slow),
    ],
)
def test_openvino_computes_what_torch_does(tmp_path: Path, name: str, bits: int) -> None:
    model, inputs = seasoned(name, examples=32)
    graph = trace(model, inputs)
    candidate = Candidate(pruning_ratios=pruned(graph, 0.25), layers=uniform(graph, bits))
    result = compressed(model, inputs, candidate)
    path = tmp_path / "model.onnx"
    write_onnx(result, path, ((inputs[:2],), {}))
    fresh = torch.randn(100, *inputs.shape[1:])
    hints = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": 1}
    runner = openvino.Core().compile_model(str(path), "CPU", hints)
    got = runner([fresh.numpy()])[0]
    with torch.no_grad():
        expected = ExactModel(result, ((inputs[:2],), {}))(fresh).numpy()
    assert np.abs(got - expected).mean() <= 0.02 * np.abs(expected).mean()
    assert (got.argmax(axis=1) == expected.argmax(axis=1)).mean() >= 0.95
