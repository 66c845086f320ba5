"""The verbs that write configurations: `init`, and `schema` for editors."""

import json
import shlex
from pathlib import Path
from typing import Annotated

import typer

from autocompress.cli.app import app, examples, exit_codes, make_console, say
from autocompress.errors import InvalidInputError, explain

SCHEMA_NAME = "autocompress.schema.json"
"""File that editors find beside a configuration."""


@app.command(
    epilog=examples(
        "autocompress init my_model:make_model",
        "autocompress init my_model:make_model --task my_data:make_task --out first.yaml",
    )
)
def init(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODULE:FUNCTION",
            help="What makes the trained model, in a module beside the file that is written.",
        ),
    ],
    task: Annotated[
        str | None,
        typer.Option(help="What makes the task; else make_task in the module of the model."),
    ] = None,
    out: Annotated[Path, typer.Option(help="The file to write.")] = Path("autocompress.yaml"),
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
) -> None:
    """Write a commented configuration for a model, and a schema for editors beside it."""
    with exit_codes():
        from autocompress.core.files import write_json, write_text
        from autocompress.scaffold import fitting_space, new_config, schema

        if out.exists() and not force:
            raise InvalidInputError(
                explain(
                    f"'{out}'",
                    expected="a file that is not there yet",
                    got="one that is",
                    remedy="give another one with --out, or --force to replace it",
                )
            )
        task = task or f"{model.partition(':')[0]}:make_task"
        space, missing = fitting_space(model, task, out.absolute().parent)
        write_json(out.with_name(SCHEMA_NAME), schema())
        write_text(out, new_config(model, task, space, SCHEMA_NAME))
        console = make_console()
        say(console, f"{out}: space '{space}'")
        if missing:
            say(console, f"still to be written: {missing}")
        say(console, f"next: autocompress check {shlex.quote(str(out))}")


@app.command("schema", epilog=examples(f"autocompress schema > {SCHEMA_NAME}"))
def print_schema() -> None:
    """Write the JSON schema of configurations, for editors that complete and check YAML."""
    from autocompress.scaffold import schema

    typer.echo(json.dumps(schema(), indent=2))
