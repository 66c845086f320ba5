import subprocess
import sys
from pathlib import Path


def test_the_command_is_installed_and_knows_its_version() -> None:
    installed = [Path(sys.executable).with_name("autocompress")]
    for command in (installed, [sys.executable, "-m", "autocompress"]):
        finished = subprocess.run(
            [*command, "--version"], capture_output=True, text=True, check=True
        )
        assert finished.stdout == "autocompress 0.1.0\n"
