"""The command line's application: shared options, output and exit codes."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout
from contextvars import ContextVar
from importlib.metadata import version
from pathlib import Path
from typing import Annotated, Any, TextIO

import typer
from rich.console import Console
from typer.core import TyperGroup

from autocompress.errors import (
    AutocompressError,
    InvalidInputError,
    MissingExtraError,
    MissingFileError,
    StudyError,
    TraceError,
    WrongTypeError,
)

FAILED, WRONG_INPUT, INFEASIBLE, INTERRUPTED = 1, 2, 3, 130
"""Exit codes besides 0."""

WRONG_INPUT_ERRORS = (
    InvalidInputError,
    WrongTypeError,
    MissingFileError,
    TraceError,
    MissingExtraError,
    StudyError,
)

VERBS = (
    *("init", "check", "profile", "search", "resume"),
    *("report", "export", "benchmark", "schema"),
)
"""In the order in which one needs them."""


_output: ContextVar[TextIO | None] = ContextVar("output", default=None)
"""Where the JSON document of the running command goes."""


class _Verbs(TyperGroup):
    """Lists the verbs as `VERBS` does, not as modules are imported."""

    def list_commands(self, ctx: Any) -> list[str]:
        return sorted(super().list_commands(ctx), key=VERBS.index)


app = typer.Typer(
    name="autocompress",
    cls=_Verbs,
    help="Search joint compressions of a PyTorch model for one target, and measure them on it. "
    "Begin with 'init MODULE:FUNCTION', or with 'check CONFIG' and 'search CONFIG'.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 3 no candidate meets the constraints, "
    "130 interrupted (the same command continues).",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML file such as examples/digits.yaml.")
]
StudyArgument = Annotated[
    Path, typer.Argument(metavar="STUDY_DIR", help="The folder of a study, such as runs/digits.")
]
TrustOption = Annotated[
    bool, typer.Option("--trust", help="Run the code that another user's study names.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress, only the result.")]
JsonOption = Annotated[
    bool, typer.Option("--json", help="Write JSON to standard output, not tables.")
]


@app.callback()
def _options(
    _: Annotated[
        bool,
        typer.Option(
            "--version",
            help="Show the version and exit.",
            is_eager=True,
            callback=lambda wanted: _show_version() if wanted else None,
        ),
    ] = False,
) -> None:
    """Options that come before a command."""


def _show_version() -> None:
    typer.echo(f"autocompress {version('autocompress')}")
    raise typer.Exit


def examples(*commands: str) -> str:
    """Write commands as the epilog of a verb's help."""
    return "Examples:\n\n" + "\n\n".join(f"    {command}" for command in commands)


def say(console: Console, line: str) -> None:
    """Print a line as it is, however long."""
    console.print(line, soft_wrap=True, markup=False, highlight=False)


def make_console(*, stderr: bool = False) -> Console:
    """Return a console that is wide enough for our tables where width is unlimited."""
    terminal = (sys.stderr if stderr else sys.stdout).isatty()
    return Console(stderr=stderr) if terminal else Console(width=100, stderr=stderr)


def print_json(document: object) -> None:
    """Write the JSON document of a command to standard output."""
    typer.echo(json.dumps(document, indent=2), file=_output.get())


@contextmanager
def exit_codes(*, as_json: bool = False) -> Iterator[None]:
    """Turn errors into one line on standard error and the fitting exit code.

    Args:
        as_json: What is printed by anyone, such as the user's factories, goes to standard
            error; `print_json` alone writes to standard output.
    """
    aside = redirect_stdout(sys.stderr) if as_json else nullcontext()
    token = _output.set(sys.stdout)
    try:
        with aside:
            yield
    except WRONG_INPUT_ERRORS as error:
        raise _stopped(error, WRONG_INPUT) from error
    except (AutocompressError, OSError) as error:
        raise _stopped(error, FAILED) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted; run the same command again", err=True)
        raise typer.Exit(INTERRUPTED) from error
    finally:
        _output.reset(token)


def _stopped(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    return typer.Exit(code)
