"""The examples run as their readers run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import autocompress as ac

ROOT = Path(__file__).parents[1]


def run(name: str, *options: object) -> str:
    """Run an example on one thread, and return what it printed."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    finished = subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *map(str, options)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_the_digits_example_prints_its_front(tmp_path: Path) -> None:
    printed = run("digits.py", "--smoke", "--study-dir", tmp_path / "study")
    front = ac.open(tmp_path / "study").front
    assert front
    for member in front:
        assert f"{member.id}: val {member.measured['val_accuracy']:.4f}" in printed


@pytest.mark.slow
def test_the_cifar_example_compares_its_pick_with_plain_int8(tmp_path: Path) -> None:
    printed = run("cifar10.py", "--smoke", "--study-dir", tmp_path / "study")
    pick = json.loads((tmp_path / "study" / "pick.json").read_text())
    assert set(pick) == {"pick", "latency_ratio", "points", "low", "high"}
    assert pick["low"] <= pick["points"] <= pick["high"]
    assert re.search(rf"^best\(latency_ms=.*\) is {pick['pick']}: ", printed, re.MULTILINE)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    [*sorted(p.name for p in (ROOT / "examples/benchmarks").glob("*.py")), "evidence/run.py"],
)
def test_every_benchmark_has_a_smoke_run_that_writes_figures(name: str, tmp_path: Path) -> None:
    assert run(f"benchmarks/{name}", "--smoke", "--json", tmp_path / "figures.json")
    assert json.loads((tmp_path / "figures.json").read_text())


def test_the_readme_shows_the_configuration_of_the_demo() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    (shown,) = re.findall(r"```yaml\n(.*?)```", readme, re.DOTALL)
    assert shown == (ROOT / "examples" / "digits.yaml").read_text(encoding="utf-8")
