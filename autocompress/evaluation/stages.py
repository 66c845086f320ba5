"""The ever smaller candidates that a training schedule goes through."""

from collections.abc import Callable
from dataclasses import dataclass, replace

from autocompress.core.candidate import Candidate
from autocompress.core.sparsity import UNSTRUCTURED
from autocompress.core.training import TrainingConfig
from autocompress.evaluation.finetune import FineTuneConfig
from autocompress.graph.structure import ModelGraph
from autocompress.graph.widths import removed_channels

SHORTEST = 1e-3
"""Seconds that a stage is given where no time is left."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Stage:
    """One candidate on the way, and how far it is trained.

    Attributes:
        candidate: What the model is cut to.
        begins: Share of the training images before it, [0, 1).
        ends: Share of the training images up to its end, (0, 1].
    """

    candidate: Candidate
    begins: float
    ends: float

    def steps(self, on_step: Callable[[float], None]) -> Callable[[float], None]:
        """Return a callback for the stage that tells another the share of the whole."""
        return lambda share: on_step(self.begins + share * (self.ends - self.begins))


def plan_stages(
    candidate: Candidate, training: TrainingConfig, graph: ModelGraph
) -> tuple[Stage, ...]:
    """List the stages from the original to a candidate.

    Stages that would be cut alike are one, so that a candidate of which
    nothing is cut has a single stage.

    Args:
        candidate: Where to end.
        training: The schedule.
        graph: Structure of the original.

    Returns:
        At least one stage; the last one's candidate is the given one, its
        ratios as achieved after rounding.
    """
    planned: list[Stage] = []
    begins = 0.0
    shares = training.image_shares()
    for number, cut in enumerate(training.cut_shares()):
        ends = sum(shares[: number + 1]) if number + 1 < len(shares) else 1.0
        partial = cut_partly(candidate, cut, graph)
        if planned and planned[-1].candidate == partial:
            planned[-1] = replace(planned[-1], ends=ends)
        else:
            planned.append(Stage(candidate=partial, begins=begins, ends=ends))
        begins = ends
    return tuple(planned)


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
    )
