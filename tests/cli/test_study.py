import json
from pathlib import Path

import pytest

from autocompress.controller.ledger import Ledger
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import MeasuredMember, front_document
from autocompress.core.files import write_json, write_text
from autocompress.errors import StorageError
from autocompress.result import SearchResult
from stand_in import FakeApi, invoke

FP32 = {"val_accuracy": 0.90, "accuracy": 0.91, "latency_ms": 1.0, "size_bytes": 1000.0}


def member(name: str, accuracy: float, latency: float) -> MeasuredMember:
    measured = FP32 | {"val_accuracy": accuracy, "latency_ms": latency, "latency_samples_ms": [1.0]}
    return MeasuredMember(
        id=name,
        candidate=Candidate(),
        predicted={"accuracy": accuracy},
        measured=measured,
        path=f"front/{name}/model.onnx",
    )


@pytest.fixture
def study(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A study of two members on the front and one beside it, in the current folder."""
    monkeypatch.chdir(tmp_path)
    folder = Path("study")
    ledger = Ledger.open(
        folder / "study.db", metric_names=["1 - accuracy", "latency_ms"], identity={}, seed=0
    )
    ledger.set("settings", {"objectives": ["accuracy", "latency_ms"]})
    ledger.close()
    front = [member("0001", 0.89, 0.8), member("0002", 0.80, 0.2)]
    document = front_document(FP32, front)
    write_json(folder / "front.json", {**document, "others": [member("0003", 0.7, 0.3).to_json()]})
    for name in ("0001", "0002", "0003"):
        write_text(folder / "front" / name / "model.onnx", name)
        write_text(folder / "front" / name / "candidate.json", "{}")
    return folder


def test_a_member_is_copied_with_all_its_files(study: Path) -> None:
    result = invoke("export", study, "0002", "--out", "deployed")
    assert result.exit_code == 0, result.output
    first, second = result.stdout.splitlines()
    assert first == "member 0002: deployed"
    assert second.startswith("val 80.00 %, 0.2 ms, ")
    assert not result.stderr
    beaten = invoke("export", study, "0003", "--out", "beaten")
    assert "not on the front" in beaten.stderr
    assert Path("deployed/model.onnx").read_text() == "0002"
    assert Path("deployed/candidate.json").is_file()


def test_a_member_is_copied_to_where_one_stands(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    here = tmp_path / "here"
    here.mkdir()
    monkeypatch.chdir(here)
    result = invoke("export", tmp_path / study, "0002", "--out", ".")
    assert result.exit_code == 0, result.output
    assert {path.name for path in Path().iterdir()} >= {"model.onnx", "candidate.json"}
    assert not list(tmp_path.glob(".export-*"))


def test_an_interrupted_export_leaves_nothing(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(source: Path, folder: Path) -> None:
        folder.mkdir()
        (folder / "model.onnx").write_text("ha")
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("autocompress.cli.study.shutil.copytree", stop)
        assert invoke("export", study, "0002", "--out", "new/deployed").exit_code == 130
    assert list(Path("new").iterdir()) == []
    assert invoke("export", study, "0002", "--out", "new/deployed").exit_code == 0


@pytest.mark.parametrize(
    ("limits", "name"),
    [
        ([], "0001"),
        (["--limit", "latency_ms=0.5"], "0002"),
        (["--limit", "latency_ms=50%"], "0002"),
        (["--limit", "accuracy=0.85"], "0001"),
    ],
)
def test_without_a_member_the_best_under_the_limits_is_copied(
    study: Path, limits: list[str], name: str
) -> None:
    assert invoke("export", study, *limits).exit_code == 0
    assert Path(name, "model.onnx").read_text() == name


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["0009"], "expected one of '0001', '0002', '0003'"),
        (["0001", "--limit", "latency_ms=1"], "a member or limits, got both"),
        (["--limit", "latency_ms"], "write --limit latency_ms=0.05"),
        (["--limit", "latency_ms=1", "--limit", "latency_ms=2"], "got two for 'latency_ms'"),
        (["--limit", "latency_ms=0.01"], "the nearest is '0002'"),
        (["--limit", "latency=1"], "did you mean 'latency_ms'"),
        (["0001", "--out", "study"], "a folder that is new or empty"),
    ],
)
def test_a_wrong_export_is_refused(study: Path, arguments: list[str], words: str) -> None:
    result = invoke("export", study, *arguments)
    assert result.exit_code == 2
    assert words in result.stderr


def test_a_program_of_another_users_study_is_written_where_it_is_trusted(
    study: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_text(study / "config.yaml", "model: {factory: 'absent:make_model'}\ntask: {}\n")
    monkeypatch.setattr("os.getuid", lambda: study.stat().st_uid + 1)
    arguments = ("export", study, "0001", "--program", "model.pt2")
    refused = invoke(*arguments)
    assert (refused.exit_code, "add --trust" in refused.stderr) == (2, True)
    trusted = invoke(*arguments, "--trust")
    assert "key 'task.factory'" in trusted.stderr  # the configuration is read


def test_a_report_is_written_as_json_without_raw_samples(study: Path) -> None:
    result = invoke("report", study, "--json")
    assert result.exit_code == 0, result.output
    record = json.loads(result.stdout)
    assert [found["id"] for found in record["front"]] == ["0001", "0002"]
    assert [found["id"] for found in record["dominated"]] == ["0003"]
    assert "latency_samples_ms" not in record["front"][0]["measured"]
    assert Path(record["report"]).is_file()
    assert (study / "report.md").is_file()


@pytest.mark.parametrize("options", [(), ("--json",)])
def test_a_study_that_cannot_be_written_is_shown_all_the_same(
    study: Path, monkeypatch: pytest.MonkeyPatch, options: tuple[str, ...]
) -> None:
    def refuse(*_: object) -> None:
        raise StorageError("report.html: expected a file that can be written")

    monkeypatch.setattr(SearchResult, "report", refuse)
    result = invoke("report", study, *options)
    assert result.exit_code == 0, result.output
    assert result.stderr == "no report: report.html: expected a file that can be written\n"
    assert "0002" in result.stdout
    if options:
        assert json.loads(result.stdout)["report"] is None


def test_report_writes_the_page_again(api: FakeApi, tmp_path: Path) -> None:
    result = invoke("report", tmp_path)
    assert result.exit_code == 0, result.output
    assert result.stdout.splitlines()[-1] == f"report: {tmp_path / 'report.html'}"
