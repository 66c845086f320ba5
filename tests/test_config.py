import datetime
import json
import math
from pathlib import Path
from typing import Any, get_args

import pytest
import torch
import yaml

from autocompress.config import SearchConfig, load_config
from autocompress.controller.sampler import SAMPLER_NAMES
from autocompress.core.budget import Budget
from autocompress.core.executor import Executor
from autocompress.core.target import Target
from autocompress.core.training import TrainingConfig
from autocompress.cost.profile import DeviceProfile
from autocompress.cost.resolve import resolve_target
from autocompress.cost.simulated import SimulatedProfile
from autocompress.errors import (
    AutocompressError,
    InvalidInputError,
    MissingFileError,
    WrongTypeError,
)
from autocompress.evaluation.task import Task

MINIMAL: dict[str, Any] = {
    "model": {"factory": "config_user:make_model"},
    "task": {"factory": "config_user:make_task"},
    "budget": {"trials": 5},
}


def write(path: Path, record: object) -> Path:
    path.write_text(yaml.safe_dump(record))
    return path


def changed(**values: Any) -> dict[str, Any]:
    return MINIMAL | values


def test_simulated_hardware_is_declared_in_the_file(tmp_path: Path) -> None:
    cycles = [[[100.0] * 8] * 8]
    (tmp_path / "lut.json").write_text(json.dumps({"cycles": cycles}))
    for simulation, bits in (
        ({"kind": "accelerator", "rows": 8}, (3, 5)),
        ({"kind": "table", "file": "lut.json"}, (3, 5)),
        ({"kind": "roofline", "peak_gmacs": {"32x32": 1, "8x8": 4}, "bandwidth_gbs": 2}, (8, 8)),
    ):
        target = {"name": "npu", "batch_size": 4, "simulation": simulation}
        config = load_config(write(tmp_path / "study.yaml", changed(target=target)))
        made = config.make_target()
        assert isinstance(made, Target)
        assert (made.name, made.batch_size, made.executed(3, 5)) == ("npu", 4, bits)
        again = load_config(write(tmp_path / "kept.yaml", yaml.safe_load(config.to_yaml())))
        assert again.make_target() == made
    wrong = changed(target={"name": "npu", "simulation": {"kind": "acelerator"}})
    with pytest.raises(InvalidInputError, match="did you mean 'accelerator'"):
        load_config(write(tmp_path / "study.yaml", wrong))
    energy = changed(objectives=["accuracy", "energy_mj"])
    with pytest.raises(InvalidInputError, match="energy_mj"):
        load_config(write(tmp_path / "study.yaml", energy))
    load_config(write(tmp_path / "study.yaml", energy | {"target": "bit-serial"}))


def test_the_design_example_is_read(tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(
        """
model: {factory: "examples.digits:make_model", args: {width: 16}, weights: null}
task: {factory: "examples.digits:make_task"}
target: onnxruntime-cpu
objectives: [accuracy, latency_ms]
constraints: {accuracy_drop: 0.02, latency_ms: "60%", size_bytes: 300_000}
space: cnn
budget: {trials: 60, minutes: 5}
executor: inline
seed: 0
"""
    )
    config = load_config(path)
    assert config.model.args == {"width": 16}
    assert config.make_target() == Target.named("onnxruntime-cpu")
    assert config.make_budget() == Budget(trials=60, minutes=5)
    assert config.objectives == ("accuracy", "latency_ms")
    assert config.constraints["size_bytes"] == 300_000
    assert config.space_name_or_path() == "cnn"
    assert config.make_executor() == Executor(name="inline")


def test_defaults_and_paths(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "below").mkdir()
    write(tmp_path / "below" / "digits.yaml", MINIMAL)
    monkeypatch.chdir(tmp_path)
    config = load_config("below/digits.yaml")
    assert config.study_dir == str(tmp_path / "runs" / "digits")
    assert config.folder == str(tmp_path / "below")
    assert (config.space, config.executor.name, config.seed) == ("cnn", "inline", 0)


def test_what_proposes_candidates_can_be_chosen(tmp_path: Path) -> None:
    assert get_args(SearchConfig.model_fields["sampler"].annotation) == SAMPLER_NAMES
    assert load_config(write(tmp_path / "a.yaml", MINIMAL)).sampler == "joint"
    for name in SAMPLER_NAMES:
        assert load_config(write(tmp_path / "a.yaml", changed(sampler=name))).sampler == name
    with pytest.raises(InvalidInputError, match="key 'sampler': expected 'joint', 'tpe'"):
        load_config(write(tmp_path / "a.yaml", changed(sampler="annealing")))


def test_earlier_studies_are_named_from_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    config = load_config(write(tmp_path / "a.yaml", changed(warm_start=["runs/a", "/b"])))
    assert config.warm_start == (str(tmp_path / "runs" / "a"), "/b")
    with pytest.raises(InvalidInputError, match="key 'warm_start'"):
        load_config(write(tmp_path / "a.yaml", changed(warm_start="runs/a")))
    with pytest.raises(InvalidInputError, match="key 'warm_start"):
        load_config(write(tmp_path / "a.yaml", changed(warm_start=[3])))


def test_a_budget_may_say_what_gain_is_worth_it(tmp_path: Path) -> None:
    budget = {"trials": 5, "least_gain": 0.01}
    config = load_config(write(tmp_path / "a.yaml", changed(budget=budget)))
    assert config.make_budget() == Budget(trials=5, least_gain=0.01)
    with pytest.raises(InvalidInputError, match="least_gain"):
        load_config(write(tmp_path / "a.yaml", changed(budget=budget | {"least_gain": -1.0})))


def test_a_space_file_is_found_beside_the_configuration(tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("{schema_version: 1, name: mine}\n")
    config = load_config(write(tmp_path / "a.yaml", changed(space="mine.yaml")))
    assert config.space_name_or_path() == str(tmp_path / "mine.yaml")


def test_a_target_may_say_its_threads(tmp_path: Path) -> None:
    target = {"name": "onnxruntime-cpu", "threads": 2, "batch_size": 8}
    config = load_config(write(tmp_path / "a.yaml", changed(target=target)))
    assert config.make_target() == Target.named("onnxruntime-cpu", threads=2, batch_size=8)


def test_a_target_without_a_name_is_the_usual_one(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "a.yaml", changed(target={"threads": 2})))
    assert config.make_target() == Target.named("onnxruntime-cpu", threads=2)


def test_a_target_may_be_kept_from_integers(tmp_path: Path) -> None:
    target = {"name": "onnxruntime-cpu", "precisions": ["32x32"]}
    config = load_config(write(tmp_path / "a.yaml", changed(target=target)))
    made = config.make_target()
    assert isinstance(made, Target)
    assert made.precisions == ((32, 32),)
    assert made.executed(8, 8) == (32, 32)
    for wrong in (["8x8"], ["32x32", "4x4"]):
        with pytest.raises(InvalidInputError, match=r"target\.precisions"):
            load_config(
                write(tmp_path / "a.yaml", changed(target=target | {"precisions": wrong}))
            ).make_target()


def test_command_line_values_replace_those_of_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "a.yaml", changed(budget={"trials": 5, "minutes": 1}, seed=3))
    config = load_config(
        path,
        study_dir=str(tmp_path / "s"),
        trials=9,
        executor="inline",
        minutes=2.5,
        sampler="nsga2",
        warm_start=["/elsewhere"],
        seed=4,
    )
    assert (config.sampler, config.warm_start) == ("nsga2", ("/elsewhere",))
    assert config.study_dir == str(tmp_path / "s")
    assert config.make_budget() == Budget(trials=9, minutes=2.5)
    assert (config.executor.name, config.seed) == ("inline", 4)
    assert load_config(path, seed=0).seed == 0


def test_the_resolved_configuration_reads_the_same_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    args = {"a": [1, None], "widths": {1: 8}, "most": math.inf, "at": datetime.date(2020, 1, 1)}
    record = changed(
        model={"factory": "config_user:make_model", "args": args, "weights": "w.pt"},
        constraints={"latency_ms": "60%"},
        target={"name": "onnxruntime-cpu", "precisions": ["32x32"]},
        storage="journal:trials.log",
    )
    monkeypatch.chdir(tmp_path)
    config = load_config(write(tmp_path / "a.yaml", record))
    assert config.storage == f"journal:{tmp_path / 'trials.log'}"
    assert config.model.args == args
    monkeypatch.chdir("/")
    (tmp_path / "study").mkdir()
    kept = tmp_path / "study" / "config.yaml"
    kept.write_text(config.to_yaml())
    assert load_config(kept) == config


def test_a_profile_stands_for_the_target_it_was_made_for(tmp_path: Path) -> None:
    made_for = Target.named("onnxruntime-cpu", threads=2)
    DeviceProfile(
        target=made_for, device="some processor", versions={}, created="", kernels={}
    ).save(tmp_path / "laptop.json")
    target = {"name": "onnxruntime-cpu", "threads": 2, "profile": "laptop.json"}
    config = load_config(write(tmp_path / "a.yaml", changed(target=target)))
    assert config.make_target() == tmp_path / "laptop.json"
    with pytest.raises(InvalidInputError, match=r"'target\.profile': expected a profile of"):
        load_config(write(tmp_path / "a.yaml", changed(target=target | {"threads": 1})))
    with pytest.raises(MissingFileError, match=r"absent\.json"):
        load_config(write(tmp_path / "a.yaml", changed(target=target | {"profile": "absent.json"})))


def test_a_profile_of_simulated_hardware_is_one_too(tmp_path: Path) -> None:
    SimulatedProfile(target=Target.named("bit-serial")).save(tmp_path / "npu.json")
    target = {"name": "bit-serial", "profile": "npu.json"}
    config = load_config(write(tmp_path / "a.yaml", changed(target=target)))
    found, profile = resolve_target(config.make_target())
    assert found == Target.named("bit-serial")
    assert profile == SimulatedProfile(target=found)


def test_a_configuration_cannot_be_changed(tmp_path: Path) -> None:
    config = load_config(write(tmp_path / "a.yaml", MINIMAL))
    with pytest.raises(ValueError, match="frozen"):
        config.seed = 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        (changed(modle={}), "key: .* got 'modle'; did you mean 'model'"),
        ({"modle": {}, "task": MINIMAL["task"]}, "did you mean 'model'"),
        (changed(budget={"trails": 5}), "section 'budget', key: .*did you mean 'trials'"),
        (
            changed(model={"factory": "a:b", "weight": "w"}),
            "section 'model', key: .*did you mean 'weights'",
        ),
        (changed(task={"factory": "a:b", "arg": {}}), "section 'task', key: .*'args'"),
        (changed(target={"name": "onnxruntime-cpu", "thread": 1}), "did you mean 'threads'"),
        ({"task": MINIMAL["task"], "budget": {"trials": 1}}, "key 'model': expected a value"),
        (changed(model={}), r"key 'model\.factory': expected a value, got nothing"),
        (changed(budget={"trials": "many"}), r"key 'budget\.trials': .*integer, got 'many'"),
        (changed(budget={"trials": True}), r"key 'budget\.trials': .*got True"),
        (changed(seed="x"), "key 'seed': expected an integer, got 'x'"),
        (changed(seed=1.5), "key 'seed'"),
        (changed(executor="slurm"), "key 'executor.name': expected 'inline' or 'ray', got 'slurm'"),
        (changed(objectives="accuracy"), "key 'objectives': expected a list, got 'accuracy'"),
        (changed(objectives=["accuracy", "speed"]), "objective: .*got 'speed'"),
        (changed(constraints={"accuracy_dorp": 0.1}), "did you mean 'accuracy_drop'"),
        (changed(constraints=[]), "key 'constraints'"),
        (changed(target="onnxruntime"), "target: .*did you mean 'onnxruntime-cpu'"),
        (changed(target={"name": "onnxruntime-cpu", "threads": 0}), "target 'threads'"),
        (changed(budget={}), "'budget': expected trials, minutes or both"),
        (changed(budget={"trials": 0}), "budget 'trials': expected >= 1"),
        (changed(study_dir=3), "key 'study_dir'"),
        (changed(model="a:b"), "key 'model': expected a mapping of keys to values, got 'a:b'"),
    ],
)
def test_a_wrong_value_is_one_sentence_with_file_and_key(
    tmp_path: Path, record: dict[str, Any], message: str
) -> None:
    path = write(tmp_path / "bad.yaml", record)
    with pytest.raises((InvalidInputError, WrongTypeError), match=message) as raised:
        load_config(path)
    assert "bad.yaml" in str(raised.value)
    assert "\n" not in str(raised.value)


def test_a_wrong_option_is_told_apart_from_the_file(tmp_path: Path) -> None:
    path = write(tmp_path / "good.yaml", MINIMAL)
    message = r"good\.yaml' with --trials 0, budget 'trials': expected >= 1, got 0"
    with pytest.raises(InvalidInputError, match=message):
        load_config(path, trials=0)


@pytest.mark.parametrize(
    ("content", "error", "message"),
    [
        (b"model: [", InvalidInputError, r"expected YAML, got a mistake in line 1 \("),
        (b"\xff\xfe", InvalidInputError, "expected YAML"),
        (b"seed: 1\nseed: 2\n", InvalidInputError, r"in line 2 \(a second key 'seed'\)"),
        (b"a: !!python/object:os.system {}", InvalidInputError, "could not determine"),
        (b"", WrongTypeError, "expected a mapping of keys to values, got an empty file"),
        (b"- model", WrongTypeError, "expected a mapping"),
        (b"1: 2", WrongTypeError, "expected a mapping"),
    ],
)
def test_what_is_no_configuration_is_refused(
    tmp_path: Path, content: bytes, error: type[AutocompressError], message: str
) -> None:
    (tmp_path / "bad.yaml").write_bytes(content)
    with pytest.raises(error, match=message) as raised:
        load_config(tmp_path / "bad.yaml")
    assert "\n" not in str(raised.value)


def test_a_missing_configuration_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"absent\.yaml.*got nothing there"):
        load_config(tmp_path / "absent.yaml")
    with pytest.raises(MissingFileError, match="got a folder"):
        load_config(tmp_path)


USER = """
import torch
from autocompress.evaluation.task import Task

def make_model(width=2):
    return torch.nn.Linear(width, 1)

def make_task():
    return Task(train=[], val=[])
"""


@pytest.fixture(scope="module")
def user_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("user")
    (folder / "config_user.py").write_text(USER)
    torch.save(torch.nn.Linear(3, 1).state_dict(), folder / "weights.pt")
    return folder


def configured(folder: Path, **values: Any) -> SearchConfig:
    return load_config(write(folder / "user.yaml", changed(**values)))


def test_model_and_task_come_from_the_users_code(user_folder: Path) -> None:
    section = {
        "factory": "config_user:make_model",
        "args": {"width": 3},
        "weights": "weights.pt",
    }
    config = configured(user_folder, model=section)
    expected = torch.load(user_folder / "weights.pt", weights_only=True)
    assert torch.equal(config.make_model().weight, expected["weight"])
    assert isinstance(config.make_task(), Task)


def test_factories_that_return_something_else_are_refused(user_folder: Path) -> None:
    swapped = configured(
        user_folder,
        model={"factory": "config_user:make_task"},
        task={"factory": "config_user:make_model"},
    )
    with pytest.raises(WrongTypeError, match=r"expected a torch\.nn\.Module, got Task"):
        swapped.make_model()
    with pytest.raises(WrongTypeError, match=r"expected an autocompress\.Task, got Linear"):
        swapped.make_task()


def test_the_training_of_finalists_is_read(tmp_path: Path) -> None:
    training = {"schedule": "gradual", "stages": 3, "norm_l1": 0.0001}
    config = load_config(write(tmp_path / "a.yaml", changed(training=training)))
    assert config.make_training() == TrainingConfig(schedule="gradual", stages=3, norm_l1=0.0001)
    kept = tmp_path / "kept.yaml"
    kept.write_text(config.to_yaml())
    assert load_config(kept).make_training() == config.make_training()
    assert load_config(write(tmp_path / "b.yaml", MINIMAL)).make_training() == TrainingConfig()


@pytest.mark.parametrize(
    ("training", "message"),
    [
        ({"shedule": "gradual"}, "did you mean 'schedule'"),
        ({"schedule": "gradul"}, "did you mean 'gradual'"),
        ({"schedule": "gradual", "stages": 0}, "2 to 100"),
        ({"norm_l1": 0.1}, "choose the schedule"),
    ],
)
def test_wrong_training_is_refused(tmp_path: Path, training: dict[str, Any], message: str) -> None:
    path = write(tmp_path / "a.yaml", changed(training=training))
    with pytest.raises(InvalidInputError, match=message):
        load_config(path)


@pytest.mark.parametrize(
    ("configured", "options", "expected"),
    [
        ("inline", {}, Executor()),
        ({"name": "ray", "workers": 3}, {}, Executor(name="ray", workers=3)),
        ({"name": "ray", "workers": 3}, {"workers": 2}, Executor(name="ray", workers=2)),
        ("inline", {"address": "auto"}, Executor(name="ray", address="auto")),
        ({"name": "ray", "workers": 3}, {"executor": "inline"}, Executor()),
    ],
)
def test_options_go_before_the_configured_executor(
    tmp_path: Path, configured: object, options: dict[str, Any], expected: Executor
) -> None:
    path = tmp_path / "study.yaml"
    record = {"model": {"factory": "m:f"}, "task": {"factory": "m:f"}, "budget": {"trials": 1}}
    path.write_text(yaml.safe_dump(record | {"executor": configured}))
    assert load_config(path, **options).make_executor() == expected
