from pathlib import Path

import ml_dtypes
import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper
from torch import nn

from autocompress.artifact.export import feed_of
from autocompress.artifact.onnx_file import check_exportable, write_onnx
from autocompress.artifact.runtime import open_session
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.errors import ExportError, TraceError
from autocompress.graph.tracing import trace
from autocompress.transform.compress import calibrate_grids, compress_model
from autocompress.transform.quantiser import TensorQuantiser
from seasoned import HERE, compressed, seasoned, uniform


def test_the_file_carries_the_searched_grids_and_int8_weights(tmp_path: Path) -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    layers = uniform(graph, 8) | {"layer1.0.conv1": LayerConfig(weight_bits=4, activation_bits=8)}
    result = compressed(model, inputs, Candidate(layers=layers))
    path = tmp_path / "model.onnx"
    write_onnx(result, path, ((inputs,), {}))
    onnx.checker.check_model(str(path))
    main = onnx.load(path).graph
    constants = {entry.name: numpy_helper.to_array(entry) for entry in main.initializer}
    kinds = [node.op_type for node in main.node]
    assert "BatchNormalization" not in kinds
    assert {"Conv", "Add", "QuantizeLinear", "DequantizeLinear"} <= set(kinds)

    written = {
        (constants[node.input[1]].item(), constants[node.input[2]].item())
        for node in main.node
        if node.op_type == "QuantizeLinear"
    }
    searched = {
        (np.float32(q.scale).item(), q.zero_point)
        for q in result.quantisers
        if isinstance(q, TensorQuantiser)
    }
    assert written == searched

    weights = {
        kind: [array for array in constants.values() if array.dtype == kind and array.ndim > 1]
        for kind in (np.int8, ml_dtypes.int4)
    }
    assert [array.shape for array in weights[ml_dtypes.int4]] == [(8, 8, 3, 3)]
    shapes = sorted(layer.weight_shape for layer in graph.layers)
    assert sorted(array.shape for arrays in weights.values() for array in arrays) == shapes
    limit = 63 if HERE.reduce_range == "on" else 127
    assert all(np.abs(array.astype(int)).max() == limit for array in weights[np.int8])
    assert not [
        a for a in constants.values() if a.dtype == np.float32 and a.ndim > 1 and a.size > 1
    ]
    biases = [array for array in constants.values() if array.dtype == np.int32 and array.any()]
    assert len(biases) == len(graph.layers)


def test_the_batch_axis_is_dynamic_and_the_original_is_reproduced(tmp_path: Path) -> None:
    model, inputs = seasoned("InvertedResidualNet")
    path = tmp_path / "model.onnx"
    write_onnx(compressed(model, inputs, Candidate()), path, ((inputs[:1],), {}))
    session = open_session(path, threads=1)
    for batch in (inputs[:1], inputs[:3], inputs):
        got = session.run(None, feed_of(session, [batch]))[0]
        with torch.no_grad():
            np.testing.assert_allclose(got, model(batch).numpy(), rtol=1e-4, atol=1e-5)


class _TwoInputs(nn.Module):
    """Integers are looked up and added to features."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(5, 8)
        self.fc = nn.Linear(8, 4)

    def forward(self, ids: torch.Tensor, features: torch.Tensor) -> dict[str, torch.Tensor]:
        return {"logits": self.fc(self.table(ids) + features)}


def test_inputs_by_name_and_outputs_by_key(tmp_path: Path) -> None:
    model = _TwoInputs().eval()
    inputs = {"features": torch.randn(6, 8), "ids": torch.arange(6) % 5}
    candidate = Candidate(layers={"fc": LayerConfig(weight_bits=8, activation_bits=8)})
    graph = trace(model, inputs)
    result = compress_model(model, graph, candidate, ((), inputs), quantisation=HERE)
    calibrate_grids(result, [inputs], lambda network, batch: network(**batch))
    path = tmp_path / "model.onnx"
    write_onnx(result, path, ((), inputs))
    session = open_session(path, threads=1)
    assert [entry.name for entry in session.get_inputs()] == ["features", "ids"]
    got = session.run(None, feed_of(session, inputs.values()))[0]
    with torch.no_grad():
        expected = result(**inputs)["logits"].numpy()
    np.testing.assert_allclose(got, expected, atol=0.02 * np.abs(expected).max())


def test_a_model_that_is_not_calibrated_is_refused(tmp_path: Path) -> None:
    model, inputs = seasoned("Mlp")
    graph = trace(model, inputs)
    result = compress_model(model, graph, Candidate(layers=uniform(graph, 8)), ((inputs,), {}))
    with pytest.raises(ExportError, match="calibrated"):
        write_onnx(result, tmp_path / "model.onnx", ((inputs,), {}))
    assert list(tmp_path.iterdir()) == []


class _Fork(nn.Module):
    """Takes another way when the values say so."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.a(x)
        return self.b(x) if x.sum() > 0 else x


def test_control_flow_on_values_is_refused_in_one_quiet_line(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    inputs = torch.randn(2, 4)
    with pytest.raises(TraceError, match="depends on values") as caught:
        check_exportable(_Fork(), ((inputs,), {}))
    assert "\n" not in str(caught.value)
    with pytest.raises(ExportError) as refused:
        write_onnx(compressed(_Fork().eval(), inputs, Candidate()), tmp_path / "m", ((inputs,), {}))
    assert "\n" not in str(refused.value)
    assert list(tmp_path.iterdir()) == []
    assert capfd.readouterr() == ("", "")
    check_exportable(nn.Linear(4, 2), ((inputs,), {}))
