"""The command line down to the search itself: a tiny network, nothing replaced."""

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

import autocompress as ac
from autocompress.cli import app
from autocompress.controller import schedule
from autocompress.controller.ledger import Ledger
from autocompress.core.files import read_json
from autocompress.kept_config import load_kept_config

USER = """
import torch
from torch import nn

import autocompress as ac

CLASSES = 4


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.conv2 = nn.Conv2d(8, 8, 3, padding=1)
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.fc(x.amax((2, 3)))


class Fork(Net):
    def forward(self, x):
        return super().forward(x if x.sum() > 0 else -x)


class NoLayers(Net):
    def forward(self, x):
        return x.mean((2, 3)) + self.fc.bias[:3]


def batches(count, seed, channels=3):
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        labels = torch.randint(CLASSES, (32,), generator=generator)
        images = 0.1 * torch.randn(32, channels, 8, 8, generator=generator)
        images[:, 0] += labels.view(-1, 1, 1)
        found.append((images, labels))
    return found


def make_model(kind="Net"):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = {"Net": Net, "Fork": Fork, "NoLayers": NoLayers}[kind]()
        optimiser = torch.optim.Adam(model.parameters(), 0.01)
        for _ in range(40 if kind == "Net" else 0):
            for images, labels in batches(2, 0):
                optimiser.zero_grad()
                nn.functional.cross_entropy(model(images), labels).backward()
                optimiser.step()
    return model.eval()


def make_task(empty=None, channels=3):
    parts = {"train": batches(2, 0), "val": batches(2, 1), "test": batches(2, 2)}
    if channels != 3:
        parts["test"] = batches(2, 2, channels)
    if empty is not None:
        parts[empty] = []
    return ac.Task(**parts)
"""

IMPOSSIBLE = {"size_bytes": 10}

Change = Callable[[dict[str, Any]], None]


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def content(folder: Path) -> dict[str, bytes]:
    """Read all files below a folder."""
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("real")
    (folder / "cli_search_user.py").write_text(USER)
    return folder


def configured(folder: Path, change: Change | None = None) -> Path:
    record: dict[str, Any] = {
        "model": {"factory": "cli_search_user:make_model"},
        "task": {"factory": "cli_search_user:make_task"},
        "constraints": IMPOSSIBLE,
        "budget": {"trials": 2, "finalists": 1},
        "study_dir": str(folder / "study"),
    }
    if change is not None:
        change(record)
    path = folder / "tiny.yaml"
    path.write_text(yaml.safe_dump(record))
    return path


@pytest.fixture(scope="module")
def searched(folder: Path) -> Result:
    """Search under a constraint that nothing can meet."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(schedule, "SHORT_IMAGES", 64)
        patch.setattr(schedule, "FULL_IMAGES", 64)
        return invoke("search", configured(folder))


def test_an_impossible_constraint_is_exit_code_3_with_the_nearest_on_disk(
    searched: Result, folder: Path
) -> None:
    assert searched.exit_code == 3, searched.output
    assert searched.stderr.count("\n") == 1
    assert "no candidate meets the constraints: size_bytes <= 10;" in searched.stderr
    assert "No front; the infeasible members, nearest first" in searched.stdout
    document = read_json(folder / "study" / "front.json")
    assert document["front"] == []
    nearest = ac.open(folder / "study").nearest_infeasible
    assert len(nearest) >= 2
    sizes = [member.measured["size_bytes"] for member in nearest]
    assert sizes == sorted(sizes)
    for member in nearest:
        assert member.path.is_file()
        assert member.packed_path.is_file()
        assert member.id in searched.stdout
    page = (folder / "study" / "report.html").read_text(encoding="utf-8")
    assert "The front is empty" in page
    assert f">{nearest[0].id}</th>" in page


def test_the_readme_names_every_file_of_a_study(searched: Result, folder: Path) -> None:
    assert searched.exit_code == 3
    readme = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
    for path in (folder / "study").iterdir():
        if not path.name.startswith("."):
            assert path.name in readme, path.name


def test_a_study_is_resumed_from_a_shell_after_python_has_resumed_it(
    searched: Result, folder: Path
) -> None:
    study = folder / "study"
    kept = load_kept_config(study)
    model, task = kept.make_model(), kept.make_task()
    ac.resume(study, model, task, verbose=False)
    assert load_kept_config(study) == kept
    result = invoke("resume", study, "--quiet")
    assert result.exit_code == 3, result.output  # as before, not 2
    assert load_kept_config(study) == kept


def set_model(**args: Any) -> Change:
    return lambda record: record["model"].update(args=args)


def set_task(**args: Any) -> Change:
    return lambda record: record["task"].update(args=args)


def set_key(key: str, value: object) -> Change:
    return lambda record: record.update({key: value})


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_task(empty="train"), "task 'train': expected at least one example, got an empty"),
        (set_task(empty="val"), "task 'val': expected at least one example, got an empty loader"),
        (set_task(channels=5), "task 'test': expected batches that the model"),
        (set_model(kind="NoLayers"), "at least one convolution or linear layer"),
        (set_key("space", "cnm"), "did you mean 'cnn'"),
        (set_key("space", "absent.yaml"), "absent.yaml"),
        (set_key("target", "onnxruntime-gpu"), "did you mean 'onnxruntime-cpu'"),
        (set_key("objectvies", []), "did you mean 'objectives'"),
        (set_key("constraints", {"latency": 1}), "did you mean 'latency_ms'"),
        (set_key("device", "tpu9"), "'device': expected"),
        (set_key("model", {"factory": "absent:make_model"}), "absent"),
        (
            lambda record: record["model"].update(weights="absent.safetensors"),
            "absent.safetensors': expected a file, got nothing there",
        ),
        (set_key("seed", 7), "the seed it was started with"),
    ],
)
def test_bad_input_is_one_sentence_and_leaves_an_existing_study_alone(
    searched: Result, folder: Path, change: Change, message: str
) -> None:
    assert searched.exit_code == 3
    before = content(folder / "study")
    result = invoke("search", configured(folder, change))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1
    assert re.match(r"error: .*expected .*, got .*; .*[.?]\n", result.stderr), result.stderr
    assert content(folder / "study") == before


def test_a_model_that_cannot_be_exported_is_one_sentence_and_leaves_no_folder(
    folder: Path, tmp_path: Path
) -> None:
    study = tmp_path / "runs" / "new"
    config = configured(folder, set_model(kind="Fork"))
    result = invoke("search", config, "--study-dir", study)
    assert result.exit_code == 2, result.output
    assert "control flow that depends on values" in result.stderr
    assert result.stderr.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_check_refuses_a_model_that_cannot_be_exported_after_its_tables(folder: Path) -> None:
    result = invoke("check", configured(folder, set_model(kind="Fork")))
    assert result.exit_code == 2, result.output
    assert "conv1" in result.stdout
    assert "control flow that depends on values" in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (set_task(empty="train"), "task 'train': expected at least one example, got an empty"),
        (set_task(channels=5), "task 'test': expected batches that the model"),
        (
            set_key("space", "nothing.yaml"),
            "search space: expected a group, block or layer that can vary",
        ),
    ],
)
def test_check_refuses_what_a_search_would(folder: Path, change: Change, message: str) -> None:
    nothing = "pruning: {include: []}\nblocks: {drop: false}\nquantisation: {include: []}\n"
    (folder / "nothing.yaml").write_text(nothing)
    result = invoke("check", configured(folder, change))
    assert result.exit_code == 2, result.output
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("verb", ["search", "check", "resume", "report"])
def test_a_missing_file_is_one_sentence(tmp_path: Path, verb: str) -> None:
    result = invoke(verb, tmp_path / "absent")
    assert result.exit_code == 2
    assert re.match(r"error: .*absent.*: expected .*, got .*; .*\.\n", result.stderr)
    assert list(tmp_path.iterdir()) == []


def test_check_reads_a_configuration_and_writes_nothing(folder: Path, tmp_path: Path) -> None:
    study = str(tmp_path / "none")
    result = invoke("check", configured(folder, set_key("study_dir", study)))
    assert result.exit_code == 0, result.output
    for name in ("conv1", "conv2", "fc"):
        assert name in result.stdout
    assert not (tmp_path / "none").exists()


def test_a_study_without_members_says_how_to_continue(folder: Path, tmp_path: Path) -> None:
    study = tmp_path / "stopped"
    Ledger.open(study / "study.db", metric_names=["1 - accuracy"], identity={}, seed=0).close()
    config = configured(folder, set_key("study_dir", str(study)))
    (study / "config.yaml").write_text(config.read_text())
    result = invoke("report", study)
    assert result.exit_code == 0, result.output
    assert result.stderr == ""
    assert "no members yet" in result.stdout
    assert f"to continue: autocompress resume {study}" in result.stdout
    page = (study / "report.html").read_text(encoding="utf-8")
    assert "No members yet" in page
    assert f"autocompress resume {study}" in page
