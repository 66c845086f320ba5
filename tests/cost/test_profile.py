import json
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.target import Target
from autocompress.cost import profile as profile_module
from autocompress.cost.correction import Anchor, fit_correction
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.kernels import executed_kernels
from autocompress.cost.profile import DeviceProfile, profile_device
from autocompress.cost.resolve import resolve_target
from autocompress.errors import InvalidInputError, MissingFileError
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from zoo import OptionANet

CPU = Target.named("onnxruntime-cpu")
RATIOS = (0.25, 0.5)


@dataclass
class Bound:
    """Stands for a search space: it has a graph."""

    graph: ModelGraph


ANCHOR = {"candidate": Candidate().to_json(), "latency_ms": 1.0, "kernel_ms": 1.0}
"""A measured network, as a file holds it."""


@pytest.fixture(scope="module")
def graph() -> ModelGraph:
    return trace(OptionANet(), torch.zeros(2, 3, 16, 16))


def _int8(graph: ModelGraph, ratio: float = 0.0, only: str = "") -> Candidate:
    config = LayerConfig(weight_bits=8, activation_bits=8)
    names = [only] if only else [group.name for group in graph.groups if group.prunable]
    return Candidate(
        pruning_ratios={name: ratio for name in names if ratio},
        layers={layer.name: config for layer in graph.layers},
    )


def _fake_time(key: KernelKey) -> float:
    return 1e-3 + key.operations * (1e-6 if key.bits == 8 else 3e-6)


def _profile(graph: ModelGraph, only: str = "") -> DeviceProfile:
    """A profile with made-up, exactly known times."""
    covered = [_int8(graph, ratio, only) for ratio in (0.0, *RATIOS)]
    covered += [Candidate(pruning_ratios=c.pruning_ratios) for c in covered]
    keys = {key for candidate in covered for key in executed_kernels(graph, candidate, CPU)}
    return DeviceProfile(
        target=CPU,
        device="made up",
        versions={"onnxruntime": "0"},
        created="2026-01-01T00:00:00+00:00",
        kernels={key: _fake_time(key) for key in sorted(keys, key=str)},
    )


def _anchor(kernel_ms: float, latency_ms: float, candidate: Candidate | None = None) -> Anchor:
    return Anchor(candidate=candidate or Candidate(), kernel_ms=kernel_ms, latency_ms=latency_ms)


def test_a_prediction_is_the_sum_of_the_kernels(graph: ModelGraph) -> None:
    graph = replace(graph, flow=None)
    profile = _profile(graph)
    for candidate in (Candidate(), _int8(graph), _int8(graph, 0.5)):
        counts = executed_kernels(graph, candidate, CPU)
        expected = sum(_fake_time(key) * count for key, count in counts.items())
        assert profile.kernel_ms(graph, candidate) == pytest.approx(expected)
        assert profile.predict_latency(graph, candidate) == pytest.approx(expected)
        assert profile.predict_latency(Bound(graph), candidate) == pytest.approx(expected)


def test_a_profile_serves_several_models(graph: ModelGraph) -> None:
    profile = _profile(graph)
    other = trace(OptionANet(blocks=2), torch.zeros(2, 3, 16, 16))
    small = profile.predict_latency(graph, Candidate())
    assert profile.predict_latency(other, Candidate()) > small
    assert profile.predict_latency(graph, Candidate()) == small


def test_widths_between_measured_ones_are_interpolated(graph: ModelGraph) -> None:
    group, ratios = "layer3.0.conv1", (0.25, 0.375, 0.5)
    profile = _profile(graph, group)
    times = [profile.kernel_ms(graph, _int8(graph, ratio, group)) for ratio in ratios]
    assert times[2] < times[1] < times[0]
    assert times[1] == pytest.approx((times[0] + times[2]) / 2, rel=0.02)


def test_an_unknown_shape_is_scaled_from_the_nearest_kernel(graph: ModelGraph) -> None:
    known = KernelKey(kind="linear", in_channels=16, out_channels=8, bits=32)
    profile = DeviceProfile(
        target=CPU,
        device="made up",
        versions={},
        created="",
        kernels={
            known: 1.0,
            KernelKey(
                kind="conv",
                in_channels=8,
                out_channels=8,
                kernel=(1, 1),
                stride=(1, 1),
                size=(1, 1),
            ): 1.0,
            KernelKey(kind="add", in_channels=8, out_channels=8, size=(2, 2)): 0.1,
        },
    )
    counts = executed_kernels(graph, Candidate(), CPU)
    convs = sum(key.operations / 64 * n for key, n in counts.items() if key.kind == "conv")
    adds = sum(key.operations / 320 * n for key, n in counts.items() if key.kind == "add")
    linear = 32 / 16 * 10 / 8
    assert profile.kernel_ms(graph, Candidate()) == pytest.approx(convs + adds + linear)
    with pytest.raises(InvalidInputError, match="profile the device again"):
        profile.kernel_ms(graph, _int8(graph))


def test_one_anchor_scales(graph: ModelGraph) -> None:
    assert fit_correction([_anchor(2.0, 3.0)]).scale == pytest.approx(1.5)
    graph = replace(graph, flow=None)
    profile = _profile(graph)
    candidate = _int8(graph)
    anchor = _anchor(profile.kernel_ms(graph, candidate), 7.0, candidate)
    refitted = profile.refit([anchor])
    assert refitted.version == profile.version + 1
    assert refitted.predict_latency(graph, candidate) == pytest.approx(7.0)
    whole = Candidate()
    assert refitted.predict_latency(graph, whole) == profile.predict_latency(graph, whole)


def test_a_newer_measurement_replaces_the_older_one(graph: ModelGraph) -> None:
    profile = _profile(graph)
    ms = profile.kernel_ms(graph, Candidate())
    refitted = profile.refit([_anchor(ms, 7.0)]).refit([_anchor(ms, 9.0)])
    assert len(refitted.anchors) == 1
    assert refitted.predict_latency(graph, Candidate()) == pytest.approx(9.0)
    assert profile.anchors == ()


def test_models_keep_their_own_measurements_of_one_candidate(graph: ModelGraph) -> None:
    profile = _profile(graph)
    ms = profile.kernel_ms(graph, Candidate())
    one, other = (replace(_anchor(ms, 7.0 + n), model=f"model {n}") for n in (0, 1))
    assert profile.refit([one]).refit([other]).anchors == (one, other)
    newer = replace(one, latency_ms=6.0)
    assert profile.refit([one, other]).refit([newer]).anchors == (newer, other)


def test_a_profile_survives_its_file(graph: ModelGraph, tmp_path: Path) -> None:
    path = tmp_path / "laptop.json"
    profile = _profile(graph).refit([_anchor(1.0, 1.5), _anchor(1.0, 0.5, _int8(graph, 0.5))])
    profile.save(path)
    loaded = DeviceProfile.load(path)
    assert loaded == profile
    assert loaded.predict_latency(graph, _int8(graph)) == profile.predict_latency(
        graph, _int8(graph)
    )


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("kernels", {"conv": 1.0}),
        ("kernels", {"linear 8>8 k s g1 @ b8": -1.0}),
        ("kernels", {"linear 8>8 k s g1 @ b8": "fast"}),
        ("kernels", []),
        ("target", {"name": "x", "threads": 0}),
        ("anchors", [{"candidate": "{", "latency_ms": 1.0, "kernel_ms": 1.0}]),
        ("anchors", [{"latency_ms": 1.0, "kernel_ms": 1.0}]),
        ("corrections", {"int8": {"slope": 1.0}}),
        ("schema_version", 99),
        ("colour", "blue"),
        ("version", None),
        ("version", "2"),
        ("kernels", {"linear 8>16 k s g1 @0 b32": 1.0}),
        ("kernels", {"linear 8>8 k s g1 @ b8": True}),
        ("anchors", [{**ANCHOR, "boundaries": "x"}]),
        ("anchors", [{**ANCHOR, "boundaries": -1}]),
        ("anchors", [{**ANCHOR, "model": [1]}]),
        ("corrections", {"float": {"offset_ms": "a", "scale": 1.0}}),
        ("corrections", {"float": {"offset_ms": 0.0, "scale": None}}),
        ("boundary_ms", "-5"),
        ("boundary_ms", -5.0),
    ],
)
def test_a_damaged_profile_is_refused(
    graph: ModelGraph, tmp_path: Path, key: str, value: object
) -> None:
    path = tmp_path / "bad.json"
    _profile(graph).save(path)
    record = json.loads(path.read_text())
    record[key] = value
    path.write_text(json.dumps(record))
    with pytest.raises(InvalidInputError, match=r"bad\.json.*a device profile"):
        DeviceProfile.load(path)


def test_incomplete_and_missing_files_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    for text in ("{}", "[]", "{", "null"):
        path.write_text(text)
        with pytest.raises(InvalidInputError, match=r"bad\.json"):
            DeviceProfile.load(path)
    with pytest.raises(MissingFileError):
        DeviceProfile.load(tmp_path / "none.json")


def test_a_measured_profile_covers_the_space(graph: ModelGraph, tmp_path: Path) -> None:
    groups = [group.name for group in graph.groups if group.prunable]
    profile = profile_device(graph, dict.fromkeys(groups, (0.5,)), CPU, seconds=1.0)
    for candidate in (Candidate(), _int8(graph), _int8(graph, 0.5)):
        assert set(executed_kernels(graph, candidate, CPU)) <= set(profile.kernels)
        assert 0 < profile.predict_latency(graph, candidate) < 100
    profile.save(tmp_path / "profile.json")
    assert DeviceProfile.load(tmp_path / "profile.json") == profile


def test_too_many_widths_are_thinned_but_keep_their_ends(
    graph: ModelGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    measured: list[KernelKey] = []

    def count(keys: list[KernelKey], **_: object) -> dict[KernelKey, float]:
        measured.extend(keys)
        return dict.fromkeys(keys, 1.0)

    monkeypatch.setattr(profile_module, "measure_kernels", count)
    monkeypatch.setattr(profile_module, "MAX_KERNELS", 320)
    group = graph.group("layer3.0.conv1")
    ratios = [1 - n / group.channels for n in (1, 4, 8, 12, 16, 20, 24, 28, 32)]
    profile_device(graph, {g.name: ratios for g in graph.groups if g.prunable}, CPU)
    assert 60 < len(measured) <= 330
    widths = {key.out_channels for key in measured if key.in_channels == 16 and key.kind == "conv"}
    assert {1, group.channels} <= widths
    assert {"quantise", "dequantise"} <= {key.kind for key in measured}


def test_a_target_is_given_by_name_itself_or_a_profile(graph: ModelGraph, tmp_path: Path) -> None:
    profile = _profile(graph)
    profile.save(tmp_path / "laptop.json")
    assert resolve_target("onnxruntime-cpu") == (CPU, None)
    assert resolve_target(CPU) == (CPU, None)
    assert resolve_target(tmp_path / "laptop.json") == (CPU, profile)
    assert resolve_target(str(tmp_path / "laptop.json")) == (CPU, profile)
    with pytest.raises(InvalidInputError, match="onnxruntime-cpu"):
        resolve_target("onnxruntime-gpu")
