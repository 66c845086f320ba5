import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml

import autocompress as ac
from autocompress.cli.model import load_parts, profiled_section
from autocompress.config import load_config
from autocompress.core.budget import Budget
from autocompress.yaml_file import dump_yaml, parse_yaml
from stand_in import USER, FakeApi, invoke


def test_a_simulated_target_is_profiled_at_once(tmp_path: Path) -> None:
    (tmp_path / "profile_user.py").write_text(
        USER.replace(
            "Linear(4, 2)",
            "Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))",
        )
    )
    record = {
        "model": {"factory": "profile_user:make_model"},
        "task": {"factory": "profile_user:make_task"},
        "target": {"name": "npu", "simulation": {"kind": "accelerator", "rows": 8}},
        "space": "mlp",
        "budget": {"trials": 2},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(record))
    out = tmp_path / "npu.json"
    done = invoke("profile", tmp_path / "study.yaml", "--out", out, "--quiet")
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["simulated"]["simulation"]["rows"] == 8


def test_check_shows_what_is_blocked_and_why(api: FakeApi, config: Path) -> None:
    result = invoke("check", config)
    assert result.exit_code == 0, result.output
    assert "no: too small" in result.stdout
    assert "1 of 2 layers quantised" in result.stdout.splitlines()[-1]
    assert "search time: about 2 minutes, an estimate" in result.stdout
    (options,) = api.calls
    assert isinstance(options["budget"], Budget)
    assert options["space"] == "cnn"


def test_check_writes_json(api: FakeApi, config: Path) -> None:
    record = json.loads(invoke("check", config, "--json").stdout)
    assert record["layers"][0]["type"] == "Linear"
    assert record["layers"][0]["reason"] == "too small"
    assert record["search_seconds_estimate"] == 120.0
    assert record["savings"] == []


def test_what_factories_print_is_no_part_of_the_json(
    api: FakeApi, config: Path, user_folder: Path
) -> None:
    source = (user_folder / "cli_user.py").read_text()
    (user_folder / "cli_talker.py").write_text(f"print('files already there')\n{source}")
    config.write_text(config.read_text().replace("cli_user:make_model", "cli_talker:make_model"))
    found = invoke("check", config, "--json")
    assert json.loads(found.stdout)["layers"][0]["type"] == "Linear"
    assert "files already there" in found.stderr


def test_a_check_needs_no_training_data_where_a_search_needs_none() -> None:
    batch = (torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))
    config: Any = SimpleNamespace(
        make_model=lambda: torch.nn.Linear(4, 2),
        make_task=lambda: ac.Task(train=[], val=[batch]),
        make_training=lambda: ac.TrainingConfig(data="synthetic"),
    )
    _, task, _ = load_parts(config)
    assert list(task.train) == [batch]


def test_the_section_that_uses_a_profile_keeps_what_it_was_made_with(tmp_path: Path) -> None:
    (tmp_path / "study.yaml").write_text(
        "model: {factory: 'm:n'}\ntask: {factory: 'm:t'}\nbudget: {trials: 1}\n"
        "target: {name: onnxruntime-cpu, threads: 2, precisions: [32x32]}\n"
    )
    path = tmp_path / "a.json"
    section = profiled_section(load_config(tmp_path / "study.yaml"), path)
    line = dump_yaml(section, flow=True)
    assert line == f"{{name: onnxruntime-cpu, threads: 2, precisions: [32x32], profile: {path}}}\n"
    assert parse_yaml(line)["precisions"] == ["32x32"]


@pytest.mark.parametrize(
    ("source", "line", "words"),
    [
        ("teachers", "teachers: [{factory: 'fit_user:make_teacher'}]", "number 0"),
        ("labels", "", "some candidates learn from"),
        ("shapes", "", r"shape \[4\]"),
        ("synthetic", "training: {data: synthetic}", "batch norms"),
    ],
)
def test_what_a_search_would_refuse_is_refused(
    tmp_path: Path, source: str, line: str, words: str
) -> None:
    batch = "(torch.zeros(2, 4), torch.zeros(2, dtype=torch.int64))"
    train = "(torch.zeros(2, 4),)" if source == "labels" else batch
    more = ", (torch.zeros(2, 4, 4), torch.zeros(2, dtype=torch.int64))"
    inputs = {"labels": f"[{batch}]", "shapes": f"[{batch}{more}]"}.get(source, f"[{batch}]")
    name = f"fit_user_{source}"
    (tmp_path / f"{name}.py").write_text(
        f"""
import torch, autocompress

class Net(torch.nn.Module):
    def __init__(self, classes=2):
        super().__init__()
        self.a, self.b = torch.nn.Linear(4, 16), torch.nn.Linear(16, classes)

    def forward(self, x):
        return self.b(torch.relu(self.a(x.reshape(len(x), -1, 4)[:, 0])))

def make_model():
    return Net()

def make_teacher():
    return Net(classes=5)

def make_task():
    return autocompress.Task([{train}], {inputs})
"""
    )
    (tmp_path / "a.yaml").write_text(
        f"model: {{factory: '{name}:make_model'}}\ntask: {{factory: '{name}:make_task'}}\n"
        f"space: mlp\nbudget: {{trials: 2}}\n{line.replace('fit_user', name)}\n"
    )
    for verb in (("check",), ("search", "--dry-run")):
        done = invoke(verb[0], tmp_path / "a.yaml", *verb[1:])
        assert done.exit_code == 2, done.output
        assert re.search(words, " ".join(done.stderr.split())), done.stderr
