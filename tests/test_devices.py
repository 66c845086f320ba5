from pathlib import Path

import pytest
import torch

import autocompress as ac
from autocompress.cost.resolve import load_profile
from autocompress.errors import InvalidInputError, MissingFileError, WrongTypeError
from zoo import ResidualNet


def test_a_simulated_target_is_profiled_by_its_name(tmp_path: Path) -> None:
    found = ac.profile("bit-serial", out=tmp_path / "profile.json")
    assert isinstance(found, ac.SimulatedProfile)
    assert load_profile(tmp_path / "profile.json") == found


def test_a_real_target_needs_a_space_and_a_bundle_the_model_and_its_inputs(
    tmp_path: Path,
) -> None:
    with pytest.raises(WrongTypeError, match="'space': expected a BoundSpace"):
        ac.profile("onnxruntime-cpu")
    model, images = ResidualNet().eval(), torch.randn(2, 3, 16, 16)
    space = ac.SearchSpace.load("cnn").bind(model, images, ac.Target.named("onnxruntime-cpu"))
    with pytest.raises(WrongTypeError, match="'model': expected a Module"):
        ac.profile(space=space, bundle=tmp_path / "bundle", example_inputs=images)
    with pytest.raises(WrongTypeError, match="'example_inputs': expected a ModelInputs"):
        ac.profile(space=space, bundle=tmp_path / "bundle", model=model)
    with pytest.raises(MissingFileError):
        ac.profile(space=space, measured=tmp_path / "none.json")
    assert not (tmp_path / "bundle").exists()


def test_latency_is_not_measured_of_nothing(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        ac.measure_latency(tmp_path / "none.onnx", "onnxruntime-cpu", torch.randn(1, 3, 8, 8))
    with pytest.raises(InvalidInputError, match="'seconds': expected > 0, got 0"):
        ac.measure_latency(
            tmp_path / "none.onnx", "onnxruntime-cpu", torch.randn(1, 3, 8, 8), seconds=0
        )
    with pytest.raises(WrongTypeError, match="'seconds'"):
        ac.measure_latency(
            tmp_path / "none.onnx",
            "onnxruntime-cpu",
            torch.randn(1, 3, 8, 8),
            seconds="long",  # type: ignore[arg-type]
        )
