from pathlib import Path

import pytest
import yaml

from autocompress.config import load_config
from autocompress.errors import InvalidInputError
from autocompress.overrides import override, read_overrides, variable_name

RECORD = {
    "model": {"factory": "user:make_model"},
    "task": {"factory": "user:make_task"},
    "target": "openvino-cpu",
    "budget": {"trials": 5},
}


def test_variables_replace_values_and_options_replace_variables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(yaml.safe_dump(RECORD))
    monkeypatch.setenv("AUTOCOMPRESS_BUDGET__TRIALS", "7")
    monkeypatch.setenv("AUTOCOMPRESS_SEED", "3")
    monkeypatch.setenv("AUTOCOMPRESS_TARGET__THREADS", "2")
    monkeypatch.setenv("AUTOCOMPRESS_CONSTRAINTS__LATENCY_MS", "60%")
    config = load_config(path, seed=4)
    assert (config.budget.trials, config.seed) == (7, 4)
    assert (config.target.name, config.target.threads) == ("openvino-cpu", 2)
    assert config.constraints == {"latency_ms": "60%"}


def test_arguments_of_factories_keep_their_spelling() -> None:
    found = read_overrides(
        {"AUTOCOMPRESS_MODEL__ARGS__numClasses": "3", "AUTOCOMPRESS_MODEL__ARGS__WIDTH": "8"}
    )
    assert found == {("model", "args", "numClasses"): 3, ("model", "args", "width"): 8}


def test_an_override_leaves_the_record_as_it_was() -> None:
    record = {"budget": {"trials": 5}}
    assert override(record, ("budget", "minutes"), 2) == {"budget": {"trials": 5, "minutes": 2}}
    assert override(record, ("model", "args", "width"), 8)["model"] == {"args": {"width": 8}}
    assert record == {"budget": {"trials": 5}}


def test_names_and_keys_are_each_others_inverse() -> None:
    keys = ("constraints", "accuracy_drop")
    assert read_overrides({variable_name(keys): "0.1"}) == {keys: 0.1}
    for name in ("AUTOCOMPRESS_MODEL__ARGS__numClasses", "AUTOCOMPRESS_MODEL__ARGS__WIDTH"):
        [keys] = read_overrides({name: "3"})
        assert variable_name(keys) == name


def test_a_value_that_is_no_yaml_is_refused_by_the_variables_name() -> None:
    with pytest.raises(InvalidInputError, match="environment variable AUTOCOMPRESS_SEED"):
        read_overrides({"AUTOCOMPRESS_SEED": "{"})
    for text in ("2026-13-01", "{a: 1, a: 2}"):
        with pytest.raises(InvalidInputError, match="AUTOCOMPRESS_SEED"):
            read_overrides({"AUTOCOMPRESS_SEED": text})
