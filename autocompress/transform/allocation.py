"""How many channels each group loses when all groups compete for the same ranking."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import ArrayLike

from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError, explain
from autocompress.space.choices import achieved_ratios
from autocompress.transform.ranks import Ranks, remaining

LEAST_KEPT = 0.1
"""Fraction of a group's channels that stays whatever its scores are."""

STEPS = 65
"""Ratios of each group, before rounding, where no space lists them."""


def global_ratios(
    scores: Mapping[str, ArrayLike],
    choices: Mapping[str, Sequence[float]],
    fraction: float,
    *,
    least_kept: float = LEAST_KEPT,
) -> dict[str, float]:
    """Remove a fraction of all channels, the least important first, wherever they are.

    Scores are divided by the mean of their group, so that groups of other
    sizes and scales compare (Fang et al. 2023, "DepGraph", section 3.4, with
    the mean over all channels). Channels go in the steps between a group's
    choices, by the mean score of a step. No group goes below its last choice
    or `least_kept`, since a ranking across layers may otherwise empty one and
    cut the network in two (layer collapse, Tanaka et al. 2020, "SynFlow").
    The local alternative, one ratio for all, is `BoundSpace.uniform`.

    Args:
        scores: Group name to one score >= 0 per channel; the lowest go first.
        choices: Group name to the ratios that it may take, ascending from
            0.0; they keep multiples of `round_to` channels.
        fraction: Fraction of the channels of all those groups to remove, [0, 1).
        least_kept: Fraction of each group that stays, [0, 1].

    Returns:
        A choice for every group. Together they remove the fraction to within
        one step, or all that may go if that is less.

    Raises:
        InvalidInputError: If a fraction is out of range, or scores are not
            finite, negative or missing.

    Example:
        >>> scores = {"a": [1.0, 1.0, 1.0, 1.0], "b": [0.1, 0.1, 2.0, 2.0]}
        >>> global_ratios(scores, {"a": (0.0, 0.5), "b": (0.0, 0.5)}, 0.25)
        {'a': 0.0, 'b': 0.5}
    """
    if not (0.0 <= fraction < 1.0 and 0.0 <= least_kept <= 1.0):
        raise InvalidInputError(
            explain(
                "global pruning",
                expected="a fraction in [0, 1) and a kept fraction in [0, 1]",
                got=(fraction, least_kept),
                remedy="choose values in those ranges",
            )
        )
    steps: list[tuple[float, int, str, float]] = []
    total = 0
    for name, ratios in choices.items():
        relative = _relative(name, scores.get(name, ()))
        total += len(relative)
        before = 0
        for ratio in ratios:
            removed = round(ratio * len(relative))
            if removed > before and len(relative) - removed >= least_kept * len(relative):
                mean = float(relative[before:removed].mean())
                steps.append((mean, removed - before, name, ratio))
                before = removed
    chosen = dict.fromkeys(choices, 0.0)
    left = fraction * total
    for _, size, name, ratio in sorted(steps, key=lambda step: step[0]):  # stable within a group
        if size > 2.0 * left:  # nearer without it
            break
        chosen[name] = ratio
        left -= size
    return chosen


def allocate_globally(ranks: Ranks, candidate: Candidate, ratio: float, unit: int) -> Candidate:
    """Let all groups of a model compete for one ranking of their channels.

    Args:
        ranks: Scores the channels of the model.
        candidate: Names the criterion and the blocks that are dropped.
        ratio: Fraction of the channels of all prunable groups to remove, [0, 1).
        unit: Kept channels are a multiple of this, as a target wishes.

    Returns:
        The candidate with the ratios that `global_ratios` chooses.

    Raises:
        InvalidInputError: If the candidate has ratios of its own, or the
            ratio is out of range.
    """
    if candidate.pruning_ratios:
        raise InvalidInputError(
            explain(
                "'pruning_ratio'",
                expected="a candidate without pruning_ratios of its own",
                got=f"ratios for {', '.join(candidate.pruning_ratios)}",
                remedy="leave one of the two out",
            )
        )
    groups = [g for g in ranks.graph.groups if g.prunable and not candidate.drops(g.name)]
    scores = {
        group.name: ranks.scores(candidate.criterion, remaining(group, candidate))
        for group in groups
    }
    choices = {
        group.name: achieved_ratios(
            group.channels, np.linspace(0.0, 1.0, STEPS), round_to=math.ceil(unit / group.width)
        )
        for group in groups
    }
    return replace(candidate, pruning_ratios=global_ratios(scores, choices, ratio))


def _relative(name: str, scores: ArrayLike) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    """Sort the scores of a group, as multiples of their mean."""
    values = np.sort(np.asarray(scores, dtype=np.float64))
    if not values.size or not np.isfinite(values).all() or values[0] < 0.0:
        raise InvalidInputError(
            explain(
                f"scores of group '{name}'",
                expected="finite numbers >= 0, one per channel",
                got="none" if not values.size else f"{values[0]:g} to {values[-1]:g}",
                remedy="score it with a criterion",
            )
        )
    mean = values.mean()
    return values / mean if mean > 0.0 else values
