"""ONNX Runtime's static quantiser: what it writes runs, is smaller and says nearly the same."""

from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

import autocompress as ac
from autocompress.artifact.runtime import open_session
from autocompress.artifact.static_int8 import static_int8
from autocompress.errors import ExportError, MissingFileError
from zoo import ResidualNet


def test_the_file_is_int8_and_agrees_with_the_original(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = ResidualNet().eval(), torch.randn(64, 3, 8, 8)
    original = ac.export(
        ac.compress(model, ac.Candidate(), inputs[:2]), tmp_path / "a.onnx", inputs[:2]
    ).path
    name = onnx.load(original).graph.input[0].name
    feeds = [{name: inputs[:32].numpy()}, {name: inputs[32:].numpy()}]
    out = static_int8(original, tmp_path / "b" / "int8.onnx", feeds)
    kinds = {node.op_type for node in onnx.load(out).graph.node}
    assert {"QuantizeLinear", "DequantizeLinear"} <= kinds
    types = {constant.data_type for constant in onnx.load(out).graph.initializer}
    assert onnx.TensorProto.INT8 in types
    (expected,), (got,) = (
        open_session(path, threads=1).run(None, {name: inputs.numpy()}) for path in (original, out)
    )
    assert 0 < np.abs(got - expected).mean() < 0.1 * np.abs(expected).mean()


def test_what_cannot_be_quantised_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="none"):
        static_int8(tmp_path / "none.onnx", tmp_path / "out.onnx", [])
    broken = tmp_path / "broken.onnx"
    broken.write_bytes(b"nothing")
    with pytest.raises(ExportError, match="a file that ONNX Runtime can quantise"):
        static_int8(broken, tmp_path / "out.onnx", [])
    assert not (tmp_path / "out.onnx").exists()
