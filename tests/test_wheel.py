"""The built wheel runs where the repository is not."""

import os
import shutil
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PRESETS = sorted(path.stem for path in (ROOT / "search_spaces").glob("*.yaml"))


def run(*command: object, folder: Path) -> str:
    """Run a command outside the repository, without a path that leads back to it."""
    finished = subprocess.run(
        [str(part) for part in command],
        cwd=folder,
        env={key: value for key, value in os.environ.items() if key != "PYTHONPATH"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
    return finished.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", out, ROOT]
    run(*command, folder=out)
    (built,) = out.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel, which borrows the dependencies of ours.

    Its .pth file names our site-packages as a mere folder, so the .pth file
    in there that leads to the repository is not read.
    """
    environment = tmp_path_factory.mktemp("environment")
    venv.create(environment, with_pip=False, symlinks=True)
    python = environment / "bin" / "python"
    code = "import sysconfig; print(sysconfig.get_path('purelib'))"
    own = run(python, "-c", code, folder=environment)
    Path(own.strip(), "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    command = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    run(*command, "--no-index", "--no-deps", "--force-reinstall", wheel, folder=environment)
    return environment


@pytest.fixture(scope="module")
def alone(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty environment with the wheel and what it asks for, from the package index."""
    environment = tmp_path_factory.mktemp("alone")
    venv.create(environment, with_pip=False, symlinks=True)
    command = [sys.executable, "-m", "pip", "--python", environment / "bin" / "python", "install"]
    run(*command, "--quiet", "--constraint", ROOT / "constraints.txt", wheel, folder=environment)
    return environment


def test_the_wheel_has_everything_that_is_data(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert "autocompress/py.typed" in names
    assert "autocompress/report/templates/report.html.j2" in names
    assert {f"autocompress/search_spaces/{preset}.yaml" for preset in PRESETS} <= names
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"autocompress"}


def test_the_presets_load_from_the_wheel(installed: Path) -> None:
    code = (
        "import sys, autocompress\n"
        "from autocompress.space.preset import SearchSpace\n"
        "for name in sys.argv[1:]: SearchSpace.load(name)\n"
        "print(autocompress.__file__)"
    )
    loaded = run(installed / "bin" / "python", "-c", code, *PRESETS, folder=installed)
    assert PRESETS
    assert Path(loaded.strip()).is_relative_to(installed)


@pytest.mark.slow
def test_the_wheel_runs_the_search_of_the_demo(alone: Path, tmp_path: Path) -> None:
    for name in ("digits.py", "digits.yaml"):
        shutil.copy(ROOT / "examples" / name, tmp_path)
    command = [alone / "bin" / "autocompress", "search", "digits.yaml"]
    shown = run(*command, "--trials", 4, "--minutes", 4, folder=tmp_path)
    study = tmp_path / "runs" / "digits"
    assert shown.splitlines()[-1] == f"report: {study / 'report.html'}"
    assert (study / "front.json").is_file()
    assert list((study / "front").glob("*/model.onnx"))
    assert len((study / "trials.csv").read_text().splitlines()) > 1, "no trial has run"
