"""Make the environments of the contenders, every package at the version that was tried.

    python environments.py FOLDER [NAME ...]

Each is a virtual environment FOLDER/NAME with what environments/NAME.txt lists, nothing more.
"""

import argparse
import subprocess
import sys
from pathlib import Path

LISTS = Path(__file__).parent / "environments"


def main() -> None:
    """Make those that are missing or whose list has changed."""
    names = sorted(path.stem for path in LISTS.glob("*.txt"))
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path)
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(names))
    options = parser.parse_args()
    failed = [name for name in options.names or names if not make(options.folder / name)]
    if failed:
        raise SystemExit(f"could not be made: {', '.join(failed)}")


def make(folder: Path) -> bool:
    """Make one environment; tell whether it is whole."""
    versions = (LISTS / f"{folder.name}.txt").read_text()
    stamp, python = folder / "installed.txt", folder / "bin" / "python"
    if stamp.is_file() and stamp.read_text() == versions:
        return True
    print(f"making {folder}", flush=True)
    install = [python, "-m", "pip", "install", "-q", "--no-deps", "-r"]
    commands = [
        [sys.executable, "-m", "venv", folder],
        [*install, LISTS / f"{folder.name}.txt"],
    ]
    if any(subprocess.run([*map(str, command)], check=False).returncode for command in commands):
        return False
    stamp.write_text(versions)
    return True


if __name__ == "__main__":
    main()
