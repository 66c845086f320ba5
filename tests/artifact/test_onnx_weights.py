"""What ONNX Runtime makes of weights: small in the file, computed as they are, and once."""

from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto
from torch import nn

from autocompress.artifact.export import RuntimeModule
from autocompress.artifact.onnx_file import write_onnx
from autocompress.artifact.onnx_weights import fits_int4
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.transform.compressed import CompressedModel
from seasoned import compressed

Optimised = Callable[[Path], Counter[str]]


def _written(
    tmp_path: Path, model: nn.Module, inputs: torch.Tensor, config: LayerConfig, *names: str
) -> tuple[Path, CompressedModel]:
    layers = dict.fromkeys(names, config)
    result = compressed(model.eval(), inputs, Candidate(layers=layers))
    path = tmp_path / "model.onnx"
    write_onnx(result, path, ((inputs[:2],), {}))
    return path, result


@pytest.mark.parametrize(
    ("low", "high", "fits"), [(-8, 7, True), (-9, 0, False), (0, 8, False), (0, 0, True)]
)
def test_four_bits_hold_sixteen_integers(low: int, high: int, fits: bool) -> None:
    assert fits_int4(np.array([low, 0, high], dtype=np.int8)) == fits


def test_weights_in_int4_are_computed_in_int8(tmp_path: Path, optimised: Optimised) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Conv2d(8, 8, 3), nn.Flatten())
    config = LayerConfig(weight_bits=4, activation_bits=8)
    inputs = torch.randn(32, 3, 6, 6)
    model = nn.Sequential(*model, nn.Linear(32, 4))
    path, _ = _written(tmp_path, model, inputs, config, "0", "2", "4")
    onnx.checker.check_model(str(path), full_check=True)
    kinds = [entry.data_type for entry in onnx.load(path).graph.initializer if len(entry.dims) > 1]
    assert kinds == [TensorProto.INT4] * 3
    run = optimised(path)
    assert (run["QLinearConv"], run["QGemm"]) == (2, 1)
    assert run["Cast"] == 0


def test_no_inference_dequantises_weights(tmp_path: Path, optimised: Optimised) -> None:
    class Words(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.fc = nn.Embedding(60, 40), nn.Linear(40, 50)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc(self.table(x))

    config = LayerConfig(weight_bits=4, group_size=16)
    path, result = _written(tmp_path, Words(), torch.randint(60, (8, 5)), config, "table", "fc")
    assert set(optimised(path)) <= {"Gather", "MatMul", "Add"}
    large = [e for e in onnx.load(path).graph.initializer if np.prod(e.dims) >= 40 * 50]
    assert [entry.data_type for entry in large] == [TensorProto.INT4] * 2
    fresh = torch.randint(60, (20, 5))
    with torch.no_grad():
        torch.testing.assert_close(RuntimeModule(path)(fresh), result(fresh))


@pytest.mark.parametrize("group_size", [None, 4])
def test_the_runtime_rounds_no_weights_of_its_own_accord(
    tmp_path: Path, optimised: Optimised, group_size: int | None
) -> None:
    class Joined(nn.Module):
        """The middle layer reads and writes tensors that have grids."""

        def __init__(self) -> None:
            super().__init__()
            self.first, self.middle = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
            self.beside, self.last = nn.Conv2d(8, 4, 1), nn.Conv2d(8, 4, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            return self.last(torch.relu(self.middle(x))).mean((2, 3)) + self.beside(x).mean((2, 3))

    plain = LayerConfig(weight_bits=8, activation_bits=8)
    layers = dict.fromkeys(("first", "beside", "last"), plain)
    if group_size is not None:
        layers["middle"] = LayerConfig(weight_bits=4, activation_bits=8, group_size=group_size)
    inputs = torch.randn(32, 3, 6, 6)
    result = compressed(Joined().eval(), inputs, Candidate(layers=layers))
    path = tmp_path / "model.onnx"
    write_onnx(result, path, ((inputs[:2],), {}))
    run = optimised(path)
    assert run["Max"] == 1
    assert (run["QLinearConv"], run["Conv"] + run["FusedConv"]) == (3, 1)
    fresh = torch.randn(100, 3, 6, 6)
    with torch.no_grad():
        expected = result(fresh)
    difference = (RuntimeModule(path)(fresh) - expected).abs().mean() / expected.abs().mean()
    assert difference < 1e-3
