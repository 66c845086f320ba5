import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch

import autocompress as ac
from autocompress.artifact import saturation
from autocompress.artifact.runtime import open_session
from autocompress.artifact.saturation import probe_model, resolve_range, saturates
from autocompress.core.candidate import CODEBOOK
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.target import Target
from autocompress.cost import bundle_runner
from autocompress.errors import ExportError
from seasoned import seasoned

TARGET = Target.named("onnxruntime-cpu")


def _pretend(patch: pytest.MonkeyPatch, clips: bool) -> None:
    patch.setattr(saturation, "_saturates_here", lambda runtime: clips)


def _disassembled(model: bytes) -> float:
    """Run the probe in floating point, which clips nowhere."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    [found] = session.run(None, {"x": np.ones((1, saturation.CHANNELS, 4, 4), np.float32)})
    return float(np.abs(found - 1.0).max())


def test_the_probe_returns_ones_where_nothing_clips() -> None:
    assert _disassembled(probe_model().SerializeToString()) < 1e-3


def test_the_host_is_asked_once_and_agrees_with_its_processor() -> None:
    flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    found = saturates(TARGET)
    if "avx2" in flags:
        assert found != ("avx512_vnni" in flags or "avx_vnni" in flags)
    session = open_session(probe_model().SerializeToString(), threads=1)
    [ones] = session.run(None, {"x": np.ones((1, saturation.CHANNELS, 4, 4), np.float32)})
    assert found == bool(np.abs(ones - 1.0).max() > 0.01)


def test_what_a_profile_found_elsewhere_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    _pretend(monkeypatch, False)
    assert not saturates(TARGET)
    assert saturates(replace(TARGET, saturates=True))
    _pretend(monkeypatch, True)
    assert saturates(TARGET)
    assert not saturates(Target.named("torch-cpu"))


@pytest.mark.parametrize(
    ("given", "clips", "expected"),
    [("auto", True, "on"), ("auto", False, "off"), ("off", True, "off"), ("on", False, "on")],
)
def test_the_range_follows_the_target_unless_it_is_given(
    given: str, clips: bool, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    _pretend(monkeypatch, clips)
    config = QuantisationConfig(reduce_range=given)
    assert resolve_range(config, TARGET).reduce_range == expected


def _largest(config: ac.LayerConfig, reduce_range: str) -> int:
    model, inputs = seasoned("ResidualNet", 8)
    layers = {"layer1.0.conv1": config}
    model_in = ac.compress(
        model,
        ac.Candidate(layers=layers),
        inputs,
        quantisation=QuantisationConfig(reduce_range=reduce_range),
    )
    return int(model_in.quantised_weight("layer1.0.conv1").codes.abs().max())


@pytest.mark.parametrize(
    ("config", "limit", "reduced"),
    [
        (ac.LayerConfig(weight_bits=8, activation_bits=8), 127, 63),
        (ac.LayerConfig(weight_bits=6, activation_bits=8), 31, 31),
        (ac.LayerConfig(weight_bits=8), 127, 127),
        (ac.LayerConfig(weight_bits=3, activation_bits=8, weight_format=CODEBOOK), 127, 63),
    ],
)
def test_codes_keep_to_seven_bits_where_activations_are_quantised(
    config: ac.LayerConfig, limit: int, reduced: int
) -> None:
    assert _largest(config, "off") <= limit
    assert _largest(config, "off") > limit // 2
    assert reduced // 2 < _largest(config, "on") <= reduced


def test_a_reduced_model_is_kept_exported_and_computed_as_it_is(tmp_path: Path) -> None:
    model, inputs = seasoned("ResidualNet", 8)
    eight = ac.LayerConfig(weight_bits=8, activation_bits=8)
    layers = [n for n, m in model.named_modules() if isinstance(m, torch.nn.Conv2d)]
    compressed = ac.compress(
        model,
        ac.Candidate(layers=dict.fromkeys(layers, eight)),
        inputs,
        quantisation=QuantisationConfig(reduce_range="on"),
    )
    artifact = ac.export(compressed, tmp_path / "model.onnx", inputs)
    loaded = ac.load(artifact.packed_path, model)
    assert loaded.record.reduced
    for name in layers:
        kept, rebuilt = compressed.quantised_weight(name), loaded.quantised_weight(name)
        assert torch.equal(kept.codes, rebuilt.codes)
        assert len(rebuilt.grid.levels) == 127


def test_an_export_that_clips_says_what_helps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = seasoned("ResidualNet", 8)
    _pretend(monkeypatch, True)
    compressed = ac.compress(
        model, ac.Candidate(), inputs, quantisation=QuantisationConfig(reduce_range="off")
    )
    with torch.no_grad():
        ac.export(compressed, tmp_path / "model.onnx", inputs)
        monkeypatch.setattr("autocompress.artifact.export.OUTPUT_TOLERANCE", -1.0)
        with pytest.raises(ExportError, match="reduce_range='on'"):
            ac.export(compressed, tmp_path / "model.onnx", inputs)


def test_the_runner_of_a_bundle_finds_the_same(tmp_path: Path) -> None:
    path = tmp_path / "probe.onnx"
    path.write_bytes(probe_model().SerializeToString())
    assert bundle_runner.clips(path) == saturation._saturates_here("onnxruntime")


def test_a_target_keeps_what_was_found() -> None:
    found = replace(TARGET, saturates=True)
    assert Target.from_json(json.loads(json.dumps(found.to_json()))) == found
