"""Damaged files: whatever stands in them, only errors of ours, and no code of theirs runs."""

import json
import random
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from autocompress.config import load_config
from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.evaluation import MeasuredMember, front_document
from autocompress.core.target import Target
from autocompress.cost.correction import Anchor
from autocompress.cost.kernels import executed_kernels
from autocompress.cost.profile import DeviceProfile
from autocompress.errors import AutocompressError
from autocompress.graph.tracing import trace
from autocompress.result import SearchResult
from zoo import OptionANet

CANDIDATE = Candidate(
    pruning_ratios={"layer1.conv1": 0.5},
    dropped_blocks=("layer2",),
    layers={"conv1": LayerConfig(weight_bits=4, activation_bits=8)},
    distill=DistillConfig(temperature=3.0, kd_weight=0.5),
)

STRANGE = [
    *(None, True, -1, 0, 1e308, -1e308, 10**400, "", "\0", "x" * 5000, [], {}, [[]], {"": None}),
    *("../../etc/passwd", "/etc/passwd", "!!python/object/apply:os.system [id]", float("nan")),
    *(float("inf"), {"name": "ray"}, [1, "a", None], "1e5", "60%", "nan", "os:system"),
]
"""What is put in place of a value."""

BYTES = [
    b"\0",
    b"\xff\xfe",
    b"{",
    b"}",
    b"[" * 3000,
    b'"',
    b":",
    b"- ",
    b"\n",
    b"&a ",
    b"*a",
    b"\t",
]
"""What is put into the text."""


def _config(_: Path) -> Any:
    return {
        "model": {"factory": "models:make", "args": {"width": 16}, "weights": "w.safetensors"},
        "task": {"factory": "models:task", "args": {}},
        "target": {"name": "onnxruntime-cpu", "threads": 1, "batch_size": 1},
        "objectives": ["accuracy", "latency_ms"],
        "constraints": {"accuracy_drop": 0.01, "latency_ms": "60%"},
        "space": "cnn",
        "budget": {"trials": 60, "minutes": 5.0},
        "training": {"schedule": "gradual", "stages": 3},
        "quantisation": {"observer": "mse"},
        "executor": {"name": "ray", "workers": 2},
        "seed": 0,
    }


def _front(_: Path) -> Any:
    member = MeasuredMember(
        id="0003",
        candidate=CANDIDATE,
        predicted={"accuracy": 0.9, "latency_ms": 0.4},
        measured={"val_accuracy": 0.91, "accuracy": 0.9, "latency_ms": 0.5, "origin": "joint"},
        path="front/0003/model.onnx",
    )
    baseline = {"val_accuracy": 0.92, "latency_ms": 1.0, "int8": {"latency_ms": 0.6}}
    return front_document(baseline, [member, replace(member, id="0004")]) | {"others": []}


def _profile(folder: Path) -> Any:
    graph = trace(OptionANet(), torch.zeros(2, 3, 16, 16))
    target = Target.named("onnxruntime-cpu")
    keys = sorted(executed_kernels(graph, Candidate(), target), key=str)[:3]
    anchor = Anchor(candidate=CANDIDATE, kernel_ms=1.0, latency_ms=1.1, model=graph.fingerprint)
    DeviceProfile(
        target=target,
        device="made up",
        versions={"onnxruntime": "0"},
        created="2026-01-01T00:00:00+00:00",
        kernels=dict.fromkeys(keys, 0.1),
        anchors=(anchor,),
    ).save(folder / "profile.json")
    return json.loads((folder / "profile.json").read_text())


def _read_front(path: Path) -> None:
    (path.parent / "study.db").touch()
    path.rename(path.parent / "front.json")
    result = SearchResult(path.parent)
    for member in result.members:
        assert member.path.resolve().is_relative_to(path.parent.resolve())


READERS: dict[str, tuple[Callable[[Path], Any], Callable[[Path], object]]] = {
    "config": (_config, load_config),
    "front": (_front, _read_front),
    "profile": (_profile, DeviceProfile.load),
    "candidate": (
        lambda _: json.loads(CANDIDATE.to_json()),
        lambda path: Candidate.from_json(path.read_text(encoding="utf-8", errors="replace")),
    ),
}


def _places(value: Any) -> list[tuple[Any, Any]]:
    """List every container and key below a value."""
    items = value.items() if isinstance(value, dict) else enumerate(value)
    found = []
    for key, below in list(items):
        found.append((value, key))
        if isinstance(below, (dict, list)):
            found += _places(below)
    return found


def _mutated(record: Any, as_text: Callable[[Any], str], rng: random.Random) -> bytes:
    """Change values, keys or bytes of a file."""
    record = json.loads(json.dumps(record))
    for _ in range(rng.choice((0, 1, 1, 2))):
        container, key = rng.choice(_places(record))
        kind = rng.randrange(3)
        if kind == 0 and isinstance(container, dict):
            container[rng.choice(("", "extra", "name", key * 2))] = container.pop(key)
        elif kind == 1:
            del container[key]
        else:
            container[key] = rng.choice(STRANGE)
    content = bytearray(as_text(record).encode("utf-8", errors="replace"))
    for _ in range(rng.choice((0, 0, 1, 3))):
        place = rng.randrange(len(content) + 1)
        if rng.random() < 0.5:
            content[place:place] = rng.choice(BYTES)
        else:
            del content[place : place + rng.choice((1, 1, 20, 1000))]
    return bytes(content)


@pytest.mark.parametrize("kind", READERS)
@pytest.mark.parametrize("count", [75, pytest.param(2_500, marks=pytest.mark.slow)])
def test_a_damaged_file_is_read_or_refused_by_an_error_of_ours(
    kind: str, count: int, tmp_path: Path
) -> None:
    make, read = READERS[kind]
    record, rng = make(tmp_path), random.Random(count)
    path, refused = tmp_path / "file.yaml", 0
    for _ in range(count):
        content = _mutated(record, yaml.safe_dump if kind == "config" else json.dumps, rng)
        path.write_bytes(content)
        try:
            read(path)
        except AutocompressError:
            refused += 1
        except Exception as error:
            raise AssertionError(f"{type(error).__name__} on {content[:2000]!r}") from error
    assert refused > count // 4
