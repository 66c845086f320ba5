from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import autocompress as ac
from autocompress.artifact.onnx_file import write_onnx
from autocompress.artifact.quick_onnx import write_quickly
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.errors import ExportError
from seasoned import compressed
from zoo import ResidualNet


def _run(path: Path, images: torch.Tensor) -> np.ndarray:
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (node,) = session.get_inputs()
    (outputs,) = session.run(None, {node.name: images.numpy()})
    return np.asarray(outputs)


def _optimised(path: Path) -> Counter[str]:
    """Count the operators that the runtime makes of a file, but for the ways to end a network."""
    ends = ("Flatten", "Reshape", "GlobalAveragePool", "QLinearGlobalAveragePool", "ReduceMean")
    options, made = onnxruntime.SessionOptions(), path.with_suffix(".optimised.onnx")
    options.optimized_model_filepath, options.log_severity_level = str(made), 3
    onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    found = (node.op_type for node in onnx.load(made).graph.node)
    return Counter(kind for kind in found if kind not in ends)


@pytest.mark.parametrize("bits", [(8, 8), (4, 8), (8, 32)])
def test_the_runtime_computes_the_same_as_from_an_artifact(
    tmp_path: Path, bits: tuple[int, int]
) -> None:
    torch.manual_seed(0)
    images = torch.randn(4, 3, 16, 16)
    config = LayerConfig(weight_bits=bits[0], activation_bits=bits[1])
    layers = dict.fromkeys(("conv1", "layer1.0.conv1", "layer2.0.conv2", "fc"), config)
    model = compressed(ResidualNet().eval(), images, Candidate(layers=layers))
    for name, write in (("quick", write_quickly), ("whole", write_onnx)):
        write(model, tmp_path / f"{name}.onnx", ((images[:2],), {}))
    assert _optimised(tmp_path / "quick.onnx") == _optimised(tmp_path / "whole.onnx")
    quick, whole = (_run(tmp_path / f"{name}.onnx", images) for name in ("quick", "whole"))
    np.testing.assert_allclose(quick, whole, rtol=1e-5, atol=1e-5 * float(np.abs(whole).max()))


class Bessel(nn.Module):
    """Computes what ONNX has no operator for."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.special.i0(x)


def test_what_onnx_does_not_have_leaves_no_file(tmp_path: Path) -> None:
    torch.manual_seed(0)
    images = torch.randn(2, 3, 16, 16)
    model = compressed(ResidualNet().eval(), images, Candidate())
    model.network.fc = Bessel()
    with pytest.raises(ExportError):
        write_quickly(model, tmp_path / "a.onnx", ((images,), {}))
    assert list(tmp_path.iterdir()) == []


class _Unused(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = torch.nn.Linear(4, 2)

    def forward(self, mask: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
        return self.layer(features)


def test_inputs_that_nothing_reads_stay(tmp_path: Path) -> None:
    inputs = (torch.ones(2, 3, dtype=torch.int64), torch.randn(2, 4))
    model = ac.compress(_Unused().eval(), Candidate(), inputs)
    write_quickly(model, tmp_path / "quick.onnx", (inputs, {}))
    session = onnxruntime.InferenceSession(
        tmp_path / "quick.onnx", providers=["CPUExecutionProvider"]
    )
    assert [len(entry.shape) for entry in session.get_inputs()] == [2, 2]
    names = [entry.name for entry in session.get_inputs()]
    arrays = dict(zip(names, (tensor.numpy() for tensor in inputs), strict=True))
    (found,) = session.run(None, arrays)
    torch.testing.assert_close(torch.from_numpy(found), model(*inputs).detach())


class _Choosy(nn.Module):
    """Takes flags and what may be left out beside its tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(
        self,
        x: torch.Tensor,
        mask: torch.Tensor | None = None,
        shift: torch.Tensor | None = None,
        doubled: bool = False,
    ) -> torch.Tensor:
        values = self.layer(x if mask is None else x * mask)
        values = values if shift is None else values + shift
        return 2.0 * values if doubled else values


@pytest.mark.parametrize("write", [write_quickly, write_onnx])
def test_what_is_no_tensor_is_fixed_in_the_file(tmp_path: Path, write: Callable[..., None]) -> None:
    torch.manual_seed(0)
    inputs = {"x": torch.randn(2, 4), "mask": None, "shift": torch.randn(2, 2), "doubled": True}
    model = ac.compress(_Choosy().eval(), Candidate(), inputs)
    write(model, tmp_path / "model.onnx", ((), inputs))
    session = onnxruntime.InferenceSession(
        tmp_path / "model.onnx", providers=["CPUExecutionProvider"]
    )
    assert [node.name for node in session.get_inputs()] == ["x", "shift"]
    (found,) = session.run(None, {name: inputs[name].numpy() for name in ("x", "shift")})
    torch.testing.assert_close(torch.from_numpy(found), model(**inputs).detach())
