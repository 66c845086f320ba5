"""The examples run as their readers run them."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import torch

import autocompress as ac
from autocompress.core.comparison import Point
from autocompress.core.files import write_json
from benchmarks.evidence.bundle import Bundle
from benchmarks.evidence.contend import run_contender

ROOT = Path(__file__).parents[1]
UNION = "union_of_contenders"


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


def _point(method: str, accuracy: float, ms: float, seed: int = 0) -> dict[str, object]:
    return Point(
        method=method,
        seed=seed,
        name="0001",
        path=f"{method}/{seed}/front/0001/model.onnx",
        val_accuracy=accuracy,
        accuracy=accuracy,
        latency_ms=ms,
        latency_ci95_ms=(0.99 * ms, 1.01 * ms),
        reference_ms=1.0,
        file_bytes=1000,
    ).to_json()


def test_the_page_of_the_evidence_is_written_anew(tmp_path: Path) -> None:
    joint = _point("joint", 0.9, 0.5)
    others = [_point("nncf", 0.91, 0.4), _point("random", 0.88, 0.6), _point("joint", 0.9, 0.3, 3)]
    old = {"processor": "An Old Processor", "vectors": "AVX2", "clips": True, "seeds": [0]}
    new = {"processor": "A New One", "vectors": "AVX512", "clips": False, "seeds": [3]}
    spent = {"minutes": 10.0, "threads": 1}
    found = {
        "points": [_point("original", 0.9, 1.0), joint, *others],
        "titles": {"joint": "joint search", "nncf": "NNCF <int8>"},
        "contenders": ["nncf"],
        "hypervolume": {"joint": [0.5, 0.8], "nncf": [0.6], UNION: [0.6], "random": [0.4]},
        "seeds": {"joint": [0, 3], "nncf": [0], UNION: [0], "random": [0]},
        "joint_minus": {"nncf": None},
        "dominated": [{"path": joint["path"], "by": ["nncf/0/int8.onnx"]}],
        "failed": [{"method": "mct", "seed": 0, "error": "exit code 1: no"}],
        "settings": [old | spent, new | spent],
        "environment": {"torch": "2.13.0", "onnxruntime": "1.32.0"},
    }
    evidence, page = tmp_path / "figures" / "evidence.json", tmp_path / "page.md"
    write_json(evidence, {"models": {"net": {"onnxruntime-cpu": found}}})
    page.write_text(
        "# Before\n<!-- evidence: written by page.py -->\nstale\n<!-- end of evidence -->\nAfter\n"
    )
    longer = {**found, "settings": [{**old, "minutes": 20.0, "threads": 1}]}
    further = evidence.with_name("further.json")
    write_json(further, {"models": {"net": {"onnxruntime-cpu": longer}}})
    run("benchmarks/evidence/page.py", evidence, further, page)
    text = page.read_text()
    assert "### net, 20 min on onnxruntime-cpu, An Old Processor with AVX2" in text
    assert "| net, 20 min | onnxruntime-cpu | An Old Processor, AVX2 | 0.500 (1) |" in text
    assert "(figures/evidence-net-20-min-onnxruntime-cpu-an-old-processor-avx2-ways.svg)" in text
    run("benchmarks/evidence/page.py", evidence, page)
    text = page.read_text()
    assert "20 min" not in text
    assert text.startswith("# Before\n")
    assert text.endswith("After\n")
    assert "stale" not in text
    rows = [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ")]
    mine, theirs = ["| method", "| joint search"], ["| NNCF <int8>", f"| {UNION}"]
    other = "| random"
    old_rows, all_rows = [mine[0], *theirs, mine[1], other], [*mine, *theirs, other]
    glance = ["| network", "| net", "| net"]
    assert rows == glance + 2 * old_rows + 2 * mine + all_rows
    both = "0.500 (1) | 0.600 (1) | -16.7% |  |  | 1 of 1 |"
    assert f"| net | onnxruntime-cpu | An Old Processor, AVX2 | {both}" in text
    assert "| net | onnxruntime-cpu | A New One, AVX512 | 0.800 (1) |  |  |  |  | 0 of 1 |" in text
    assert f"* `{joint['path']}` by `nncf/0/int8.onnx`" in text
    assert "mct: not run. exit code 1: no" in text
    assert "### net on onnxruntime-cpu, An Old Processor with AVX2" in text
    assert "training on 1 thread; seed 3. Integer kernels are exact there" in text
    for name, what, circles in (
        ("an-old-processor-avx2", "contenders", 2),
        ("an-old-processor-avx2", "ways", 2),
        ("a-new-one-avx512", "contenders", 1),
    ):
        plot = tmp_path / "figures" / f"evidence-net-onnxruntime-cpu-{name}-{what}.svg"
        assert len(ElementTree.parse(plot).findall(".//{*}circle")) == circles
    assert not list(plot.parent.glob("*a-new-one-avx512-ways.svg")), "it would show nothing new"
    run("benchmarks/evidence/page.py", evidence, page)
    assert page.read_text() == text


def test_a_seed_of_the_evidence_belongs_to_one_processor(tmp_path: Path) -> None:
    kept = tmp_path / "evidence.json"
    old = {"processor": "An Old Processor", "vectors": "AVX2", "clips": True}
    found = {"settings": [old | {"minutes": 10.0, "threads": 2, "seeds": [0, 1]}]}
    write_json(kept, {"models": {"resnet20": {"onnxruntime-cpu": found}}})
    command = ("benchmarks/evidence/run.py", "--data", tmp_path, "--json", kept)
    for options in (("--seeds", "1,3"), ("--seeds", "3", "--minutes", "20")):
        refused = run_freely(*command, *options)
        assert refused.returncode == 1
        assert "holds resnet20 on onnxruntime-cpu, seeds [0, 1], from" in refused.stderr
        assert "Name other seeds" in refused.stderr
    other = run_freely(*command, "--seeds", "3")
    assert "cifar10_jpeg.npz" in other.stderr  # the check let it pass


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


def test_a_failed_contender_is_told_by_its_first_error(tmp_path: Path) -> None:
    python = tmp_path / "environments" / "nncf" / "bin" / "python"
    python.parent.mkdir(parents=True)
    log = (
        'loading\nTraceback (most recent call last):\n  File "a.py", line 1, in f\n'
        "pack.GraphError: no such node\n\nDuring handling of the above exception, another "
        "exception occurred:\n\nTraceback (most recent call last):\nRuntimeError: died\nend\n"
    )
    for printed, told in ((log, "pack.GraphError: no such node"), ("loading\nKilled\n", "Killed")):
        python.write_text(f"#!/bin/sh\ncat <<'END'\n{printed}END\nexit 3\n")
        python.chmod(0o755)
        record = run_contender(
            "nncf", "net", tmp_path, tmp_path / "environments", seed=0, minutes=0.1, threads=1
        )
        assert record["error"] == f"exit code 3: {told}"
        assert record["files"] == []
        assert json.loads((tmp_path / "contenders/nncf/0/cell.json").read_text()) == record


def test_a_file_of_a_contender_that_cannot_be_made_int8_is_left_out(tmp_path: Path) -> None:
    python = tmp_path / "environments" / "nncf" / "bin" / "python"
    python.parent.mkdir(parents=True)
    (tmp_path / "bundle").mkdir()
    np.save(tmp_path / "bundle" / "calibration.npy", np.zeros((8, 3), np.float32))
    listed = [{"path": "whole.onnx"}, {"path": "broken.onnx", "quantise": True}]
    for files, error in ((listed, ""), (listed[1:], "broken.onnx: ")):
        python.write_text(
            '#!/bin/sh\nprintf "threads $OMP_NUM_THREADS"\n'
            f'echo no > "$3/broken.onnx"\necho \'{json.dumps(files)}\' > "$3/files.json"\n'
        )
        python.chmod(0o755)
        out = tmp_path / "contenders" / "nncf" / "0"
        (out / "cell.json").unlink(missing_ok=True)
        record = run_contender(
            "nncf", "net", tmp_path, tmp_path / "environments", seed=0, minutes=0.1, threads=3
        )
        assert record["error"].startswith(error)
        assert bool(record["error"]) is bool(error)
        assert [file["path"] for file in record["files"]] == [
            str(out / file["path"]) for file in files if "quantise" not in file
        ]
        assert (out / "log.txt").read_text() == "threads 3"


def test_every_image_of_a_batch_is_shifted_on_its_own() -> None:
    bundle = Bundle.__new__(Bundle)
    bundle.is_image = True
    torch.manual_seed(0)
    images = torch.arange(32.0).expand(64, 3, 32, 32)
    found = bundle._augmented(images)
    assert found.shape == images.shape
    middles = {tuple(image[0, 16, 10:14].tolist()) for image in found}
    assert len(middles) > 10  # nine shifts, flipped or not
    assert all(torch.equal(image[0, 8:24], image[2, 8:24]) for image in found)
