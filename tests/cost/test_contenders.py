import json
from pathlib import Path

import pytest

from benchmarks.contenders import main


def test_the_smoke_run_prints_a_table_and_writes_its_figures(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "figures.json"
    assert main(["--smoke", "--json", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "median ms" in printed
    assert max(map(len, printed.splitlines())) <= 100
    record = json.loads(path.read_text())
    assert [model["name"] for model in record["models"]] == ["small", "large"]
    assert record["models"][0]["ratio"] == 1.0
    assert set(record) >= {"machine", "versions", "seed", "rounds", "repeats"}


@pytest.mark.parametrize("arguments", [[], ["--model", "a"], ["--model", "a=missing.onnx"]])
def test_bad_input_is_one_sentence_and_exit_code_two(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    assert capsys.readouterr().out.startswith("error: ")
