from pathlib import Path
from typing import Any

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


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"seconds": 0}, "'seconds': expected > 0, got 0"),
        ({"seconds": float("nan")}, "'seconds': expected > 0, got nan"),
        ({"seconds": "long"}, "'seconds': expected a float"),
        ({"networks": -1}, "'networks': expected a number >= 0, got -1"),
        ({"networks": 1.5}, "'networks': expected an int"),
        ({"bundle": "b", "measured": "m.json"}, "'bundle': expected nothing .* got 'measured'"),
        ({"bundle": "b", "out": "p.json"}, "'bundle': expected nothing .* got 'out'"),
        ({"target": "bit-serial", "bundle": "b"}, "'bundle': expected a target that is measured"),
        ({"target": "bit-serial", "measured": "m.json"}, "'measured': .* which is simulated"),
    ],
)
def test_a_profile_ignores_no_argument(
    arguments: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises((InvalidInputError, WrongTypeError), match=message):
        ac.profile(**arguments)
    assert not list(tmp_path.iterdir())


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


class _Scaled(torch.nn.Module):
    """Takes tokens and weights of another type, so that none fits in the place of the other."""

    def __init__(self) -> None:
        super().__init__()
        self.table = torch.nn.Embedding(5, 4)

    def forward(self, tokens: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = (self.table(tokens) * weights[..., None]).sum(1)
        return found


def test_latency_is_measured_on_inputs_by_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    tokens, weights = torch.zeros(2, 3, dtype=torch.int64), torch.ones(2, 3)
    inputs = {"tokens": tokens, "weights": weights}
    compressed = ac.compress(_Scaled().eval(), ac.Candidate(), inputs)
    artifact = ac.export(compressed, tmp_path / "model.onnx", inputs)
    turned = {"weights": weights, "tokens": tokens}
    assert ac.measure_latency(artifact, "onnxruntime-cpu", turned, seconds=0.1).median_ms > 0
