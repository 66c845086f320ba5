"""What a search would do, without doing it: stages, time and disk."""

from pathlib import Path
from typing import TYPE_CHECKING

from autocompress.cli.app import (
    make_console,
    print_json,
    say,
)
from autocompress.cli.model import load_parts, refuse_unfit

if TYPE_CHECKING:
    from autocompress.config import SearchConfig


def show_plan(config: "SearchConfig", *, as_json: bool) -> None:
    """Check a configuration as a search would, and tell what it would do.

    Args:
        config: The configuration.
        as_json: Write JSON, not tables.
    """
    from autocompress import api
    from autocompress.report.plan import SearchPlan
    from autocompress.report.savings import search_time

    model, task, inputs = load_parts(config)
    _check_host(config)
    space, budget = config.space_name_or_path(), config.make_budget()
    training = config.make_training()
    found = api.check(model, inputs, space=space, task=task, budget=budget, training=training)
    refuse_unfit(config, model, task, inputs, found)
    plan = SearchPlan.of(found, budget, config.study_dir)
    if as_json:
        print_json(plan.to_dict())
        return
    console = make_console()
    console.print(plan.table())
    say(console, search_time(found))
    say(console, plan.disk())


def _check_host(config: "SearchConfig") -> None:
    """Refuse what a search would refuse of this host, and of earlier studies on it."""
    from autocompress import api
    from autocompress.artifact.session import check_available
    from autocompress.controller.storage import study_exists
    from autocompress.cost.resolve import resolve_target
    from autocompress.evaluation.original import check_device

    target, _ = resolve_target(config.make_target())
    if target.simulation is None:
        check_available(target)
    check_device(config.device)
    if not study_exists(Path(config.study_dir) / "study.db"):
        for folder in config.warm_start:
            api.open(folder)
