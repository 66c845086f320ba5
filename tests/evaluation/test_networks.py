from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import autocompress as ac
from autocompress.core.target import Target
from autocompress.cost.profile import DeviceProfile, profile_device
from autocompress.evaluation.networks import NetworkWriter, measure_networks
from autocompress.graph.inputs import ModelInputs
from zoo import ResidualNet

CPU = Target.named("onnxruntime-cpu")


@pytest.fixture(scope="module")
def parts() -> tuple[torch.nn.Module, ac.BoundSpace, ModelInputs]:
    torch.manual_seed(0)
    model, inputs = ResidualNet(width=8).eval(), torch.randn(2, 3, 16, 16)
    return model, ac.SearchSpace.load("cnn").bind(model, inputs, CPU), ModelInputs.of(inputs)


def test_files_for_timing_compute_what_artifacts_do(
    parts: tuple[torch.nn.Module, ac.BoundSpace, ModelInputs], tmp_path: Path
) -> None:
    model, space, examples = parts
    candidate = space.uniform(8, 8, 0.5)
    NetworkWriter(model, space, examples, CPU).write(candidate, tmp_path / "quick.onnx")
    inputs = examples.args[0]
    ac.export(ac.compress(model, candidate, inputs), tmp_path / "model.onnx", inputs)
    outputs = []
    for name in ("quick.onnx", "model.onnx"):
        session = onnxruntime.InferenceSession(tmp_path / name, providers=["CPUExecutionProvider"])
        feed = {session.get_inputs()[0].name: inputs.numpy()}
        outputs.append(session.run(None, feed)[0])
    np.testing.assert_allclose(*outputs, atol=1e-5)


def test_measured_networks_become_anchors(
    parts: tuple[torch.nn.Module, ac.BoundSpace, ModelInputs], tmp_path: Path
) -> None:
    model, space, examples = parts
    profile = profile_device(space.graph, space.pruning_choices, CPU, seconds=1.0)
    told: list[tuple[int, int]] = []
    fitted = measure_networks(
        profile,
        space,
        model,
        examples,
        count=7,
        seconds=600.0,
        on_progress=lambda done, of: told.append((done, of)),
    )
    assert told[-1] == (7, 7)
    assert fitted.version == profile.version + 1
    assert len({anchor.candidate for anchor in fitted.anchors}) == 7
    assert all(anchor.model == space.graph.fingerprint for anchor in fitted.anchors)
    fitted.save(tmp_path / "profile.json")
    again = DeviceProfile.load(tmp_path / "profile.json")
    candidates = [space.sample(seed) for seed in range(20)]
    means, deviations = fitted.predict_latencies(space, candidates)
    np.testing.assert_allclose(again.predict_latencies(space, candidates)[0], means)
    assert (deviations > 0).all()
    assert fitted.predict_latency(space, candidates[0]) == pytest.approx(means[0])
    assert "7 measured networks, too few to tell" in fitted.describe_model(space)


def test_networks_are_written_whatever_criterion_they_are_pruned_by(
    tmp_path: Path, parts: tuple[torch.nn.Module, ac.BoundSpace, ModelInputs]
) -> None:
    model, space, examples = parts
    writer = NetworkWriter(model, space, examples, CPU)
    for criterion in ("l1", "taylor"):  # the second would need a task
        candidate = replace(space.uniform(32, 32, 0.5), criterion=criterion)
        writer.write(candidate, tmp_path / f"{criterion}.onnx")
    first, second = ((tmp_path / f"{name}.onnx").read_bytes() for name in ("l1", "taylor"))
    assert first == second
