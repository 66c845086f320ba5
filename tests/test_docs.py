"""The documents name what the code has."""

import importlib
import re
from pathlib import Path

import pytest
import yaml

import autocompress as ac
from autocompress import api, errors
from autocompress.cli import app
from autocompress.config import SearchConfig, load_config

ROOT = Path(__file__).parents[1]
REFERENCE = (ROOT / "docs" / "reference.md").read_text(encoding="utf-8")
PROSE = [
    *(ROOT / name for name in ("README.md", "CHANGELOG.md", "search_spaces/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def documented(text: str) -> dict[str, object]:
    """Return the objects that the reference shows, by the name it shows."""
    found: dict[str, object] = {}
    for path in re.findall(r"^::: (\S+)$", text, re.MULTILINE):
        if path == "autocompress.api":
            (members,) = re.findall(r"members: \[(.*)\]", text)
            found |= {name: getattr(api, name) for name in members.split(", ")}
        elif path == "autocompress.errors":
            found |= {name: getattr(errors, name) for name in errors.__all__}
        else:
            module, _, name = path.rpartition(".")
            found[name] = getattr(importlib.import_module(module), name)
    return found


def test_every_public_name_is_in_the_reference() -> None:
    shown = {id(value) for value in documented(REFERENCE).values()}
    for name in dir(ac):
        assert id(getattr(ac, name)) in shown, name


def test_the_reference_shows_public_names_only() -> None:
    public, _, parts = REFERENCE.partition("## The parts of a CheckReport")
    parts, _, errors_part = parts.partition("## Errors")
    assert set(documented(public + errors_part)) <= set(dir(ac))
    assert set(documented(parts)) == {
        "Preflight",
        "ModelGraph",
        "ChannelGroup",
        "Block",
        "Layer",
        "Saving",
    }


def test_the_configuration_is_shown_with_every_key_and_its_default(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")
    shown = re.findall(r"```yaml\n(.*?)```", page, re.DOTALL)[0]
    record = yaml.safe_load(shown)
    assert list(record) == list(SearchConfig.model_fields)
    (tmp_path / "my_study.yaml").write_text(shown)
    required = {key: record[key] for key in ("model", "task", "budget")}
    (tmp_path / "required.yaml").write_text(yaml.safe_dump(required))
    everything = load_config(tmp_path / "my_study.yaml").model_dump(exclude={"study_dir"})
    assert everything == load_config(tmp_path / "required.yaml").model_dump(exclude={"study_dir"})
    for section in ("model", "task", "target", "budget", "executor"):
        assert list(record[section]) == list(everything[section]), section


@pytest.mark.parametrize("path", PROSE, ids=lambda path: str(path.relative_to(ROOT)))
def test_lines_are_short(path: Path) -> None:
    assert max(map(len, path.read_text(encoding="utf-8").splitlines())) <= 120


def test_every_verb_is_on_the_page_of_the_command_line() -> None:
    page = (ROOT / "docs" / "command-line.md").read_text(encoding="utf-8")
    verbs = [
        command.name or command.callback.__name__
        for command in app.registered_commands
        if command.callback is not None
    ]
    assert "benchmark" in verbs
    assert sorted(re.findall(r"^\| `([a-z]+)", page, re.MULTILINE)) == sorted(verbs)
