"""A table of wrong configurations and commands: each gets one helpful message and exit code 2."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

from autocompress.cli import app

USER = """
import torch
from torch import nn
from autocompress.evaluation.task import Task

def make_model(width=8):
    return nn.Sequential(nn.Linear(4, width), nn.ReLU(), nn.Linear(width, 2))

def make_task():
    batch = (torch.zeros(4, 4), torch.zeros(4, dtype=torch.long))
    return Task(train=[batch], val=[batch], test=[batch])

def make_nothing():
    return None

def fails():
    raise FileNotFoundError("no such data set")
"""

RIGHT: dict[str, Any] = {
    "model": {"factory": "wrong_user:make_model"},
    "task": {"factory": "wrong_user:make_task"},
    "space": "mlp",
    "budget": {"trials": 2},
}

GONE = object()
"""Stands for a key that is left out."""

KEYS: list[tuple[str, Any, str]] = [
    ("bugdet", {"trials": 2}, "did you mean 'budget'"),
    ("model", GONE, "key 'model': expected a value, got nothing"),
    ("model", "wrong_user:make_model", "expected a mapping"),
    ("model.factory", GONE, "key 'model.factory'"),
    ("model.factory", "wrong_user.make_model", "write 'my_module:make_model'"),
    ("model.factory", "wrong_usr:make_model", "did you mean 'wrong_user'"),
    ("model.factory", "wrong_user:make_modell", "did you mean 'make_model'"),
    ("model.factory", "wrong_user:make_nothing", "expected a torch.nn.Module, got NoneType"),
    ("model.factory", "wrong_user:fails", "no such data set"),
    ("model.args", {"widht": 4}, "the arguments of wrong_user:make_model(width=8)"),
    ("model.args", [4], "expected a mapping"),
    ("model.weights", "absent.safetensors", "check the path"),
    ("model.weight", "absent.safetensors", "did you mean 'weights'"),
    ("task", GONE, "key 'task'"),
    ("task.factory", "wrong_user:make_model", "expected an autocompress.Task, got Sequential"),
    ("target", "onnxruntime-gpu", "did you mean 'onnxruntime-cpu'"),
    ("target", {"name": "onnxruntime-cpu", "thread": 2}, "did you mean 'threads'"),
    ("target", {"name": "onnxruntime-cpu", "threads": 0}, "expected >= 1, got 0"),
    ("target", {"name": "onnxruntime-cpu", "threads": "two"}, "expected an integer"),
    ("target", {"name": "onnxruntime-cpu", "profile": "absent.json"}, "check the path"),
    ("target", {"name": "x", "simulation": {"kind": "rofline"}}, "did you mean 'roofline'"),
    ("objectives", ["accuracy"], "'accuracy' and at least one cost"),
    ("objectives", ["latency_ms", "size_bytes"], "'accuracy' and at least one cost"),
    ("objectives", ["accuracy", "latncy_ms"], "did you mean 'latency_ms'"),
    ("objectives", ["accuracy", "energy_mj"], "energy_mj"),
    ("objectives", "accuracy", "expected a list"),
    ("constraints", {"latency": 1}, "did you mean 'latency_ms'"),
    ("constraints", {"latency_ms": "60"}, "write '60%'"),
    ("constraints", {"latency_ms": "sixty%"}, "write '60%'"),
    ("constraints", {"latency_ms": 0}, "a positive limit"),
    ("constraints", {"latency_ms": [1]}, "a number or a percent string"),
    ("constraints", {"accuracy_drop": 2}, "a fraction in [0, 1]"),
    ("constraints", {"accuracy_drop": "1%"}, "write 0.01 for one point"),
    ("constraints", ["accuracy_drop"], "expected a mapping"),
    ("space", "mpl", "did you mean 'mlp'"),
    ("space", "absent.yaml", "absent.yaml"),
    ("budget", GONE, "key 'budget'"),
    ("budget", {}, "expected trials, minutes or both"),
    ("budget", {"trails": 2}, "did you mean 'trials'"),
    ("budget", {"trials": 0}, "expected >= 1, got 0"),
    ("budget", {"trials": "many"}, "expected an integer"),
    ("budget", {"minutes": -1}, "a positive number"),
    ("budget", {"minutes": "ten"}, "expected a number"),
    ("training", {"epochs": 3}, "epochs"),
    ("quantisation", {"observer": "magic"}, "observer"),
    ("sampler", "jiont", "'joint'"),
    ("executor", "cluster", "cluster"),
    ("executor", {"name": "ray", "gpus": -1}, "expected a finite number >= 0, got -1"),
    ("storage", "sqlite:///trials.db", "'journal:/a/file'"),
    ("storage", "mysql://me:secret@host/trials", "set the environment variable"),
    ("seed", "zero", "expected an integer"),
    ("seed", -1, "'seed': expected >= 0, got -1"),
    ("device", "gpu", "gpu"),
    ("warm_start", "runs/a", "expected a list"),
]
"""A key, a wrong value, and what the message says."""

TEXTS = [
    ("", "an empty file"),
    ("- model\n- task\n", "expected a mapping of keys to values, got list"),
    ("model: {factory: a:b\ntask: 1\n", "a mistake in line 2"),
    ("seed: 1\nseed: 2\n", "a second key 'seed'"),
    ("seed: \x00", "expected YAML"),
]
"""A whole file, and what the message says."""

COMMANDS: list[tuple[list[str], str]] = [
    (["serach", "right.yaml"], "No such command 'serach'"),
    (["search"], "Missing argument 'CONFIG'"),
    (["search", "right.yaml", "--trails", "2"], "No such option: --trails"),
    (["search", "right.yaml", "--trials", "many"], "valid integer"),
    (["search", "right.yaml", "--trials", "0"], "expected >= 1, got 0"),
    (["search", "right.yaml", "--sampler", "tpee"], "'tpe'"),
    (["search", "right.yaml", "--storage", "mysql://me:secret@host/a"], "mysql://me:...@host/a"),
    (["search", "right.yaml", "--dry-run", "--warm-start", "absent"], "a folder with a study.db"),
    (["search", "absent.yaml"], "check the path"),
    (["search", "."], "got a folder"),
    (["check", "absent.yaml"], "check the path"),
    (["profile", "absent.yaml"], "check the path"),
    (
        ["profile", "right.yaml", "--networks", "-3", "--quiet"],
        "'networks': expected a number >= 0, got -3",
    ),
    (["profile", "right.yaml", "--seconds", "-1", "--quiet"], "'seconds': expected > 0, got -1.0"),
    (["resume", "absent"], "check the path"),
    (["report", "absent"], "a folder with a study.db"),
    (["export", "absent"], "a folder with a study.db"),
    (["export", "absent", "--program", "model.onnx"], "a file that ends in .pt2"),
    (["export", "absent", "--program", "model.pt2", "--out", "here"], "--program or --out"),
    (["init", "wrong_usr:make_model"], "did you mean 'wrong_user'"),
    (["init", "wrong_user"], "write 'my_module:make_model'"),
    (["init", "wrong_user:make_task"], "expected a torch.nn.Module, got Task"),
    (["init", "wrong_user:make_model", "--out", "right.yaml"], "--force"),
]
"""A command beside right.yaml, and what the message says."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("wrong")
    (folder / "wrong_user.py").write_text(USER)
    (folder / "right.yaml").write_text(yaml.safe_dump(RIGHT))
    return folder


def refused(*arguments: str) -> Result:
    """Run a command that must be refused, and leave nothing behind."""
    result = CliRunner().invoke(app, list(arguments), env={"TERMINAL_WIDTH": "200"})
    assert result.exit_code == 2, (result.output, result.exception)
    assert "Traceback" not in result.output
    assert not Path("runs").exists()
    return result


def damaged(key: str, value: Any) -> dict[str, Any]:
    record: dict[str, Any] = yaml.safe_load(yaml.safe_dump(RIGHT))
    section, _, inner = key.partition(".")
    place, name = (record[section], inner) if inner else (record, section)
    if value is GONE:
        del place[name]
    else:
        place[name] = value
    return record


@pytest.mark.parametrize(
    ("key", "value", "words"), KEYS, ids=[f"{k}={'' if v is GONE else v}" for k, v, _ in KEYS]
)
def test_a_wrong_value_is_told_in_one_line(
    folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any, words: str
) -> None:
    monkeypatch.chdir(folder)
    Path("wrong.yaml").write_text(yaml.safe_dump(damaged(key, value)))
    result = refused("search", "wrong.yaml", "--quiet")
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.parametrize(("text", "words"), TEXTS)
def test_a_file_that_is_no_configuration_is_refused(
    folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, words: str
) -> None:
    monkeypatch.chdir(folder)
    Path("wrong.yaml").write_text(text)
    result = refused("check", "wrong.yaml")
    assert result.stderr.count("\n") == 1
    assert words in result.stderr


@pytest.mark.parametrize(("arguments", "words"), COMMANDS, ids=lambda value: str(value)[:40])
def test_a_wrong_command_says_what_is_wrong(
    folder: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], words: str
) -> None:
    monkeypatch.chdir(folder)
    result = refused(*arguments)
    assert words in " ".join(re.sub(r"[│╭╮╰╯─]", " ", result.stderr).split())


def test_the_line_of_the_mistake_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    text = Path("right.yaml").read_text().replace("trials", "trails")
    Path("wrong.yaml").write_text("# a comment\n" + text)
    line = 1 + text.splitlines().index("  trails: 2") + 1
    assert f"'wrong.yaml', line {line}, section 'budget'" in refused("check", "wrong.yaml").stderr
    Path("wrong.yaml").write_text(text.replace("trails", "trials") + "constraints:\n  latency: 1\n")
    total = len(text.splitlines()) + 2
    assert f"'wrong.yaml', line {total}, " in refused("check", "wrong.yaml").stderr


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("model.factory", "wrong_user:fails"),
        ("model.factory", "wrong_user:make_nothing"),
        ("model.weights", "absent.safetensors"),
        ("task.factory", "wrong_user:make_nothing"),
        ("space", "absent.yaml"),
        ("teachers", [{"factory": "wrong_usr:make_model"}]),
    ],
)
def test_the_line_of_what_cannot_be_made_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch, key: str, value: Any
) -> None:
    monkeypatch.chdir(folder)
    text = yaml.safe_dump(damaged(key, value))
    Path("wrong.yaml").write_text(text)
    wrong = value[0]["factory"] if isinstance(value, list) else value
    line = next(at for at, words in enumerate(text.splitlines(), 1) if wrong in words)
    stderr = refused("search", "wrong.yaml", "--quiet").stderr
    assert stderr.startswith(f"error: 'wrong.yaml', line {line}, ")


def test_a_dry_run_refuses_what_this_host_lacks(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    Path("wrong.yaml").write_text(yaml.safe_dump(damaged("device", "gpu")))
    assert "a device that torch has here" in refused("search", "wrong.yaml", "--dry-run").stderr


def test_a_wrong_environment_variable_is_named(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    monkeypatch.setenv("AUTOCOMPRESS_BUDGET__TRAILS", "3")
    stderr = refused("check", "right.yaml").stderr
    assert "with AUTOCOMPRESS_BUDGET__TRAILS=3" in stderr
    assert "did you mean 'trials'" in stderr
