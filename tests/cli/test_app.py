from collections.abc import Callable
from pathlib import Path

import pytest

from autocompress import errors
from autocompress.cli.app import VERBS
from stand_in import FakeApi, invoke


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
    assert result.stderr == "interrupted; run the same command again\n"


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
