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
    help="Search joint compressions of a PyTorch model for one target, and measure them on it. "
    "Begin with 'check CONFIG', then 'search CONFIG'.",
    epilog="Exit codes: 0 done, 1 failed, 2 wrong input, 3 no candidate meets the constraints, "
    "130 interrupted (the same command continues).",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)

ConfigArgument = Annotated[
    Path, typer.Argument(metavar="CONFIG", help="A YAML file such as examples/digits.yaml.")
]
StudyArgument = Annotated[
    Path, typer.Argument(metavar="STUDY_DIR", help="The folder of a study, such as runs/digits.")
]
TrialsOption = Annotated[
    int | None,
    typer.Option(help="Trials in total, resumed runs included; else as configured."),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(help="Minutes in total, resumed runs included; else as configured."),
]
QuietOption = Annotated[bool, typer.Option("--quiet", help="Show no progress, only the result.")]


def main() -> None:
    """Run the command line."""
    app()


@app.command()
def search(
    config: ConfigArgument,
    study_dir: Annotated[
        str | None,
        typer.Option(help="The folder of the study; else as configured, or runs/<name of CONFIG>."),
    ] = None,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    executor: Annotated[
        str | None, typer.Option(help="Where trials run: inline, in this process.")
    ] = None,
    sampler: Annotated[
        str | None,
        typer.Option(help="What proposes candidates: joint, tpe, random, nsga2, gp or haq."),
    ] = None,
    warm_start: Annotated[
        list[str] | None,
        typer.Option(help="The folder of an earlier study to learn from; may be repeated."),
    ] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of the run; else as configured.")] = None,
    quiet: QuietOption = False,
) -> None:
    """Search, or continue a search that was interrupted.

    Writes the front, its files and a report into the folder of the study.
    """
    with _exit_codes():
        from autocompress.config import load_config

        _run(
            load_config(
                config,
                study_dir=study_dir,
                trials=trials,
                minutes=minutes,
                executor=executor,
                sampler=sampler,
                warm_start=warm_start or (),
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
    """Continue a study with the configuration that it keeps, or with a larger budget."""
    with _exit_codes():
        from autocompress.kept_config import load_kept_config

        _run(load_kept_config(study_dir, trials=trials, minutes=minutes), quiet=quiet)


@app.command()
def check(
    config: ConfigArgument,
    as_json: Annotated[bool, typer.Option("--json", help="Write JSON, not tables.")] = False,
) -> None:
    """Show what can be compressed in a model, and what cannot and why.

    What a search would refuse is refused: a task at once, a model that cannot be exported, or
    of which nothing can vary, at the end.
    """
    with _exit_codes():
        from autocompress import api
        from autocompress.artifact.onnx_file import check_exportable
        from autocompress.config import load_config
        from autocompress.evaluation.original import frozen_copy
        from autocompress.evaluation.splits import example_inputs, take
        from autocompress.graph.inputs import ModelInputs
        from autocompress.report.preflight import check_summary
        from autocompress.report.savings import search_time
        from autocompress.space.preset import SearchSpace

        loaded = load_config(config)
        model, task = loaded.make_model(), loaded.make_task()
        args, kwargs = example_inputs(task, model, tuple(take(task.val, 2, "val", "cpu")))
        inputs = ModelInputs(args=args, kwargs=kwargs)
        found = api.check(
            model,
            inputs,
            space=loaded.space_name_or_path(),
            task=task,
            budget=loaded.make_budget(),
        )
        if as_json:
            typer.echo(json.dumps(found.to_dict(), indent=2))
        else:
            console = _console()
            for table in found.tables():
                console.print(table)
            console.print(search_time(found))
            _say(console, check_summary(found))
        SearchSpace.load(loaded.space_name_or_path()).bind_graph(found)
        check_exportable(frozen_copy(model, "cpu", inputs), (args, kwargs))


@app.command()
def profile(
    config: ConfigArgument,
    out: Annotated[
        Path | None, typer.Option(help="The file to write; else <name of CONFIG>.profile.json.")
    ] = None,
    seconds: Annotated[float, typer.Option(help="Time for the kernels.")] = 60.0,
    networks: Annotated[int, typer.Option(help="Whole networks to time.")] = 40,
    bundle: Annotated[
        Path | None,
        typer.Option(help="Measure nothing; write models and a runner for another device here."),
    ] = None,
    measured: Annotated[
        Path | None,
        typer.Option("--from", help="Measure nothing; read what the runner of a bundle wrote."),
    ] = None,
    quiet: QuietOption = False,
) -> None:
    """Profile the target of a configuration; 'target: {profile: FILE}' uses what it writes."""
    with _exit_codes():
        from autocompress import api
        from autocompress.config import load_config
        from autocompress.evaluation.splits import example_inputs, take
        from autocompress.graph.inputs import ModelInputs
        from autocompress.report.console import ProgressBars

        loaded = load_config(config)
        model, task = loaded.make_model().eval(), loaded.make_task()
        target = loaded.target.describe(Path(loaded.folder))
        args, kwargs = example_inputs(task, model, tuple(take(task.val, 2, "val", "cpu")))
        examples = ModelInputs(args=args, kwargs=kwargs)
        space = api.SearchSpace.load(loaded.space_name_or_path()).bind(model, examples, target)
        path = out or Path(f"{config.stem}.profile.json")
        with nullcontext() if quiet else ProgressBars(_console()) as bars:
            found = api.profile(
                target,
                space=space,
                model=model,
                example_inputs=examples,
                out=None if bundle else path,
                seconds=seconds,
                networks=networks,
                measured=measured,
                bundle=bundle,
                on_progress=bars,
            )
        if found is None:
            _say(_console(), f"on the device: cd {bundle} && python runner.py; then, here: ")
            _say(_console(), f"autocompress profile {config} --from measured.json")
        elif isinstance(found, api.DeviceProfile):
            _say(_console(), f"{path}: {found.describe_model(space)}")


@app.command()
def report(study_dir: StudyArgument) -> None:
    """Show the front of a study, and write its HTML page again."""
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
            sampler=config.sampler,
            warm_start=config.warm_start,
            training=config.make_training(),
            quantisation=config.make_quantisation(),
            teachers=config.make_teachers(),
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
    """Show what a study found, or how far it came, and where the page is."""
    from autocompress.core.objective import parse_constraints
    from autocompress.report.console import artifact_table
    from autocompress.report.summary import baseline_rows, member_rows

    console, page = _console(), result.report()
    baseline, infeasible = result.baseline, result.nearest_infeasible
    if result.front:
        rows = [*baseline_rows(baseline), *member_rows(result.front, "front", baseline)]
        console.print(artifact_table(rows))
    elif result.members:
        rows = [*baseline_rows(baseline), *member_rows(infeasible, "infeasible", baseline)]
        console.print(artifact_table(rows, "No front; the infeasible members, nearest first"))
    else:
        _say(console, _unfinished(result))
    if result.members:
        _say(console, f"files: {result.study_dir / 'front'}/<id>/{result.members[0].path.name}")
    _say(console, f"report: {page}")
    if result.members and not result.front:
        limits = " and ".join(limit.describe() for limit in parse_constraints(result.constraints))
        typer.echo(
            f"no candidate meets the constraints: {limits}; the nearest ones are shown above and "
            "on disk",
            err=True,
        )
        raise typer.Exit(INFEASIBLE)


def _unfinished(result: "SearchResult") -> str:
    from autocompress.kept_config import how_to_continue

    trials = len(result.rows())
    return (
        f"no members yet: the study was stopped after {trials} trials, before its first artifact "
        f"was measured; to continue: {how_to_continue(result.study_dir)}"
    )


def _say(console: Console, line: str) -> None:
    console.print(line, soft_wrap=True, markup=False, highlight=False)


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
