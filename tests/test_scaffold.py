import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from torch import nn
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.config import SearchConfig, load_config
from autocompress.scaffold import new_config, preset_for, schema

ROOT = Path(__file__).parents[1]

USER = """
from torch import nn

def make_model():
    return nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 1))
"""


def test_init_writes_a_configuration_that_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scaffold_user.py").write_text(USER)
    result = CliRunner().invoke(app, ["init", "scaffold_user:make_model", "--out", "a.yaml"])
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines() == [
        "a.yaml: space 'mobile'",
        "still to be written: 'scaffold_user:make_task', "
        "a function that returns an autocompress.Task",
        "next: autocompress check a.yaml",
    ]
    config = load_config("a.yaml")
    assert (config.space, config.budget.minutes) == ("mobile", 10)
    first = Path("a.yaml").read_text().splitlines()[0]
    assert Path(first.partition("$schema=")[2]).is_file()


def test_init_tells_what_is_missing_from_what_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("scaffold_wide.py").write_text("def make_model(width):\n    return None\n")
    Path("scaffold_broken.py").write_text("def make_task(:\n")
    Path("scaffold_plain.py").write_text(USER)
    result = CliRunner().invoke(app, ["init", "scaffold_wide:make_model", "--out", "my model.yaml"])
    assert result.exit_code == 0, result.output
    assert "the arguments width of 'scaffold_wide:make_model'" in result.stdout
    assert result.stdout.splitlines()[-1] == "next: autocompress check 'my model.yaml'"
    for task in ("scaffold_broken:make_task", "nonsense"):
        words = ["init", "scaffold_plain:make_model", "--task", task, "--out", "b.yaml"]
        assert CliRunner().invoke(app, words).exit_code == 2
        assert not Path("b.yaml").exists()


@pytest.mark.parametrize(
    ("model", "preset"),
    [
        (nn.Linear(2, 2), "mlp"),
        (nn.Conv1d(2, 2, 3), "cnn"),
        (nn.Conv2d(4, 4, 3, groups=4), "mobile"),
        (nn.MultiheadAttention(4, 2), "transformer"),
        (nn.Sequential(nn.Conv2d(3, 4, 4), nn.MultiheadAttention(4, 2)), "vit"),
        (nn.Sequential(nn.Embedding(9, 4), nn.MultiheadAttention(4, 2)), "bert"),
    ],
)
def test_the_preset_fits_the_layers(model: nn.Module, preset: str) -> None:
    assert preset_for(model) == preset
    assert (ROOT / "search_spaces" / f"{preset}.yaml").is_file()


def test_the_schema_describes_every_key_and_takes_right_files() -> None:
    found = json.loads(json.dumps(schema()))
    jsonschema.Draft202012Validator.check_schema(found)
    assert set(found["properties"]) == set(SearchConfig.model_fields)
    for name, described in found["properties"].items():
        assert described.get("description"), name
    validator = jsonschema.Draft202012Validator(found)
    for text in (
        new_config("a:b", "a:c", "cnn", "schema.json"),
        (ROOT / "examples" / "digits.yaml").read_text(),
    ):
        assert not list(validator.iter_errors(yaml.safe_load(text)))


@pytest.mark.parametrize(
    "change",
    [
        {"bugdet": {}},
        {"budget": {"trials": "many"}},
        {"target": {"thread": 1}},
        {"constraints": {"latency_ms": "sixty"}},
        {"training": {"epochs": 3}},
    ],
)
def test_the_schema_refuses_what_a_search_would(change: dict[str, Any]) -> None:
    right = yaml.safe_load(new_config("a:b", "a:c", "cnn", "schema.json"))
    assert list(jsonschema.Draft202012Validator(schema()).iter_errors(right | change))
