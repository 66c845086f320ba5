import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.cli.init import SCHEMA_NAME

MODULE = """
from torch import nn


def make_model():
    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(16, 2))
"""


def test_init_writes_a_configuration_and_a_schema_and_replaces_only_by_force(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "mirrored_init_model.py").write_text(MODULE, encoding="utf-8")
    words, out = ["init", "mirrored_init_model:make_model"], tmp_path / "autocompress.yaml"
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "still to be written" in done.output, "there is no make_task yet"
    written = out.read_text(encoding="utf-8")
    assert SCHEMA_NAME in written
    assert json.loads((tmp_path / SCHEMA_NAME).read_text(encoding="utf-8"))["properties"]["model"]
    out.write_text("mine", encoding="utf-8")
    refused = CliRunner().invoke(app, words)
    assert refused.exit_code == 2
    assert "--force" in refused.stderr
    assert out.read_text(encoding="utf-8") == "mine"
    assert CliRunner().invoke(app, [*words, "--force"]).exit_code == 0
    assert out.read_text(encoding="utf-8") == written
