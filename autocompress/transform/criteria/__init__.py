"""How channels are ranked within a group: criteria by name."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from autocompress.core.plugins import load_plugin, plugin_names
from autocompress.core.schema import check_name
from autocompress.errors import InvalidInputError, explain
from autocompress.transform.criteria.apoz import apoz_scores
from autocompress.transform.criteria.bn_scale import bn_scale_scores
from autocompress.transform.criteria.evidence import Evidence, gather_evidence
from autocompress.transform.criteria.fpgm import fpgm_scores
from autocompress.transform.criteria.group_norm import group_norm_scores
from autocompress.transform.criteria.hessian import hessian_scores
from autocompress.transform.criteria.l1 import l1_scores
from autocompress.transform.criteria.l2 import l2_scores
from autocompress.transform.criteria.random_choice import random_scores
from autocompress.transform.criteria.subject import Score, Subject
from autocompress.transform.criteria.taylor import taylor_scores
from autocompress.transform.criteria.thinet import thinet_scores

__all__ = [
    "CRITERIA",
    "Criterion",
    "Evidence",
    "Score",
    "Subject",
    "find_criterion",
    "gather_evidence",
]


@dataclass(frozen=True, kw_only=True, slots=True)
class Criterion:
    """One way to rank channels.

    Attributes:
        score: Scores the channels of a group; the lowest goes first.
        needs: What it reads: the weights alone, inputs of layers too, or
            gradients of a loss on labels.
    """

    score: Score
    needs: Literal["weights", "inputs", "labels"] = "weights"


CRITERIA: Mapping[str, Criterion] = {
    "random": Criterion(score=random_scores),
    "l1": Criterion(score=l1_scores),
    "l2": Criterion(score=l2_scores),
    "group_norm": Criterion(score=group_norm_scores),
    "bn_scale": Criterion(score=bn_scale_scores),
    "taylor": Criterion(score=taylor_scores, needs="labels"),
    "hessian": Criterion(score=hessian_scores, needs="labels"),
    "apoz": Criterion(score=apoz_scores, needs="inputs"),
    "fpgm": Criterion(score=fpgm_scores),
    "thinet": Criterion(score=thinet_scores, needs="inputs"),
}
"""Criteria by the names that candidates use."""


def find_criterion(name: str) -> Criterion:
    """Look a criterion up.

    Raises:
        InvalidInputError: If there is none of that name.
    """
    check_name("criterion", name, (*CRITERIA, *plugin_names("criteria")))
    return CRITERIA[name] if name in CRITERIA else load_plugin("criteria", name, Criterion)


def check_evidence(name: str, evidence: Evidence) -> None:
    """Refuse a criterion that reads what was not observed.

    Raises:
        InvalidInputError: With what is needed.
    """
    needs = find_criterion(name).needs
    if needs == "labels" and not evidence.saliency:
        expected, remedy = "a task whose labels give a loss", "pass task="
    elif needs == "inputs" and not evidence.zeros:
        expected, remedy = "inputs to observe layers on", "pass task= or calibration="
    else:
        return
    raise InvalidInputError(
        explain(
            f"criterion '{name}'",
            expected=expected,
            got="none",
            remedy=f"{remedy}, or choose a criterion that reads weights alone, such as 'l1'",
        )
    )
