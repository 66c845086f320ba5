import ast
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import autocompress as ac
from autocompress.core.files import write_json
from autocompress.core.target import Target
from autocompress.cost import bundle_runner
from autocompress.cost.bundle import read_measured
from autocompress.cost.profile import wanted_kernels
from autocompress.errors import InvalidInputError
from zoo import ResidualNet


def test_the_runner_needs_numpy_and_onnxruntime_alone() -> None:
    tree = ast.parse(Path(bundle_runner.__file__).read_text())
    names = {
        name.split(".")[0]
        for node in ast.walk(tree)
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [node.module or ""]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    assert names - set(sys.stdlib_module_names) == {"numpy", "onnxruntime"}


def test_a_bundle_is_measured_and_read_back(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = ResidualNet(width=8).eval(), torch.randn(2, 3, 16, 16)
    space = ac.SearchSpace.load(
        {"pruning": {"ratios": [0, 0.5]}, "quantisation": {"weight_bits": [8, 32]}}
    ).bind(model, inputs, ac.Target.named("onnxruntime-cpu"))
    folder = tmp_path / "bundle"
    told: list[tuple[str, int, int]] = []
    found = ac.profile(
        space=space,
        model=model,
        example_inputs=inputs,
        networks=3,
        bundle=folder,
        on_progress=lambda *news: told.append(news),
    )
    assert found is None
    assert told[-1][1] == told[-1][2]
    finished = subprocess.run(
        [sys.executable, "runner.py", "--out", str(tmp_path / "measured.json"), "--rounds", "3"],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    assert "networks: 3 of 3" in finished.stdout
    profile = ac.profile(
        space=space, measured=tmp_path / "measured.json", out=tmp_path / "profile.json"
    )
    assert isinstance(profile, ac.DeviceProfile)
    assert len(profile.anchors) == 3
    record = json.loads((tmp_path / "measured.json").read_text())
    assert len(profile.kernels) == len(record["kernels"])
    assert profile.anchors[0].latency_ms == pytest.approx(record["network_ms"][0])
    predicted, _ = profile.predict_latencies(space, [space.sample(seed) for seed in range(5)])
    assert (np.isfinite(predicted) & (predicted > 0)).all()
    other = ResidualNet(width=16).eval()
    with pytest.raises(InvalidInputError, match="another"):
        read_measured(tmp_path / "measured.json", ac.SearchSpace.load("cnn").bind(other, inputs))


def test_bundles_are_for_onnxruntime(tmp_path: Path) -> None:
    model, inputs = ResidualNet(width=8).eval(), torch.randn(2, 3, 16, 16)
    target = ac.Target.named("torch-cpu")
    space = ac.SearchSpace.load("cnn").bind(model, inputs, target)
    with pytest.raises(InvalidInputError, match="onnxruntime-cpu"):
        ac.profile(target, space=space, model=model, example_inputs=inputs, bundle=tmp_path)


def test_networks_are_timed_on_until_their_medians_are_known() -> None:
    rng = np.random.default_rng(0)
    table = np.ones((40, 3)) * [1.0, 0.5, 0.7]
    table[:, 1] *= 1 + 0.3 * rng.standard_normal(40)
    table *= 1 + 0.2 * rng.random((40, 1))  # what all share does not matter
    assert bundle_runner.unsettled(table).tolist() == [True, False]
    calm = np.concatenate([table] * 40)
    assert not bundle_runner.unsettled(calm).any()


@pytest.mark.parametrize(("rounds", "said"), [("2", "3 or more"), ("5", "bundle.json")])
def test_the_runner_says_what_it_lacks(tmp_path: Path, rounds: str, said: str) -> None:
    runner = shutil.copy(bundle_runner.__file__, tmp_path / "runner.py")
    ended = subprocess.run(
        [sys.executable, runner, "--rounds", rounds], capture_output=True, text=True, check=False
    )
    assert ended.returncode == 2
    assert said in ended.stderr


def test_measurements_that_are_damaged_are_refused(tmp_path: Path) -> None:
    torch.manual_seed(0)
    model, inputs = ResidualNet(width=8).eval(), torch.randn(2, 3, 16, 16)
    space = ac.SearchSpace.load("cnn").bind(model, inputs)
    path, network = tmp_path / "measured.json", {"file": "a", "candidate": "{}"}
    keys = wanted_kernels(space.graph, {}, Target.named("onnxruntime-cpu"))
    record: dict[str, Any] = {
        "target": Target.named("onnxruntime-cpu").to_json(),
        "model": space.graph.fingerprint,
        "copies": 2,
        "kernels": {},
        "networks": [network],
        "device": "a board",
        "versions": {},
        "created": "2026-01-01",
        "kernel_ms": {str(key): 1.0 for key in keys},
        "network_ms": [2.0],
    }
    write_json(path, record)
    assert len(read_measured(path, space).anchors) == 1
    write_json(path, {**record, "network_ms": []})
    assert not read_measured(path, space).anchors
    damaged: list[dict[str, Any]] = [
        *({"kernel_ms": {"linear 8>8 k s g1 @ b8": value}} for value in (None, "x", True)),
        {"kernel_ms": [1.0]},
        {"networks": [{"file": "a"}]},
        {"networks": [network] * 3},
        *({"network_ms": value} for value in (None, [None], ["x"], [1.0, 1.0])),
        {"versions": 3},
        {"target": {"name": "onnxruntime-cpu", "precisions": [8]}},
    ]
    for change in damaged:
        write_json(path, {**record, **change})
        with pytest.raises(InvalidInputError, match=r"measured\.json.*measurements of a bundle"):
            read_measured(path, space)
    write_json(path, {**record, "model": "other"})
    with pytest.raises(InvalidInputError, match="those of another; give"):
        read_measured(path, space)
