"""The examples run as their readers run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import pytest

import autocompress as ac
from autocompress.core.comparison import Point
from autocompress.core.files import write_json

ROOT = Path(__file__).parents[1]


def run(name: str, *options: object) -> str:
    """Run an example on one thread, and return what it printed."""
    finished = run_freely(name, *options)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


def run_freely(name: str, *options: object) -> subprocess.CompletedProcess[str]:
    """Run an example on one thread, whether it ends well or not."""
    paths = [str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])]
    return subprocess.run(
        [sys.executable, str(ROOT / "examples" / name), *map(str, options)],
        env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join(paths)},
        capture_output=True,
        text=True,
        check=False,
    )


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
@pytest.mark.parametrize("name", ["image_models.py", "transformers_encoder.py"])
def test_recipes_run_on_stand_ins(name: str, tmp_path: Path) -> None:
    if name.startswith("transformers"):
        pytest.importorskip("transformers")
    printed = run(name, "--smoke", "--study-dir", tmp_path / "study")
    for member in ac.open(tmp_path / "study").front:
        assert repr(member) in printed


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


def _point(method: str, accuracy: float, ms: float) -> dict[str, object]:
    return Point(
        method=method,
        seed=0,
        name="0001",
        path=f"{method}/0/front/0001/model.onnx",
        val_accuracy=accuracy,
        accuracy=accuracy,
        latency_ms=ms,
        latency_ci95_ms=(0.99 * ms, 1.01 * ms),
        reference_ms=1.0,
        file_bytes=1000,
    ).to_json()


def test_the_page_of_the_evidence_is_written_anew(tmp_path: Path) -> None:
    joint = _point("joint", 0.9, 0.5)
    found = {
        "points": [_point("original", 0.9, 1.0), joint, _point("nncf", 0.91, 0.4)],
        "titles": {"joint": "joint search", "nncf": "NNCF <int8>"},
        "contenders": ["nncf"],
        "hypervolume": {"joint": [0.5], "nncf": [0.6], "union_of_contenders": [0.6]},
        "seeds": {"joint": [0], "nncf": [0], "union_of_contenders": [0]},
        "joint_minus": {"nncf": None},
        "dominated": [{"path": joint["path"], "by": ["nncf/0/int8.onnx"]}],
        "failed": [{"method": "mct", "seed": 0, "error": "exit code 1: no"}],
        "minutes": 10.0,
        "setting": {"processor": "An Old Processor", "vectors": "AVX2", "clips": True},
        "environment": {
            "threads": 1,
            "torch": "2.13.0",
            "onnxruntime": "1.32.0",
            "started": "2026-01-02T03:04:05+00:00",
        },
    }
    evidence, page = tmp_path / "figures" / "evidence.json", tmp_path / "page.md"
    write_json(evidence, {"models": {"net": {"onnxruntime-cpu": found}}})
    page.write_text(
        "# Before\n<!-- evidence: written by page.py -->\nold\n<!-- end of evidence -->\nAfter\n"
    )
    run("benchmarks/evidence/page.py", evidence, page)
    text = page.read_text()
    assert text.startswith("# Before\n")
    assert text.endswith("After\n")
    assert "old" not in text
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    assert rows == 2 * ["| method", "| NNCF <int8>", "| union_of_contenders", "| joint search"]
    assert f"* `{joint['path']}` by `nncf/0/int8.onnx`" in text
    assert "mct: not run. exit code 1: no" in text
    assert "10 minutes a method and seed, training on 1 thread of An Old Processor (AVX2, " in text
    for what, circles in (("contenders", 2), ("ways", 1)):
        plot = tmp_path / "figures" / f"evidence-net-onnxruntime-cpu-{what}.svg"
        assert len(ElementTree.parse(plot).findall(".//{*}circle")) == circles
    run("benchmarks/evidence/page.py", evidence, page)
    assert page.read_text() == text


def test_evidence_of_two_processors_is_not_joined(tmp_path: Path) -> None:
    kept = tmp_path / "evidence.json"
    found = {"setting": {"processor": "An Old Processor"}}
    write_json(kept, {"models": {"resnet20": {"onnxruntime-cpu": found}}})
    refused = run_freely("benchmarks/evidence/run.py", "--data", tmp_path, "--json", kept)
    assert refused.returncode == 1
    assert "resnet20 on onnxruntime-cpu from {'processor': 'An Old Processor'}" in refused.stderr


CELLS = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from ahead import run_ahead
tell = "import sys, time; from pathlib import Path; time.sleep(0.2); "
tell += "Path(sys.argv[1]).write_text(sys.argv[3]); sys.exit(int(sys.argv[1].endswith('1')))"
run_ahead([[sys.executable, "-c", tell, f"{sys.argv[2]}/{n}"] for n in range(4)], 2)
"""


@pytest.mark.skipif(
    not hasattr(os, "sched_getaffinity") or len(os.sched_getaffinity(0)) < 2,
    reason="needs two processors",
)
def test_cells_side_by_side_share_the_processors_and_fail_alone(tmp_path: Path) -> None:
    subprocess.run(
        [sys.executable, "-c", CELLS, str(ROOT / "examples/benchmarks/evidence"), str(tmp_path)],
        check=True,
    )
    told = [(tmp_path / str(number)).read_text() for number in range(4)]
    shares = [set(text.split(",")) for text in sorted(set(told))]
    assert len(shares) == 2
    assert shares[0] | shares[1] == {str(core) for core in os.sched_getaffinity(0)}
    assert not shares[0] & shares[1]
