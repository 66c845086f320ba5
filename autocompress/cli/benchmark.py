"""The verb that compares joint search with what one would do instead."""

from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli.app import (
    FAILED,
    ConfigArgument,
    JsonOption,
    QuietOption,
    app,
    examples,
    exit_codes,
    make_console,
    print_json,
    say,
)


@app.command(
    epilog=examples(
        "autocompress benchmark digits.yaml --minutes 3",
        "autocompress benchmark digits.yaml --methods joint,int8 --seeds 3",
    )
)
def benchmark(
    config: ConfigArgument,
    folder: Annotated[
        Path | None,
        typer.Option(help="Where all is written; else runs/<name of CONFIG>-benchmark."),
    ] = None,
    methods: Annotated[
        str | None,
        typer.Option(help="Names joined by commas; else joint,random,sequential,uniform,int8."),
    ] = None,
    seeds: Annotated[int, typer.Option(min=1, help="Runs of each method.")] = 1,
    minutes: Annotated[
        float | None, typer.Option(help="Minutes of every run; else those of the budget.")
    ] = None,
    trials: Annotated[int | None, typer.Option(help="Trials of one search at most.")] = None,
    quiet: QuietOption = False,
    as_json: JsonOption = False,
) -> None:
    """Compare joint search with what one would do instead, at the same minutes.

    Every file is measured in one interleaved run; the same command
    continues what was stopped.
    """
    with exit_codes(as_json=as_json):
        from autocompress.comparison import benchmark as compare
        from autocompress.config import load_config
        from autocompress.contest import contest_of
        from autocompress.controller.methods import USUAL
        from autocompress.report.comparison import comparison_tables

        console, progress = make_console(), make_console(stderr=as_json)
        place = folder or Path("runs") / f"{config.stem}-benchmark"
        found = compare(
            contest_of(load_config(config, minutes=minutes, trials=trials), place),
            methods=USUAL if methods is None else methods.split(","),
            seeds=range(seeds),
            on_message=(lambda _: None) if quiet else lambda line: say(progress, line),
        )
        if as_json:
            print_json(found)
        else:
            console.print(comparison_tables(found))
            say(console, f"files and figures: {place / 'comparison.json'}")
        if len(found["points"]) == 1:  # that of the original
            raise typer.Exit(FAILED)
