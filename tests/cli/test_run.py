import json
import signal
from pathlib import Path

from autocompress import errors
from autocompress.core.events import Event
from stand_in import MEMBER, FakeApi, invoke


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
    assert lines[0] == "making the model: cli_user:make_model"
    assert lines[1] == "[0:01] baseline: measured the original"
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
