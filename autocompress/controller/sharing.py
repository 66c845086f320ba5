"""Whether proxies use weights that all candidates share: trained, compared, kept."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import kendalltau

from autocompress.controller.run import Run
from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.core.seeds import derive_seed
from autocompress.errors import StorageError, StudyError, TrainingError, describe
from autocompress.evaluation.elastic import ElasticConfig, SharedWeights, train_elastic
from autocompress.evaluation.evaluator import Evaluator
from autocompress.space.bound import BoundSpace

FILE = "elastic.safetensors"
"""Where a study keeps shared weights."""

SHARED_SHARE = 0.12
"""Share of the minutes in which shared weights are trained, at most."""

SHARED_EPOCHS = 2.0
"""Length of their training where only trials are budgeted."""

POOL = 24
"""Random candidates that they are trained on."""

COMPARED = 6
"""Candidates that are trained to compare the two proxies."""

FEWEST = 3
"""Of those, whose training must not diverge; the order of fewer tells nothing."""

MOST_PRUNED = 0.99
"""Fraction of channels asked for of the smallest candidate; the space offers the nearest."""


def share_weights(run: Run) -> None:
    """Train shared weights if they are wanted, and use them where they rank better.

    "auto" trains a few random candidates for a short while, and takes the
    proxy whose accuracies have the higher Kendall's tau with theirs. Proxies
    are plain where the shared training diverges, or all but a few of those.
    The decision and the weights are kept in the study.
    """
    if run.setup.training.elastic == "off":
        return
    path = run.setup.study_dir / FILE
    decision = run.ledger.get("elastic")
    if decision is None or (decision["used"] and not path.is_file()):
        decision = _decide(run, path)
        run.ledger.set("elastic", decision)
    if decision["used"]:
        run.evaluator.shared = SharedWeights.load(path, run.setup.model)
    run.note("sharing", decision_words(decision))


def decision_words(decision: dict[str, Any]) -> str:
    """Say whether shared weights are used, and why.

    Example:
        >>> decision_words({"used": True})
        'proxies use elastic weights'
    """
    used = "elastic" if decision["used"] else "the original"
    if "reason" in decision:
        return f"proxies use {used} weights: {decision['reason']}"
    if "plain" not in decision:
        return f"proxies use {used} weights"
    first, second = ("elastic", "plain") if decision["used"] else ("plain", "elastic")
    names = {"elastic": "elastic ones", "plain": "the original's"}
    return (
        f"proxies use {used} weights: they rank {decision['candidates']} trained candidates "
        f"with tau {decision[first]:.2f}, {names[second]} with {decision[second]:.2f}"
    )


def smallest_candidate(space: BoundSpace) -> Candidate:
    """Return the candidate with the narrowest bits and the fewest channels, all blocks standing."""
    weights, activations = space.layer_precisions[0]
    return space.uniform(weights, activations, MOST_PRUNED)


def _decide(run: Run, path: Path) -> dict[str, Any]:
    """Train shared weights and keep them; say whether they are used, and why."""
    try:
        shared = _train(run)
    except (StorageError, StudyError):
        raise
    except Exception as error:
        run.say("sharing", describe(error))
        what = "diverged" if isinstance(error, TrainingError) else f"failed: {describe(error)}"
        return {"used": False, "reason": f"the training of elastic ones {what}"}
    on = run.setup.training.elastic == "on"
    decision = {"used": True} if on else _compare(run, shared)
    shared.save(path)
    return decision


def _train(run: Run) -> SharedWeights:
    setup, total = run.setup, run.schedule.total_seconds
    run.say("sharing", "training weights that all candidates share")
    seconds = None if total is None else SHARED_SHARE * total
    images = SHARED_EPOCHS if total is None else 100.0
    return train_elastic(
        setup.model,
        setup.task,
        run.evaluator.compress,
        smallest_candidate(setup.space),
        [setup.space.sample(_seed(run, f"shared {number}")) for number in range(POOL)],
        ElasticConfig(
            images=max(1, int(images * setup.epoch_images)),
            recipe=setup.training.recipe,
            seconds=seconds,
        ),
        seed=_seed(run, "shared weights"),
        device=setup.device,
        on_step=run.watch("sharing", "what is shared"),
    )


def _proxies(
    evaluator: Evaluator, candidate: Candidate, shared: SharedWeights
) -> tuple[float, float]:
    """Return a candidate's accuracies with the original's weights and with shared ones."""
    plain = evaluator.proxy(candidate).accuracy
    evaluator.shared = shared
    try:
        return plain, evaluator.proxy(candidate).accuracy
    finally:
        evaluator.shared = None


def _compare(run: Run, shared: SharedWeights) -> dict[str, Any]:
    """Rank trained candidates by both proxies; those whose training diverges are left out."""
    evaluator, space = run.evaluator, run.setup.space
    plain, elastic, trained = [], [], []
    for number in range(COMPARED):
        drawn = space.sample(_seed(run, f"compared {number}"))
        candidate = space.canonical(replace(drawn, distill=DistillConfig()))
        try:
            accuracy = _trained_accuracy(run, candidate, number)
            proxies = _proxies(evaluator, candidate, shared)
        except (StorageError, StudyError):
            raise
        except Exception as error:  # a candidate fails alone, whatever it was
            why = describe(error)
            run.say("sharing", f"candidate {number + 1} of {COMPARED} is left out: {why}")
            continue
        trained.append(accuracy)
        plain.append(proxies[0])
        elastic.append(proxies[1])
    if len(trained) < FEWEST:
        reason = f"only {len(trained)} of {COMPARED} candidates could be trained to compare them on"
        return {"used": False, "reason": reason}
    taus = [float(np.nan_to_num(kendalltau(trained, v).statistic)) for v in (plain, elastic)]
    return {
        "used": taus[1] > taus[0],
        "plain": taus[0],
        "elastic": taus[1],
        "candidates": len(trained),
    }


def _trained_accuracy(run: Run, candidate: Candidate, number: int) -> float:
    """Train a candidate for a short while, and keep nothing but its accuracy."""
    slot, seconds = -1 - number, run.schedule.short_seconds
    run.evaluator.forget(slot)  # of a run that was killed after its training
    try:
        return run.evaluator.train(
            candidate,
            slot=slot,
            images=run.schedule.short_images,
            seconds=None if seconds is None else 0.5 * seconds,
            on_step=run.watch("sharing", f"candidate {number + 1} of {COMPARED}"),
            inherit=False,
        )[1].accuracy
    finally:
        run.evaluator.forget(slot)


def _seed(run: Run, purpose: str) -> int:
    return derive_seed(run.setup.seed, -1, purpose)
