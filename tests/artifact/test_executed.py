"""Which quantised layers run in integers, told before a file is written."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.artifact.executed import integer_layers
from autocompress.artifact.onnx_file import write_onnx
from autocompress.core.candidate import Candidate
from autocompress.core.target import ONNXRUNTIME, OPENVINO
from autocompress.graph.tracing import trace
from seasoned import compressed, season, uniform


def _two_convolutions(between: nn.Module) -> tuple[nn.Module, torch.Tensor]:
    inputs = torch.randn(4, 3, 6, 6)
    layers = nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), between, nn.Conv2d(8, 8, 3)
    return season(nn.Sequential(*layers, nn.Flatten(), nn.Linear(32, 4)), inputs), inputs


@pytest.mark.parametrize("between", [nn.ReLU(), nn.Hardtanh(), nn.SiLU()])
def test_all_layers_run_in_integers_where_all_are_quantised(between: nn.Module) -> None:
    model, inputs = _two_convolutions(between)
    result = compressed(model, inputs, Candidate(layers=uniform(trace(model, inputs), 8)))
    assert integer_layers(result, ((inputs,), {}), ONNXRUNTIME) == {"0", "3", "5"}


def test_a_convolution_that_writes_floats_is_not_among_them() -> None:
    model, inputs = _two_convolutions(nn.ReLU())
    layers = uniform(trace(model, inputs), 8)
    del layers["3"]  # so that nothing quantises what "0" writes
    result = compressed(model, inputs, Candidate(layers=layers))
    assert integer_layers(result, ((inputs,), {}), ONNXRUNTIME) == {"5"}
    assert integer_layers(result, ((inputs,), {}), OPENVINO) == {"0", "5"}


def test_weights_alone_do_not_make_integers() -> None:
    model, inputs = _two_convolutions(nn.ReLU())
    layers = uniform(trace(model, inputs), 8, activation_bits=32)
    result = compressed(model, inputs, Candidate(layers=layers))
    for runtime in (ONNXRUNTIME, OPENVINO):
        assert integer_layers(result, ((inputs,), {}), runtime) == frozenset()


@pytest.mark.parametrize(
    "between", [nn.ReLU(), nn.ReLU6(), nn.Hardtanh(0.0, 0.3), nn.Hardtanh(-0.5, 0.5)]
)
def test_the_runtime_has_an_integer_kernel_for_each_convolution_named(
    between: nn.Module, optimised: Callable[[Path], Counter[str]], tmp_path: Path
) -> None:
    model, inputs = _two_convolutions(between)
    result = compressed(model, inputs, Candidate(layers=uniform(trace(model, inputs), 8)))
    write_onnx(result, tmp_path / "model.onnx", ((inputs[:2],), {}))
    assert {"0", "3"} <= integer_layers(result, ((inputs,), {}), ONNXRUNTIME)
    found = optimised(tmp_path / "model.onnx")
    assert (found["QLinearConv"], found["Conv"] + found["FusedConv"]) == (2, 0)
    whole = getattr(between, "min_val", 0.0) == 0
    assert found["Clip"] == (0 if whole else 1), "one from zero on is part of the rounding"
