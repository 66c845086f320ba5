"""Every block of code in the documents is read, and what can run does."""

import ast
import inspect
import json
import os
import re
import shlex
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

import autocompress as ac
from autocompress.cli import app
from autocompress.config import load_config
from autocompress.core.simulation import parse_simulation
from autocompress.space.preset import SearchSpace

ROOT = Path(__file__).parents[1]
PAGES = [
    *(ROOT / name for name in ("README.md", "search_spaces/README.md")),
    *sorted((ROOT / "docs").glob("*.md")),
]
FENCE = re.compile(r"^```(\w*)([^\n]*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
INDENTED = re.compile(r"^ {4}((?:autocompress|[A-Z_]+=\S+ autocompress) .*)$", re.MULTILINE)
LANGUAGES = {"console", "python", "sh", "yaml", "toml", "json", ""}


def blocks(language: str) -> list[Any]:
    """List the blocks of a language, each with its place."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        for match in FENCE.finditer(text):
            if match[1] == language:
                line = text[: match.start()].count("\n") + 1
                place = f"{page.relative_to(ROOT)}:{line}"
                found.append(pytest.param(match[3], id=place))
    return found


def commands() -> list[Any]:
    """List the calls of our command line, fenced or indented."""
    found = []
    for page in PAGES:
        text = page.read_text(encoding="utf-8")
        shown = [
            line
            for match in FENCE.finditer(text)
            if match[1] in ("sh", "console")
            for line in match[3].replace("\\\n", " ").splitlines()
        ]
        for line in [*shown, *INDENTED.findall(text)]:
            words = shlex.split(line, comments=True)
            while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
                words.pop(0)
            if words[:1] == ["autocompress"]:
                found.append(pytest.param(words[1:], id=f"{page.name}: {' '.join(words[1:])}"))
    return found


def test_every_block_has_a_known_language() -> None:
    for page in PAGES:
        for match in FENCE.finditer(page.read_text(encoding="utf-8")):
            assert match[1] in LANGUAGES, f"{page.name}: {match[1]}"


@pytest.mark.parametrize("code", blocks("python"))
def test_python_compiles_and_calls_what_is_there(code: str) -> None:
    tree = ast.parse(textwrap.dedent(code))
    for node in ast.walk(tree):
        if (
            isinstance(node, ast.Attribute)
            and isinstance(node.value, ast.Name)
            and node.value.id == "ac"
        ):
            assert hasattr(ac, node.attr), f"ac.{node.attr}"
        if (
            isinstance(node, ast.Call)
            and isinstance(node.func, ast.Attribute)
            and isinstance(node.func.value, ast.Name)
            and node.func.value.id == "ac"
        ):
            known = inspect.signature(getattr(ac, node.func.attr)).parameters
            for keyword in node.keywords:
                assert keyword.arg in known, f"ac.{node.func.attr}({keyword.arg}=)"


@pytest.mark.parametrize("words", commands())
def test_commands_have_known_verbs_and_options(words: list[str]) -> None:
    group: Any = typer.main.get_command(app)
    if words[0].startswith("--"):
        assert words[0] in {"--help", "--version", "--install-completion"}
        return
    verb = group.commands[words[0]]
    verb.make_context(words[0], words[1:], resilient_parsing=False)


@pytest.mark.parametrize("text", blocks("yaml"))
def test_yaml_is_a_configuration_or_a_space(text: str, tmp_path: Path) -> None:
    record = yaml.safe_load(text)
    if set(record) & {"pruning", "blocks", "sparsity", "distillation"}:
        SearchSpace.load(record)
        return
    if "simulation" in record.get("target", {}) and record["target"]["simulation"]:
        parse_simulation(record["target"]["simulation"])
    required = {"model": {"factory": "a:b"}, "task": {"factory": "a:c"}, "budget": {"trials": 1}}
    (tmp_path / "shown.yaml").write_text(yaml.safe_dump(required | record))
    load_config(tmp_path / "shown.yaml")


@pytest.mark.parametrize("text", blocks("toml"))
def test_toml_names_groups_that_are_read(text: str) -> None:
    groups = re.findall(r'entry-points\."autocompress\.(\w+)"', text)
    assert groups
    assert set(groups) <= {"costs", "criteria", "targets"}


def test_a_plugin_as_documented_works(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
    (code,) = re.findall(r'```python title="plugins.py"\n(.*?)```', page, re.DOTALL)
    names: dict[str, Any] = {}
    exec(compile(code, "plugins.py", "exec"), names)
    assert isinstance(names["MY_BOARD"], ac.Target)
    assert isinstance(names["MY_COST"], ac.Cost)
    assert isinstance(names["MY_CRITERION"], ac.Criterion)


@pytest.mark.slow
def test_following_the_guide_from_an_empty_folder_gives_a_front(tmp_path: Path) -> None:
    page = (ROOT / "docs" / "your-own-model.md").read_text(encoding="utf-8")
    environment = os.environ | {"OMP_NUM_THREADS": "2"}
    folder = str(Path(sys.executable).parent)
    environment["PATH"] = os.pathsep.join([folder, environment["PATH"]])
    environment["PYTHONPATH"] = os.pathsep.join([str(ROOT), environment.get("PYTHONPATH", "")])
    for language, options, text in FENCE.findall(page):
        title = re.search(r'title="(.*?)"', options)
        if title is not None:
            (tmp_path / title[1]).write_text(text)
        elif language == "sh":
            for line in text.splitlines():
                done = subprocess.run(
                    ["bash", "-c", line],
                    cwd=tmp_path,
                    env=environment,
                    capture_output=True,
                    text=True,
                    check=False,
                )
                assert done.returncode == 0, f"{line}\n{done.stdout}\n{done.stderr}"
    front = json.loads((tmp_path / "runs" / "my_study" / "front.json").read_text())["front"]
    assert len(front) >= 2
    assert (tmp_path / "deployed" / "model.onnx").is_file()
