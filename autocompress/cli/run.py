"""The verbs that search: `search` and `resume`."""

import shlex
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocompress.cli.app import (
    INTERRUPTED,
    ConfigArgument,
    JsonOption,
    QuietOption,
    StudyArgument,
    TrustOption,
    app,
    examples,
    exit_codes,
    make_console,
    say,
)
from autocompress.cli.interruption import Interruption
from autocompress.cli.plan import show_plan
from autocompress.cli.results import show

if TYPE_CHECKING:
    from autocompress.config import SearchConfig
    from autocompress.core.events import Event

TrialsOption = Annotated[
    int | None,
    typer.Option(help="Trials in total, resumed runs included; else as configured."),
]
MinutesOption = Annotated[
    float | None,
    typer.Option(help="Minutes in total, resumed runs included; else as configured."),
]
AddressOption = Annotated[
    str | None,
    typer.Option(help="A running Ray cluster, 'auto' for that of this host; else one is started."),
]
WorkersOption = Annotated[
    int | None, typer.Option(help="Ray workers, each one trial at a time; else all CPUs.")
]


@app.command(
    epilog=examples(
        "autocompress search digits.yaml --dry-run",
        "autocompress search digits.yaml --minutes 10 --study-dir runs/first",
        "AUTOCOMPRESS_CONSTRAINTS__LATENCY_MS=60% autocompress search digits.yaml",
    )
)
def search(
    config: ConfigArgument,
    study_dir: Annotated[
        str | None,
        typer.Option(help="The folder of the study; else as configured, or runs/<name of CONFIG>."),
    ] = None,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    executor: Annotated[
        str | None,
        typer.Option(help="Where trials run: inline, in this process, or ray, by Ray Tune."),
    ] = None,
    address: AddressOption = None,
    workers: WorkersOption = None,
    storage: Annotated[
        str | None,
        typer.Option(help="Where a new study keeps its trials: postgresql://..., journal:FILE."),
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
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check, and tell the plan, time and disk.")
    ] = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Search, or continue a search that was interrupted.

    Writes the front, its files and a report into the folder of the study.
    Ctrl-C stops after the running trial, a second one at once; the same
    command continues.
    """
    with exit_codes(as_json=as_json):
        from autocompress.config import load_config

        loaded = load_config(
            config,
            study_dir=study_dir,
            trials=trials,
            minutes=minutes,
            executor=executor,
            address=address,
            workers=workers,
            storage=storage,
            sampler=sampler,
            warm_start=warm_start or (),
            seed=seed,
        )
        if dry_run:
            show_plan(loaded, as_json=as_json)
        else:
            _run(loaded, quiet=quiet, as_json=as_json)


@app.command(epilog=examples("autocompress resume runs/digits --trials 80 --minutes 10"))
def resume(
    study_dir: StudyArgument,
    trials: TrialsOption = None,
    minutes: MinutesOption = None,
    trust: TrustOption = False,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Continue a study with the configuration that it keeps, or with a larger budget."""
    with exit_codes(as_json=as_json):
        from autocompress.kept_config import load_kept_config

        config = load_kept_config(study_dir, trials=trials, minutes=minutes, trust=trust)
        _run(config, quiet=quiet, as_json=as_json)


def _run(config: "SearchConfig", *, quiet: bool, as_json: bool) -> None:
    from autocompress import api
    from autocompress.report.live import ProgressDisplay

    console = make_console(stderr=as_json)
    if not quiet:  # a factory may train it, which takes its time
        say(console, f"making the model: {config.model.factory}")
    model, task = config.make_model(), config.make_task()
    with ExitStack() as stack:
        interruption = stack.enter_context(Interruption())
        listeners: list[Callable[[Event], None]] = [_keeper(config)]
        if not quiet:
            listeners.append(stack.enter_context(ProgressDisplay(console)))
        result = api.search(
            model,
            task,
            target=config.make_target(),
            objectives=config.objectives,
            constraints=config.constraints,
            space=config.space_name_or_path(),
            budget=config.make_budget(),
            study_dir=config.study_dir,
            executor=config.make_executor(),
            storage=config.storage,
            sampler=config.sampler,
            warm_start=config.warm_start,
            training=config.make_training(),
            teachers=config.make_teachers(),
            quantisation=config.make_quantisation(),
            device=config.device,
            callbacks=(*listeners, interruption),
            verbose=False,
            seed=config.seed,
        )
    if interruption.stopped:
        show(result, as_json=as_json, feasible_only=False)
        again = f"autocompress resume {shlex.quote(str(config.study_dir))}"
        typer.echo(f"stopped; to continue: {again}", err=True)
        raise typer.Exit(INTERRUPTED)
    show(result, as_json=as_json)


def _keeper(config: "SearchConfig") -> Callable[["Event"], None]:
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
