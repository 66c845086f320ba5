import json
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from click.testing import Result
from typer.testing import CliRunner

import autocompress
from autocompress import errors
from autocompress.cli import app
from autocompress.cli.app import VERBS
from autocompress.controller.preflight import report_on
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate
from autocompress.core.events import Event, Stop
from autocompress.front_member import FrontMember
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.structure import Layer, ModelGraph
from autocompress.report.preflight import CheckReport
from autocompress.space.preset import SearchSpace

USER = """
import torch
from autocompress.evaluation.task import Task

def make_model():
    return torch.nn.Linear(4, 2)

def make_task():
    batch = (torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))
    return Task(train=[batch], val=[batch])
"""

MEMBER = FrontMember(
    id="0042",
    candidate=Candidate(),
    predicted={"accuracy": 0.88, "latency_ms": 0.5},
    measured={"val_accuracy": 0.87, "accuracy": 0.86, "latency_ms": 0.6, "size_bytes": 9000},
    path=Path("front/0042/model.onnx"),
)


class FakeApi(SimpleNamespace):
    """Stands in for the search; everything around it is real."""

    def __init__(self) -> None:
        super().__init__(calls=[], front=[MEMBER], nearest_infeasible=[], error=None)
        self.interrupt: Callable[[Event], None] | None = None
        self.baseline = {"fp32": {"val_accuracy": 0.9, "accuracy": 0.91, "latency_ms": 1.0}}

    def result(self, study_dir: Path) -> SimpleNamespace:
        return SimpleNamespace(
            study_dir=study_dir,
            front=self.front,
            nearest_infeasible=self.nearest_infeasible,
            members=[*self.front, *self.nearest_infeasible],
            baseline=self.baseline,
            constraints={"accuracy_drop": 0.02},
            report=lambda: study_dir / "report.html",
        )

    def search(self, model: Any, task: Any, **options: Any) -> SimpleNamespace:
        self.calls.append(options)
        if self.error is not None:
            raise self.error
        try:
            for callback in options["callbacks"]:
                callback(Event(stage="baseline", message="measured the original", elapsed_s=1.0))
            if self.interrupt is not None:
                for stage in ("trials", "finalists"):
                    event = Event(stage=stage, message="", elapsed_s=1.0)
                    options["callbacks"][-1](event)
                    if stage == "trials":
                        self.interrupt(event)
        except Stop:
            pass
        return self.result(Path(options["study_dir"]))

    def open(self, study_dir: Path) -> SimpleNamespace:
        return self.result(study_dir)

    def check(self, model: Any, example_inputs: ModelInputs, **options: Any) -> CheckReport:
        self.calls.append(options)
        (inputs,) = example_inputs.tensors
        layer = Layer(
            name="fc",
            type=type(model).__name__,
            input_shape=tuple(inputs.shape[1:]),
            output_shape=(2,),
            weight_shape=(2, 4),
            quantisable=False,
            reason="too small",
        )
        other = replace(layer, name="head", quantisable=True, reason="")
        graph = ModelGraph(
            layers=(layer, other),
            operations=(),
            groups=(),
            blocks=(),
            parameters=10,
            fingerprint="0",
        )
        return CheckReport.of(report_on(graph, SearchSpace.load("mlp"), 120.0))


@pytest.fixture
def api(monkeypatch: pytest.MonkeyPatch) -> FakeApi:
    fake = FakeApi()
    monkeypatch.setitem(sys.modules, "autocompress.api", fake)
    monkeypatch.setattr(autocompress, "api", fake, raising=False)
    return fake


@pytest.fixture(scope="module")
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


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_a_simulated_target_is_profiled_at_once(tmp_path: Path) -> None:
    (tmp_path / "profile_user.py").write_text(
        USER.replace(
            "Linear(4, 2)",
            "Sequential(torch.nn.Linear(4, 32), torch.nn.ReLU(), torch.nn.Linear(32, 2))",
        )
    )
    record = {
        "model": {"factory": "profile_user:make_model"},
        "task": {"factory": "profile_user:make_task"},
        "target": {"name": "npu", "simulation": {"kind": "accelerator", "rows": 8}},
        "space": "mlp",
        "budget": {"trials": 2},
    }
    (tmp_path / "study.yaml").write_text(yaml.safe_dump(record))
    out = tmp_path / "npu.json"
    words = ["profile", str(tmp_path / "study.yaml"), "--out", str(out), "--quiet"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert json.loads(out.read_text())["simulated"]["simulation"]["rows"] == 8


def test_search_passes_the_configuration_on_and_shows_the_front(
    api: FakeApi, config: Path, tmp_path: Path
) -> None:
    result = invoke("search", config)
    assert result.exit_code == 0, result.output
    (options,) = api.calls
    assert options["constraints"] == {"accuracy_drop": 0.02}
    assert options["target"].name == "onnxruntime-cpu"
    assert (options["budget"].trials, options["budget"].minutes) == (7, 2)
    assert (options["seed"], options["space"], options["executor"].name) == (5, "cnn", "inline")
    lines = result.stdout.splitlines()
    assert lines[0] == "[0:01] baseline: measured the original"
    assert any("0042" in line and "88.00" in line and "87.00" in line for line in lines)
    assert lines[-2] == f"files: {tmp_path / 'study' / 'front'}/<id>/model.onnx"
    assert lines[-1] == f"report: {tmp_path / 'study' / 'report.html'}"
    assert result.stderr == ""


def test_options_replace_values_of_the_file(api: FakeApi, config: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    options = ["--trials", 3, "--minutes", 0.5, "--seed", 9, "--executor", "inline"]
    options += ["--sampler", "tpe", "--warm-start", "runs/a", "--warm-start", tmp_path / "b"]
    result = invoke("search", config, "--study-dir", other, *options)
    assert result.exit_code == 0, result.output
    (passed,) = api.calls
    assert passed["study_dir"] == str(other)
    assert (passed["budget"].trials, passed["budget"].minutes) == (3, 0.5)
    assert (passed["seed"], passed["executor"].name) == (9, "inline")
    assert passed["sampler"] == "tpe"
    assert passed["warm_start"] == (str(Path.cwd() / "runs" / "a"), str(tmp_path / "b"))


def test_quiet_shows_the_result_only(api: FakeApi, config: Path) -> None:
    result = invoke("search", config, "--quiet")
    assert "measured the original" not in result.stdout
    assert "0042" in result.stdout


def test_a_study_is_resumed_with_the_configuration_it_keeps(
    api: FakeApi, config: Path, tmp_path: Path
) -> None:
    assert invoke("search", config, "--trials", 3).exit_code == 0
    result = invoke("resume", tmp_path / "study", "--minutes", 9)
    assert result.exit_code == 0, result.output
    first, second = api.calls
    assert second["budget"].trials == 3
    assert second["budget"].minutes == 9
    assert {key: second[key] for key in ("study_dir", "seed", "constraints")} == {
        key: first[key] for key in ("study_dir", "seed", "constraints")
    }


def test_a_refused_search_changes_nothing_of_an_existing_study(
    api: FakeApi, config: Path, tmp_path: Path
) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "config.yaml").write_text("of another study")
    api.error = errors.StudyError("belongs to another model")
    assert invoke("search", config).exit_code == 2
    assert (tmp_path / "study" / "config.yaml").read_text() == "of another study"


def test_no_feasible_member_is_exit_code_3_with_the_nearest_ones(
    api: FakeApi, config: Path
) -> None:
    api.front, api.nearest_infeasible = [], [MEMBER]
    result = invoke("search", config)
    assert result.exit_code == 3
    assert "0042" in result.stdout
    assert "No front; the infeasible members" in result.stdout
    assert "no candidate meets the constraints: accuracy_drop <= 0.02" in result.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (errors.InvalidInputError("bad value"), 2),
        (errors.WrongTypeError("bad value"), 2),
        (errors.MissingFileError("bad value"), 2),
        (errors.TraceError("bad value"), 2),
        (errors.MissingExtraError("bad value"), 2),
        (errors.StudyError("bad value"), 2),
        (errors.SearchFailedError("bad value"), 1),
        (errors.StorageError("bad value"), 1),
        (errors.ExportError("bad\nvalue"), 1),
        (errors.TrainingError("bad value"), 1),
        (OSError("bad value"), 1),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, Exception) else None,
)
def test_an_error_is_one_line_and_an_exit_code(
    api: FakeApi, config: Path, error: Exception, code: int
) -> None:
    api.error = error
    result = invoke("search", config, "--quiet")
    assert result.exit_code == code
    assert result.stderr == "error: bad value\n"
    assert result.stdout == ""


def test_an_interruption_says_how_to_go_on(api: FakeApi, config: Path) -> None:
    api.error = KeyboardInterrupt()
    result = invoke("search", config, "--quiet")
    assert result.exit_code == 130
    assert result.stderr == "interrupted; run the same command again to continue\n"


def test_a_bug_of_ours_is_not_hidden(api: FakeApi, config: Path) -> None:
    api.error = ZeroDivisionError("a bug")
    result = invoke("search", config, "--quiet")
    assert isinstance(result.exception, ZeroDivisionError)


def misspell_key(text: str) -> str:
    return text.replace("budget", "bugdet")


def misspell_factory(text: str) -> str:
    return text.replace("make_model", "make_modell")


def misspell_target(text: str) -> str:
    return text + "target: onnxruntime-gpu\n"


@pytest.mark.parametrize(
    ("damage", "hint"),
    [
        (misspell_key, "did you mean 'budget'"),
        (misspell_factory, "did you mean 'make_model'"),
        (misspell_target, "did you mean 'onnxruntime-cpu'"),
    ],
)
def test_bad_input_is_one_sentence_and_nothing_is_written(
    api: FakeApi, config: Path, tmp_path: Path, damage: Callable[[str], str], hint: str
) -> None:
    config.write_text(damage(config.read_text()))
    result = invoke("search", config)
    assert result.exit_code == 2
    assert hint in result.stderr
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "study").exists()
    assert api.calls == []


def test_a_missing_configuration_is_exit_code_2(api: FakeApi, tmp_path: Path) -> None:
    for verb in ("search", "check"):
        result = invoke(verb, tmp_path / "absent.yaml")
        assert result.exit_code == 2
        assert "absent.yaml" in result.stderr
    assert invoke("resume", tmp_path).exit_code == 2


def test_check_shows_what_is_blocked_and_why(api: FakeApi, config: Path) -> None:
    result = invoke("check", config)
    assert result.exit_code == 0, result.output
    assert "no: too small" in result.stdout
    assert "1 of 2 layers quantised" in result.stdout.splitlines()[-1]
    assert "search time: about 2 minutes, an estimate" in result.stdout
    (options,) = api.calls
    assert isinstance(options["budget"], Budget)
    assert options["space"] == "cnn"


def test_check_writes_json(api: FakeApi, config: Path) -> None:
    record = json.loads(invoke("check", config, "--json").stdout)
    assert record["layers"][0]["type"] == "Linear"
    assert record["layers"][0]["reason"] == "too small"
    assert record["search_seconds_estimate"] == 120.0
    assert record["savings"] == []


def test_report_writes_the_page_again(api: FakeApi, tmp_path: Path) -> None:
    result = invoke("report", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"


def test_results_are_written_as_json_and_progress_elsewhere(api: FakeApi, config: Path) -> None:
    result = invoke("search", config, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    (member,) = record["front"]
    assert (member["id"], member["measured"]["latency_ms"]) == ("0042", 0.6)
    assert (record["dominated"], record["infeasible"]) == ([], [])
    assert record["baseline"]["fp32"]["latency_ms"] == 1.0
    assert "measured the original" in result.stderr
    assert json.loads(invoke("report", record["study_dir"], "--json").stdout) == record


def test_ctrl_c_stops_after_the_trial_and_says_how_to_go_on(
    api: FakeApi, config: Path, tmp_path: Path
) -> None:
    def interrupted(event: Event) -> None:
        signal.raise_signal(signal.SIGINT)

    api.interrupt = interrupted
    result = invoke("search", config, "--quiet")
    assert result.exit_code == 130
    assert "0042" in result.stdout
    assert result.stderr.splitlines() == [
        "stopping after the running trial; press Ctrl-C again to stop at once",
        f"stopped; to continue: autocompress resume {tmp_path / 'study'}",
    ]


def test_a_dry_run_tells_the_plan_and_searches_nothing(
    api: FakeApi, config: Path, tmp_path: Path
) -> None:
    result = invoke("search", config, "--dry-run")
    assert result.exit_code == 0, result.output
    assert "7 candidates, within 1.2 of the minutes" in " ".join(result.stdout.split())
    assert "search time: about 2 minutes" in result.stdout
    assert not (tmp_path / "study").exists()
    record = json.loads(invoke("search", config, "--dry-run", "--json").stdout)
    assert record["seconds_estimate"] == 120.0
    assert len(api.calls) == 2, "checks, no search"


def test_the_help_tells_a_newcomer_how_to_begin() -> None:
    overview = " ".join(invoke("--help").stdout.split())
    assert "Begin with 'init MODULE:FUNCTION'" in overview
    assert "3 no candidate meets the constraints" in overview
    assert "examples/digits.yaml" in " ".join(invoke("search", "--help").stdout.split())
    places = [overview.index(f"│ {verb} ") for verb in VERBS]
    assert places == sorted(places), "verbs are listed in the order in which one needs them"


def test_wrong_usage_is_exit_code_2() -> None:
    assert invoke("search").exit_code == 2
    assert invoke("serach", "x").exit_code == 2
    assert invoke("search", "x", "--trials", "many").exit_code == 2


def test_the_command_is_installed_and_knows_its_version() -> None:
    installed = [Path(sys.executable).with_name("autocompress")]
    for command in (installed, [sys.executable, "-m", "autocompress"]):
        finished = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=True
        )
        assert finished.stdout == "autocompress 0.1.0\n"
