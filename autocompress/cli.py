"""The public verbs from a shell."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from autocompress.errors import (
    AutocompressError,
    InvalidInputError,
    MissingExtraError,
    MissingFileError,
    StudyError,
    TraceError,
    WrongTypeError,
)

if TYPE_CHECKING:
    from autocompress.api import SearchResult
    from autocompress.config import SearchConfig
    from autocompress.core.events import Event

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

app = typer.Typer(
    name="autocompress",
    help="Search joint compressions of a PyTorch model for one target, and measure them on it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="The configuration, a YAML file.")
]
StudyArgument = Annotated[Path, typer.Argument(metavar="STUDY_DIR", help="The folder of a study.")]
TrialsOption = Annotated[int | None, typer.Option(help="Trials in total, resumed runs included.")]
MinutesOption = Annotated[
    float | None, typer.Option(help="Minutes in total, resumed runs included.")
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress, only the result.")]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def search(
    config: ConfigArgument,
    study_dir: Annotated[str | None, typer.Option(help="The folder of the study.")] = None,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    executor: Annotated[str | None, typer.Option(help="Where trials run: inline.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Search, or continue a search that was interrupted."""
    with _exit_codes():
        from autocompress.config import load_config

        _run(
            load_config(
                config,
                study_dir=study_dir,
                trials=trials,
                minutes=minutes,
                executor=executor,
                seed=seed,
            ),
            quiet=quiet,
        )


@app.command()
def resume(
    study_dir: StudyArgument,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    quiet: QuietOption = False,
) -> None:
    """Continue a study with the configuration that it keeps."""
    with _exit_codes():
        from autocompress.config import load_kept_config

        _run(load_kept_config(study_dir, trials=trials, minutes=minutes), quiet=quiet)


@app.command()
def check(
    config: ConfigArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, not tables.")] = False,
) -> None:
    """Show what can be compressed in a model, and what cannot and why."""
    with _exit_codes():
        from autocompress import api
        from autocompress.config import load_config
        from autocompress.evaluation.splits import example_inputs, take
        from autocompress.graph.inputs import ModelInputs
        from autocompress.report.preflight import check_json, check_tables
        from autocompress.report.savings import savings_json, savings_tables, search_time

        loaded = load_config(config)
        model, task = loaded.make_model(), loaded.make_task()
        args, kwargs = example_inputs(task, model, tuple(take(task.val, 2, "val", "cpu")))
        found = api.check(
            model,
            ModelInputs(args=args, kwargs=kwargs),
            space=loaded.space_name_or_path(),
            task=task,
            budget=loaded.make_budget(),
        )
        if as_json:
            typer.echo(json.dumps(check_json(found) | savings_json(found), indent=2))
            return
        console = _console()
        for table in (*check_tables(found), *savings_tables(found)):
            console.print(table)
        console.print(search_time(found))


@app.command()
def report(study_dir: StudyArgument) -> None:
    """Write the HTML page of a study again, and show its front."""
    with _exit_codes():
        from autocompress import api

        _show(api.open(study_dir))


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


def _run(config: "SearchConfig", *, quiet: bool) -> None:
    from autocompress import api
    from autocompress.report.console import ProgressDisplay

    model, task = config.make_model(), config.make_task()
    with nullcontext() if quiet else ProgressDisplay(_console()) as display:
        result = api.search(
            model,
            task,
            target=config.make_target(),
            objectives=config.objectives,
            constraints=config.constraints,
            space=config.space_name_or_path(),
            budget=config.make_budget(),
            study_dir=config.study_dir,
            executor=config.executor,
            training=config.make_training(),
            device=config.device,
            callbacks=(_keeper(config), *([display] if display else [])),
            verbose=False,
            seed=config.seed,
        )
    _show(result)


def _keeper(config: "SearchConfig") -> "Callable[[Event], None]":
    """Return a callback that keeps the configuration once the search has accepted it.

    Before its first event, a search may still refuse its input, and then
    nothing of an existing study may change.
    """
    from autocompress.core.files import write_text

    kept = Path(config.study_dir) / "config.yaml"
    content = config.to_yaml()
    done = False

    def keep(_: "Event") -> None:
        nonlocal done
        if not done:
            write_text(kept, content)
            done = True

    return keep


def _show(result: "SearchResult") -> None:
    """Show a front, or the members nearest to one, and where the page is."""
    from autocompress.report.console import front_table

    console = _console()
    page = result.report()
    console.print(front_table(result.baseline, result.front or result.nearest_infeasible))
    console.print(f"report: {page}", soft_wrap=True, markup=False, highlight=False)
    if not result.front:
        typer.echo(
            "no candidate meets the constraints; the nearest ones are shown above and on disk",
            err=True,
        )
        raise typer.Exit(INFEASIBLE)


def _console() -> Console:
    """Return a console that is wide enough for our tables where width is unlimited."""
    return Console() if sys.stdout.isatty() else Console(width=100)


@contextmanager
def _exit_codes() -> Iterator[None]:
    """Turn errors into one line on standard error and the fitting exit code."""
    try:
        yield
    except WRONG_INPUT_ERRORS as error:
        raise _stopped(error, WRONG_INPUT) from error
    except (AutocompressError, OSError) as error:
        raise _stopped(error, FAILED) from error
    except KeyboardInterrupt as error:
        typer.echo("interrupted; run the same command again to continue", err=True)
        raise typer.Exit(INTERRUPTED) from error


def _stopped(error: Exception, code: int) -> typer.Exit:
    typer.echo(f"error: {' '.join(str(error).split())}", err=True)
    return typer.Exit(code)
