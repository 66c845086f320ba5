"""The search, stage by stage: baseline, profile, sensitivity, trials, finalists, front."""

import functools
from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from autocompress.controller.allocated import allocated, even_budgets
from autocompress.controller.designs import (
    counts,
    first_designs,
    given_designs,
    ladder_start,
    sobol_points,
    with_earlier,
)
from autocompress.controller.finish import (
    finalist_images,
    limit_views,
    measure_members,
    train_finalists,
)
from autocompress.controller.forecast import Forecast
from autocompress.controller.kept_predictor import check_kept_predictor, keep_predictor
from autocompress.controller.ladder import Rung
from autocompress.controller.ledger import Ledger
from autocompress.controller.lessons import learn_distillation
from autocompress.controller.run import Run
from autocompress.controller.sensitivity import (
    find_ladders,
    keep_sensitivities,
    known_sensitivities,
)
from autocompress.controller.setup import SearchSetup
from autocompress.controller.sharing import share_weights
from autocompress.controller.start import (
    device_profile,
    keep_given_profile,
    measure_baseline,
    note_guessing,
)
from autocompress.controller.trials import run_trials
from autocompress.core.candidate import Candidate
from autocompress.core.events import Callback
from autocompress.core.quantisation import ON
from autocompress.core.seeds import derive_seed
from autocompress.cost.stored_bits import StoredBits


def run_search(setup: SearchSetup, ledger: Ledger, callbacks: Sequence[Callback] = ()) -> None:
    """Run or continue one study to the end of its budget; all it learns is on disk at once.

    Args:
        setup: What to search.
        ledger: The open ledger of the study.
        callbacks: Told of every step.
    """
    run = Run(setup, ledger, callbacks)
    keep_given_profile(run)
    baseline = measure_baseline(run)
    note_guessing(run, baseline["accuracy"])
    run.update_front()  # a later run may have other limits
    forecast = Forecast(
        setup.graph,
        device_profile(run),
        setup.objectives,
        setup.constraints,
        baseline,
        functools.partial(finalist_images, run),
        StoredBits(setup.model, reduced=setup.quantisation.reduce_range == ON),
    )
    limit_views(run)
    share_weights(run)
    _queue_designs(run, forecast)
    forecast.learn(run.evaluations())
    check_kept_predictor(run, forecast)
    run_trials(run, forecast)
    keep_predictor(run, forecast)
    learn_distillation(run, forecast)
    train_finalists(run, forecast)
    keep_predictor(run, forecast)
    measure_members(run, forecast)
    run.say("done", ending(ledger.finished))


def ending(trials: int) -> str:
    """Say how a search ended: one without time for a trial has searched nothing.

    Example:
        >>> ending(12)
        'the search is complete'
        >>> ending(0)
        'the minutes for trials were over before the first one; search on with more of them'
    """
    if trials:
        return "the search is complete"
    return "the minutes for trials were over before the first one; search on with more of them"


def _queue_designs(run: Run, forecast: Forecast) -> None:
    """Queue the first designs, once in a study: one that is resumed scores no channels again."""
    space, ledger = run.setup.space, run.ledger
    if ledger.get("designs_queued"):
        return
    if run.setup.designs:
        designs = given_designs(space, run.setup.designs)
    else:
        allowance = forecast.allowance(ladder_start(space))
        criteria = space.criteria if space.pruning_choices else ()
        scores = {criterion: run.evaluator.scores(criterion) for criterion in criteria}
        ladders = find_ladders(run, forecast)
        rungs, allocations, points = counts(run.setup.budget.trials)
        others = {
            "allocation": _allocations(run, forecast, ladders, allocations),
            "sobol": sobol_points(space, points, derive_seed(run.setup.seed, -1, "sobol")),
        }
        designs = first_designs(space, ladders, allowance, scores, rungs=rungs, others=others)
    designs = with_earlier(space, designs, run.setup.earlier.designs)
    for design in designs:
        ledger.enqueue(
            space.to_params(design.candidate), design.origin, {"promote": design.promote}
        )
    keep_sensitivities(run)
    ledger.set("designs_queued", True)


def _allocations(
    run: Run, forecast: Forecast, ladders: Mapping[str, Sequence[Rung]], count: int
) -> list[Candidate]:
    """Allocate at budgets between the ladders' start, or the limits, and their ends."""
    space, start, names = run.setup.space, ladder_start(run.setup.space), list(ladders)
    if not count:
        return []
    allowance = forecast.allowance(start)
    whole = np.array([forecast.costs(start)[name] for name in names])
    high = whole * [min(1.0, allowance.get(name, 1.0)) for name in names]
    low = np.minimum(high, whole * [rungs[-1].cost for rungs in ladders.values()])

    def costs(candidates: Sequence[Candidate]) -> NDArray[np.float64]:
        found = forecast.all_costs(candidates, names)
        return np.stack([found[name] for name in names], axis=1).astype(np.float64)

    sensitivities = known_sensitivities(run.ledger, space)
    found = [
        allocated(space, start, sensitivities, costs, budgets)
        for budgets in even_budgets(high, low, count)
    ]
    return [candidate for series in found for candidate in series][:count]
