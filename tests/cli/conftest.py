import sys
from pathlib import Path

import pytest
import yaml

import autocompress
from stand_in import USER, FakeApi


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "autocompress.api", fake)
    monkeypatch.setattr(autocompress, "api", fake, raising=False)
    return fake


@pytest.fixture(scope="session")  # a module is imported once
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "cli_user.py").write_text(USER)
    return folder


@pytest.fixture
def config(user_folder: Path, tmp_path: Path) -> Path:
    record = {
        "model": {"factory": "cli_user:make_model"},
        "task": {"factory": "cli_user:make_task"},
        "constraints": {"accuracy_drop": 0.02},
        "budget": {"trials": 7, "minutes": 2},
        "study_dir": str(tmp_path / "study"),
        "seed": 5,
    }
    path = user_folder / "config.yaml"
    path.write_text(yaml.safe_dump(record))
    return path
