import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from torch import nn

import autocompress as ac
from autocompress.artifact.session import bound_call, check_available, open_model, runtime_version
from autocompress.core.target import NAMED, Target
from autocompress.errors import ExportError, InvalidInputError, MissingExtraError, MissingFileError

CPU = [name for name in NAMED if name.endswith("-cpu")]


@pytest.fixture(scope="module")
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten()
    return nn.Sequential(*layers, nn.Linear(8 * 64, 4)).eval()


def _exported(network: nn.Module, target: str, path: Path, bits: int = 32) -> ac.CompressedModel:
    layers = {name: ac.LayerConfig(weight_bits=4, activation_bits=bits) for name in ("0", "4")}
    inputs = torch.randn(2, 3, 8, 8)
    compressed = ac.compress(network, ac.Candidate(layers=layers), inputs)
    ac.export(compressed, path / Target.named(target).file_name, inputs, target=target)
    return compressed


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "openvino-cpu", "torch-cpu"])
def test_every_runtime_computes_what_the_model_does(
    name: str, network: nn.Module, tmp_path: Path
) -> None:
    if name == "openvino-cpu":
        pytest.importorskip("openvino")
    compressed = _exported(network, name, tmp_path)
    target = Target.named(name)
    session = open_model(tmp_path / target.file_name, target)
    (node,) = session.get_inputs()
    assert node.type == "tensor(float)"
    assert list(node.shape[1:]) == [3, 8, 8]
    for size in (1, 5):
        images = torch.randn(size, 3, 8, 8)
        (got,) = session.run(None, {node.name: images.numpy()})
        with torch.inference_mode():
            np.testing.assert_allclose(got, compressed(images).numpy(), rtol=1e-4, atol=1e-4)
        bound_call(session, {node.name: images.numpy()})()
    measured = ac.measure_latency(tmp_path / target.file_name, target, images, seconds=0.05)
    assert measured.median_ms > 0.0


@pytest.mark.slow
def test_a_compiled_program_computes_what_the_model_does(
    network: nn.Module, tmp_path: Path
) -> None:
    target = Target.named("torch-compiled-cpu")
    compressed = _exported(network, target.name, tmp_path)
    session = open_model(tmp_path / target.file_name, target)
    images = torch.randn(1, 3, 8, 8)
    (got,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
    with torch.inference_mode():
        np.testing.assert_allclose(got, compressed(images).numpy(), rtol=1e-4, atol=1e-4)


def test_pytorch_takes_no_quantised_activations(network: nn.Module, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="torch-cpu"):
        _exported(network, "torch-cpu", tmp_path, bits=8)


def test_threads_of_pytorch_stay_as_they_were(network: nn.Module, tmp_path: Path) -> None:
    before = torch.get_num_threads()
    _exported(network, "torch-cpu", tmp_path)
    session = open_model(tmp_path / "model.pt2", Target.named("torch-cpu", threads=before + 1))
    session.run(None, {session.get_inputs()[0].name: np.zeros((1, 3, 8, 8), np.float32)})
    assert torch.get_num_threads() == before


def test_what_is_not_there_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(onnxruntime, "get_available_providers", lambda: ["CPUExecutionProvider"])
    for name in ("torch-cuda", "onnxruntime-cuda"):
        with pytest.raises(InvalidInputError, match="none on this host"):
            check_available(Target.named(name))
    monkeypatch.setitem(sys.modules, "openvino", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    with pytest.raises(MissingExtraError, match=r"autocompress\[openvino\]"):
        check_available(Target.named("openvino-cpu"))
    with pytest.raises(MissingFileError):
        open_model(tmp_path / "none.pt2", Target.named("torch-cpu"))
    with pytest.raises(InvalidInputError, match=r"\.pt2"):
        open_model(b"onnx", Target.named("torch-cpu"))
    (tmp_path / "broken.pt2").write_bytes(b"no program")
    with pytest.raises(InvalidInputError, match=r"torch\.export"):
        open_model(tmp_path / "broken.pt2", Target.named("torch-cpu"))


@pytest.mark.parametrize("name", CPU)
def test_every_runtime_has_a_version(name: str) -> None:
    if name == "openvino-cpu":
        pytest.importorskip("openvino")
    assert all(runtime_version(Target.named(name)).values())


class _Choosy(nn.Module):
    """Takes a mask that may be left out, and a flag."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 2)

    def forward(
        self, x: torch.Tensor, mask: torch.Tensor | None, doubled: bool = False
    ) -> torch.Tensor:
        values = self.layer(x if mask is None else x * mask)
        return 2.0 * values if doubled else values


@pytest.mark.parametrize("name", ["onnxruntime-cpu", "torch-cpu"])
def test_models_run_with_what_is_no_tensor_as_it_was_given(name: str, tmp_path: Path) -> None:
    target, inputs = Target.named(name), {"x": torch.randn(3, 4), "mask": None, "doubled": True}
    compressed = ac.compress(_Choosy().eval(), ac.Candidate(), inputs)
    artifact = ac.export(compressed, tmp_path / target.file_name, inputs, target=target)
    got = ac.RuntimeModule(artifact.path, target=target)(**inputs)
    torch.testing.assert_close(got, compressed(**inputs).detach())
