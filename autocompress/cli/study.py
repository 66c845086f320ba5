"""The verbs that read a study: `report` and `export`."""

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from autocompress.cli.app import (
    JsonOption,
    StudyArgument,
    TrustOption,
    app,
    examples,
    exit_codes,
    make_console,
    say,
)
from autocompress.cli.results import show
from autocompress.core.schema import unknown_name
from autocompress.errors import InvalidInputError, explain

if TYPE_CHECKING:
    from autocompress.api import FrontMember, SearchResult


@app.command(epilog=examples("autocompress report runs/digits --json"))
def report(study_dir: StudyArgument, as_json: JsonOption = False) -> None:
    """Show the front of a study, and write its HTML page again."""
    with exit_codes(as_json=as_json):
        from autocompress import api

        show(api.open(study_dir), as_json=as_json)


@app.command(
    epilog=examples(
        "autocompress export runs/digits 0007 --out deployed",
        "autocompress export runs/digits --limit latency_ms=0.05 --limit size_bytes=25%",
        "autocompress export runs/digits 0007 --program model.pt2",
    )
)
def export(
    study_dir: StudyArgument,
    member: Annotated[
        str | None,
        typer.Argument(metavar="MEMBER", help="Its id; else the best one under the limits."),
    ] = None,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="As a constraint of a search; may be repeated."),
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="The folder to write; else <id>, in the current folder.")
    ] = None,
    program: Annotated[
        Path | None,
        typer.Option(
            help="Write one torch.export file (.pt2) in floating point, pruned and trained, "
            "with the weights' codes as values, instead of the folder."
        ),
    ] = None,
    trust: TrustOption = False,
) -> None:
    """Copy a member's files: model, packed weights, candidate and figures."""
    with exit_codes():
        from autocompress import api

        if program is not None and program.suffix != ".pt2":
            raise InvalidInputError(
                explain(
                    "'--program'",
                    expected="a file that ends in .pt2",
                    got=f"'{program}'",
                    remedy="write --program model.pt2",
                )
            )
        if program is not None and out is not None:
            raise InvalidInputError(
                explain(
                    "export",
                    expected="--program or --out",
                    got="both",
                    remedy="leave one of them out",
                )
            )
        result = api.open(study_dir)
        chosen = _choose(result, member, limit or [])
        if program is not None:
            written = _write_program(result, chosen, program, trust=trust)
        else:
            written = _copy(chosen, out or Path(chosen.id))
        say(make_console(), f"member {chosen.id}: {written}\n{chosen.words()}")
        if chosen.id not in {own.id for own in result.front}:
            typer.echo("not on the front: others beat it, or it misses a limit", err=True)


def _choose(result: "SearchResult", member: str | None, limits: list[str]) -> "FrontMember":
    if member is None:
        return result.best(**_limits(limits))
    if limits:
        raise InvalidInputError(
            explain(
                "export",
                expected="a member or limits",
                got="both",
                remedy="leave one of them out",
            )
        )
    known = {own.id: own for own in result.members}
    if member not in known:
        raise InvalidInputError(unknown_name(f"member of '{result.study_dir}'", member, known))
    return known[member]


def _limits(texts: list[str]) -> dict[str, float | str]:
    found: dict[str, float | str] = {}
    for name, value in map(_limit, texts):
        if name in found:
            raise InvalidInputError(
                explain(
                    "'--limit'",
                    expected="one limit for each name",
                    got=f"two for '{name}'",
                    remedy="leave one of them out",
                )
            )
        found[name] = value
    return found


def _limit(text: str) -> tuple[str, float | str]:
    name, sign, value = text.partition("=")
    if not (name and sign and value):
        raise InvalidInputError(
            explain(
                "'--limit'",
                expected="a name and a value",
                got=f"'{text}'",
                remedy="write --limit latency_ms=0.05, or --limit size_bytes=25%",
            )
        )
    try:
        return name, float(value)
    except ValueError:
        return name, value


def _copy(member: "FrontMember", folder: Path) -> Path:
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise InvalidInputError(
            explain(
                f"'{folder}'",
                expected="a folder that is new or empty",
                got="something there",
                remedy="give another one with --out",
            )
        )
    folder.absolute().parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.absolute().parent, prefix=".export-") as near:
        whole = Path(near) / "whole"  # an interrupted copy leaves nothing behind
        shutil.copytree(member.path.parent, whole)
        if folder.exists():  # empty, and perhaps where the caller stands
            for file in whole.iterdir():
                file.replace(folder / file.name)
        else:
            whole.replace(folder)
    return folder


def _write_program(
    result: "SearchResult", member: "FrontMember", path: Path, *, trust: bool
) -> Path:
    from autocompress import api
    from autocompress.cli.model import load_parts
    from autocompress.kept_config import load_kept_config

    model, _, inputs = load_parts(load_kept_config(result.study_dir, trust=trust))
    return api.export(member.model(model), path, inputs).path
