"""The public verbs from a shell."""

from autocompress.cli import benchmark, init, model, run, study  # each adds its verbs
from autocompress.cli.app import app

__all__ = ["app", "benchmark", "init", "main", "model", "run", "study"]


def main() -> None:
    """Run the command line."""
    app()
