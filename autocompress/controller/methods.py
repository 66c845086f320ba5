"""What a joint search is compared with: other ways to spend the same minutes, as switches."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from autocompress.space.preset import SearchSpace

Patch = Mapping[str, Mapping[str, Any]]

SEARCH, UNIFORM, SEQUENTIAL, STATIC = "search", "uniform", "sequential", "static"

_NO_PRUNING: Patch = {
    "pruning": {"ratios": [0.0]},
    "blocks": {"drop": False},
    "sparsity": {"levels": []},
}
_FLOAT: Patch = {"quantisation": {"weight_bits": [32], "activation_bits": [32]}}
_EIGHT: Patch = {"quantisation": {"weight_bits": [8], "activation_bits": [8], "ties": [["*"]]}}
_NO_TEACHER: Patch = {
    "distillation": {
        "temperature": {"low": 1.0, "high": 1.0},
        "kd_weight": {"low": 0.0, "high": 0.0},
        "method": "logits",
        "feature_weight": {"low": 0.0, "high": 0.0},
    }
}
_USUAL_TEACHER: Patch = {
    "distillation": {
        "temperature": {"low": 4.0, "high": 4.0},
        "kd_weight": {"low": 0.9, "high": 0.9},
        "method": "logits",
        "feature_weight": {"low": 0.0, "high": 0.0},
    }
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Method:
    """One way to compress a model in given minutes.

    Attributes:
        title: What it does, in a few words.
        recipe: How it is run: one search, uniform pruning, one step after the
            other, or ONNX Runtime's static quantiser.
        space: What it changes of the search space, by section and key.
        sampler: What proposes candidates.
        bare: Whether the sampler proposes all but the original and plain int8; no designs of ours.
        objectives: What is optimised; None as in the joint search.
        training: What it changes of the training, by key.
    """

    title: str
    recipe: str = SEARCH
    space: Patch = field(default_factory=dict)
    sampler: str = "joint"
    bare: bool = False
    objectives: tuple[str, ...] | None = None
    training: Mapping[str, Any] = field(default_factory=dict)

    def space_of(self, space: SearchSpace) -> SearchSpace:
        """Return the search space with the changes of this method."""
        return patched(space, self.space)


METHODS: Mapping[str, Method] = {
    "joint": Method(title="joint search"),
    "random": Method(title="joint space, random candidates", sampler="random", bare=True),
    "sequential": Method(
        title="prune, then int8, then distil (T 4, weight 0.9)",
        recipe=SEQUENTIAL,
        space=_USUAL_TEACHER,
    ),
    "uniform": Method(
        title="uniform pruning at several ratios, fine-tuned, int8",
        recipe=UNIFORM,
        space={**_NO_TEACHER, "blocks": {"drop": False}},
    ),
    "int8": Method(title="ONNX Runtime static int8", recipe=STATIC),
    "pruning-only": Method(title="pruning only, fp32", space=_FLOAT),
    "pruning-int8": Method(title="pruning, 8 bits everywhere", space=_EIGHT),
    "bits-only": Method(title="bits only", space=_NO_PRUNING),
    "no-distillation": Method(title="no distillation", space=_NO_TEACHER),
    "fixed-distillation": Method(
        title="distillation fixed at T 4, weight 0.9", space=_USUAL_TEACHER
    ),
    "no-predictor": Method(title="NSGA-II in place of the predictor", sampler="nsga2"),
    "elastic": Method(title="elastic weights", training={"elastic": "on"}),
    "no-elastic": Method(title="no elastic weights", training={"elastic": "off"}),
    "no-blocks": Method(title="no block dropping", space={"blocks": {"drop": False}}),
    "macs": Method(
        title="bit operations in place of latency", space=_EIGHT, objectives=("accuracy", "bops")
    ),
}
"""The methods by name; the first five are what a user would try."""

USUAL = ("joint", "random", "sequential", "uniform", "int8")
"""Names of the methods that are compared if none are named."""

PRUNING_STEP: Patch = {**_FLOAT, **_NO_TEACHER}
"""What the first step of the sequential recipe changes: it prunes and does nothing else."""


def patched(space: SearchSpace, patch: Patch) -> SearchSpace:
    """Return a search space with other values for some keys.

    Example:
        >>> patched(SearchSpace.load("cnn"), {"blocks": {"drop": False}}).blocks.drop
        False
    """
    content = space.model_dump(mode="json")
    for section, values in patch.items():
        content[section] = content[section] | dict(values)
    return SearchSpace.load(content)
