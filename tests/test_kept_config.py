import ast
import shlex
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from autocompress.config import load_config
from autocompress.core.budget import Budget
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.recipe import Recipe
from autocompress.core.training import TrainingConfig
from autocompress.errors import InvalidInputError, MissingFileError, StudyError
from autocompress.kept_config import how_to_continue, load_kept_config, text_to_keep

MINIMAL = {
    "model": {"factory": "config_user:make_model"},
    "task": {"factory": "config_user:make_task"},
    "budget": {"trials": 5},
}


def _written(path: Path, record: object) -> Path:
    path.write_text(yaml.safe_dump(record))
    return path


def test_a_kept_configuration_follows_the_study_when_it_moves(tmp_path: Path) -> None:
    config = load_config(_written(tmp_path / "a.yaml", MINIMAL))
    (tmp_path / "moved").mkdir()
    (tmp_path / "moved" / "config.yaml").write_text(config.to_yaml())
    kept = load_kept_config(tmp_path / "moved", minutes=3.0)
    assert kept.study_dir == str(tmp_path / "moved")
    assert kept.folder == config.folder
    assert kept.make_budget() == Budget(trials=5, minutes=3.0)


def test_a_study_that_python_started_is_pointed_to_python(tmp_path: Path) -> None:
    _written(tmp_path / "config.yaml", {"seed": 0, "sampler": "tpe"})
    with pytest.raises(InvalidInputError, match=r"autocompress\.resume\("):
        load_kept_config(tmp_path)


def test_a_folder_without_a_study_is_said_as_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"nowhere': expected a folder with the config"):
        load_kept_config(tmp_path / "nowhere")


SETTINGS: dict[str, Any] = {
    "target": {"name": "onnxruntime-cpu"},
    "objectives": ["accuracy", "latency_ms"],
    "constraints": {"latency_ms": "70%"},
    "space": {"name": "cnn"},
    "budget": {"trials": 50, "minutes": 2.0},
    "executor": {"name": "ray", "workers": 2},
    "sampler": "tpe",
    "training": asdict(TrainingConfig(recipe=Recipe(optimiser="adamw"), learning_share=0.1)),
    "quantisation": asdict(QuantisationConfig(reduce_range="on", sensitivity="hessian")),
    "device": "cpu",
    "seed": 0,
}


def test_a_search_from_python_keeps_the_factories_of_the_study(tmp_path: Path) -> None:
    kept = load_config(_written(tmp_path / "a.yaml", MINIMAL), study_dir=str(tmp_path))
    (tmp_path / "config.yaml").write_text(kept.to_yaml())
    (tmp_path / "config.yaml").write_text(text_to_keep(tmp_path, SETTINGS))
    again = load_kept_config(tmp_path)
    assert again.make_training().recipe.optimiser == "adamw"
    assert again.make_training().learning_share == 0.1
    assert again.make_quantisation().reduce_range == "on"
    assert (again.model, again.task, again.folder) == (kept.model, kept.task, kept.folder)
    assert again.make_budget() == Budget(trials=50, minutes=2.0)
    assert again.constraints == {"latency_ms": "70%"}
    assert how_to_continue(tmp_path) == f"autocompress resume {tmp_path}"


@pytest.mark.parametrize(
    "kept",
    [None, "model: [", "seed: 0\n", "model: {}\ntask: {}\nseed: 1\nobjectives: []\n"],
    ids=["none", "damaged", "from Python", "of another study"],
)
def test_without_fitting_factories_the_settings_are_kept(tmp_path: Path, kept: str | None) -> None:
    if kept is not None:
        (tmp_path / "config.yaml").write_text(kept)
    text = text_to_keep(tmp_path, SETTINGS)
    assert yaml.safe_load(text) == SETTINGS
    (tmp_path / "config.yaml").write_text(text)
    assert how_to_continue(tmp_path) == f"autocompress.resume('{tmp_path}', model, task)"


def test_the_study_of_another_user_runs_no_code_unless_it_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = load_config(_written(tmp_path / "a.yaml", MINIMAL))
    (tmp_path / "config.yaml").write_text(config.to_yaml())
    monkeypatch.setattr("os.getuid", lambda: (tmp_path / "config.yaml").stat().st_uid + 1)
    with pytest.raises(StudyError, match="add --trust"):
        load_kept_config(tmp_path)
    assert load_kept_config(tmp_path, trust=True).model == config.model


def test_numbers_of_numpy_and_odd_folders_are_kept_as_text(tmp_path: Path) -> None:
    settings = {
        "objectives": ("accuracy", "latency_ms"),
        "seed": 0,
        "constraints": {"latency_ms": np.float64(0.3)},
    }
    kept = yaml.safe_load(text_to_keep(tmp_path, settings))
    assert kept["constraints"] == {"latency_ms": 0.3}
    folder = tmp_path / "ann's study"
    folder.mkdir()
    call = how_to_continue(folder)
    assert ast.literal_eval(call.partition("(")[2].partition(", model")[0]) == str(folder)
    (folder / "config.yaml").write_text("model: a:b\ntask: a:c\n")
    assert shlex.split(how_to_continue(folder)) == ["autocompress", "resume", str(folder)]


def test_what_a_call_changes_is_renewed_whatever_else_there_is(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = load_config(_written(tmp_path / "a.yaml", MINIMAL), study_dir=str(tmp_path)).to_yaml()
    monkeypatch.setenv("AUTOCOMPRESS_TRAINING__LEARNING_SHARE", "0.1")  # which others may lack
    for text in (kept, f"{kept}\nsampler: [unreadable]\n"):
        (tmp_path / "config.yaml").write_text(text)
        renewed = yaml.safe_load(text_to_keep(tmp_path, SETTINGS))
        assert renewed["training"] == SETTINGS["training"]
        assert renewed["quantisation"] == SETTINGS["quantisation"]
