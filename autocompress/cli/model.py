"""The verbs that look at a model and a target before a search: `check` and `profile`."""

import shlex
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from autocompress.cli.app import (
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

if TYPE_CHECKING:
    from torch import nn

    from autocompress.config import SearchConfig
    from autocompress.evaluation.task import Task
    from autocompress.graph.inputs import ModelInputs
    from autocompress.graph.structure import ModelGraph


@app.command(epilog=examples("autocompress check digits.yaml", "autocompress check a.yaml --json"))
def check(
    config: ConfigArgument,
    as_json: JsonOption = False,
) -> None:
    """Show what can be compressed in a model, and what cannot and why.

    What a search would refuse of them is refused: a task at once; at the end a model that
    cannot be exported or of which nothing can vary, labels that are missing, examples of
    several shapes, and teachers that do not fit. Whether the target is here is asked by
    search --dry-run.
    """
    with exit_codes(as_json=as_json):
        from autocompress import api
        from autocompress.config import load_config
        from autocompress.report.preflight import check_summary
        from autocompress.report.savings import original_accuracy, search_time

        loaded = load_config(config)
        model, task, inputs = load_parts(loaded)
        found = api.check(
            model,
            inputs,
            space=loaded.space_name_or_path(),
            task=task,
            budget=loaded.make_budget(),
            training=loaded.make_training(),
        )
        if as_json:
            print_json(found.to_dict())
        else:
            console = make_console()
            for table in found.tables():
                console.print(table)
            console.print(search_time(found))
            say(console, original_accuracy(found))
            say(console, check_summary(found))
        refuse_unfit(loaded, model, task, inputs, found)


@app.command(
    epilog=examples(
        "autocompress profile digits.yaml --out laptop.json",
        "autocompress profile digits.yaml --bundle phone/",
        "autocompress profile digits.yaml --from measured.json",
    )
)
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
    with exit_codes():
        from autocompress import api
        from autocompress.config import load_config
        from autocompress.report.live import ProgressBars
        from autocompress.yaml_file import dump_yaml

        loaded = load_config(config)
        model, _, inputs = load_parts(loaded)
        target = loaded.target.describe(Path(loaded.folder))
        space = api.SearchSpace.load(loaded.space_name_or_path()).bind(model, inputs, target)
        path = out or Path(f"{config.stem}.profile.json")
        with nullcontext() if quiet else ProgressBars(make_console()) as bars:
            found = api.profile(
                target,
                space=space,
                model=model,
                example_inputs=inputs,
                out=out if bundle else path,
                seconds=seconds,
                networks=networks,
                measured=measured,
                bundle=bundle,
                on_progress=bars,
            )
        if found is None:
            there, here = (shlex.quote(str(place)) for place in (bundle, config))
            say(make_console(), f"on the device: cd {there} && python runner.py; then, here:")
            say(make_console(), f"autocompress profile {here} --from measured.json")
        elif isinstance(found, api.DeviceProfile):
            say(make_console(), f"{path}: {found.describe_model(space)}")
            words = dump_yaml(profiled_section(loaded, path), flow=True).strip()
            say(make_console(), f"to search with it, write in {config}: target: {words}")
        else:
            say(make_console(), f"{path}: simulated hardware, whose costs are computed")


def profiled_section(config: "SearchConfig", path: Path) -> dict[str, Any]:
    """Return what a configuration says of its target, with a profile of it."""
    said = config.target.model_dump(exclude_defaults=True)
    return {"name": config.target.name, **said, "profile": str(path.absolute())}


def refuse_unfit(
    config: "SearchConfig",
    model: "nn.Module",
    task: "Task",
    inputs: "ModelInputs",
    graph: "ModelGraph",
) -> None:
    """Refuse what a search would refuse of a model and a task that can be traced and scored.

    Args:
        config: What is to be searched.
        model: Its model.
        task: Its task, from `load_parts`.
        inputs: Of one forward call.
        graph: The model's structure.

    Raises:
        InvalidInputError: With what does not fit.
        ExportError: If the model cannot be exported.
    """
    from autocompress.artifact.onnx_file import check_exportable
    from autocompress.controller.setup import check_labels
    from autocompress.cost.resolve import resolve_target
    from autocompress.evaluation.original import frozen_copy
    from autocompress.evaluation.splits import check_shapes, make_splits
    from autocompress.evaluation.synthesis import synthesise
    from autocompress.evaluation.task import has_targets
    from autocompress.evaluation.teachers import freeze_teachers
    from autocompress.space.preset import SearchSpace

    space, training = SearchSpace.load(config.space_name_or_path()), config.make_training()
    bound, splits = space.bind_graph(graph), make_splits(task, seed=0)
    labelled = all(map(has_targets, splits.recalibration))
    if training.data == "synthetic":
        labelled = False
        synthesise(model, inputs, images=2, batch_size=2, steps=1)
    check_labels(bound, training, labelled=labelled)
    original = frozen_copy(model, "cpu", inputs)
    freeze_teachers(task, original, config.make_teachers(), splits.val[0])
    if resolve_target(config.make_target())[0].simulation is None:
        check_shapes(splits)
        check_exportable(original, (inputs.args, inputs.kwargs))


def load_parts(config: "SearchConfig") -> "tuple[nn.Module, Task, ModelInputs]":
    """Make the model, in eval mode, its task, and the arguments of a call of two examples."""
    from autocompress.evaluation.splits import example_inputs, take
    from autocompress.graph.inputs import ModelInputs

    model, task = config.make_model().eval(), config.make_task()
    if config.make_training().data == "synthetic":  # which a search makes; here shapes are enough
        task = task.with_train(task.val)
    args, kwargs = example_inputs(task, model, tuple(take(task.val, 2, "val", "cpu")))
    return model, task, ModelInputs(args=args, kwargs=kwargs)
