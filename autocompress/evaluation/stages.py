"""The stages of a training: ever smaller candidates, and who teaches them."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from autocompress.core.candidate import UNIFORM, Candidate
from autocompress.core.sparsity import UNSTRUCTURED
from autocompress.core.target import FLOAT
from autocompress.core.training import TrainingConfig
from autocompress.evaluation.finetune import FineTuneConfig
from autocompress.evaluation.teaching import BOTH, CO_STUDY, LABELS
from autocompress.graph.structure import ModelGraph
from autocompress.graph.widths import removed_channels

SHORTEST = 1e-3
"""Seconds that a stage is given where no time is left."""

ASSISTANT_SHARE = 1 / 3
"""Share of the training in which an assistant is taught."""

LESSONS = {
    "throughout": (BOTH,),
    "first": (BOTH, LABELS),
    "last": (LABELS, BOTH),
    "qkd": (LABELS, CO_STUDY, BOTH),
}
"""Lessons of equal length, by when the teacher teaches."""

GRIDS = {"throughout": (True,), "last": (False, True), "after": (False,)}
"""Whether narrow grids are on, in parts of equal length."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One candidate on the way, and how far it is trained.

    Attributes:
        candidate: What the model is cut to.
        begins: Share of the training images before it, [0, 1).
        ends: Share of the training images up to its end, (0, 1].
        lesson: What it learns from; see `Teaching`.
        quantised: Whether narrow grids are on.
    """

    candidate: Candidate
    begins: float
    ends: float
    lesson: str = BOTH
    quantised: bool = True

    def steps(self, on_step: Callable[[float], None]) -> Callable[[float], None]:
        """Return a callback for the stage that tells another the share of the whole."""
        return lambda share: on_step(self.begins + share * (self.ends - self.begins))


def plan_stages(
    candidate: Candidate, training: TrainingConfig, graph: ModelGraph
) -> tuple[Stage, ...]:
    """List the stages from the original to a candidate.

    The cuts of the schedule, the lessons and the bits each divide the images
    in their own way. Neighbours that are alike in all three are one stage, so that a
    candidate of which nothing is cut may have a single one.

    Args:
        candidate: Where to end.
        training: The schedule.
        graph: Structure of the original.

    Returns:
        At least one stage; the last one's candidate is the given one, its
        ratios as achieved after rounding.
    """
    shares = training.image_shares()
    cuts = [cut_partly(candidate, share, graph) for share in training.cut_shares()]
    cut_ends = [round(sum(shares[: number + 1]), 12) for number in range(len(shares) - 1)]
    lessons, grids = LESSONS[training.teach], GRIDS[training.quantise]
    ends = {*cut_ends, *_equal_ends(lessons), *_equal_ends(grids), 1.0}
    planned: list[Stage] = []
    begins = 0.0
    for end in sorted(ends):
        middle = 0.5 * (begins + end)
        stage = Stage(
            candidate=cuts[sum(cut_end < middle for cut_end in cut_ends)],
            begins=begins,
            ends=end,
            lesson=lessons[int(middle * len(lessons))],
            quantised=grids[int(middle * len(grids))],
        )
        if planned and replace(stage, begins=planned[-1].begins) == replace(planned[-1], ends=end):
            planned[-1] = replace(planned[-1], ends=end)
        else:
            planned.append(stage)
        begins = end
    return tuple(planned)


def _equal_ends(parts: tuple[object, ...]) -> list[float]:
    """Return where parts of equal length end, but for the last."""
    return [round(number / len(parts), 12) for number in range(1, len(parts))]


def assistant_of(candidate: Candidate, graph: ModelGraph) -> Candidate:
    """Return a candidate halfway to another: half of its cut, and twice its bits.

    Args:
        candidate: Whom the assistant will teach.
        graph: Structure of the original.
    """
    half = cut_partly(candidate, 0.5, graph)
    layers = {
        name: replace(
            config,
            weight_bits=min(8, 2 * config.weight_bits) if config.weight_bits != FLOAT else FLOAT,
            weight_format=UNIFORM,
        )
        for name, config in half.layers.items()
    }
    return replace(half, layers=layers).canonical()


def cut_partly(candidate: Candidate, share: float, graph: ModelGraph) -> Candidate:
    """Make part of a candidate's cut.

    Ratios and unstructured sparsity are multiplied by the share, of the
    blocks that many are dropped, the first ones; N:M sparsity waits
    for the end, since it has no half.

    Args:
        candidate: The whole cut.
        share: How much of it, [0, 1].
        graph: Structure of the original.
    """
    candidate = candidate.canonical()
    dropped = {graph.block(name).name for name in candidate.dropped_blocks}
    blocks = [block.name for block in graph.blocks if block.name in dropped]
    ratios = {}
    for name, ratio in candidate.pruning_ratios.items():
        group = graph.group(name)
        ratios[name] = removed_channels(group, share * ratio) / group.channels
    layers = {}
    for name, config in candidate.layers.items():
        partial = share * config.sparsity if config.sparsity_pattern == UNSTRUCTURED else 0.0
        masked = replace(config, sparsity=partial, sparsity_pattern=UNSTRUCTURED)
        layers[name] = config if share == 1.0 else masked
    return replace(
        candidate,
        pruning_ratios=ratios,
        dropped_blocks=tuple(blocks[: int(share * len(blocks) + 0.5)]),
        layers=layers,
    ).canonical()


def stage_config(
    stage: Stage,
    training: TrainingConfig,
    *,
    images: int,
    trained: int,
    seconds: float | None,
) -> FineTuneConfig:
    """Return how long and how fast a stage is trained.

    Args:
        stage: The stage.
        training: The schedule; its penalties end before the last stage.
        images: Training images of all stages.
        trained: Those that earlier stages saw.
        seconds: Wall time left for this stage and the later ones; None for no limit.
    """
    last = stage.ends == 1.0
    if seconds is not None:
        share = (stage.ends - stage.begins) / (1.0 - stage.begins)
        seconds = max(share * seconds, SHORTEST)
    return FineTuneConfig(
        images=max(0, round(stage.ends * images) - trained),
        seconds=seconds,
        cycle=(0.0, 1.0) if training.rewind else (stage.begins, stage.ends),
        norm_l1=0.0 if last else training.norm_l1,
        group_lasso=0.0 if last else training.group_lasso,
        learned_steps=training.learned_steps,
        recipe=training.recipe if last else replace(training.recipe, patience=0),
        quantised=stage.quantised,
        lesson=stage.lesson,
        self_taught=training.teacher == "self" and stage.lesson != LABELS,
    )
