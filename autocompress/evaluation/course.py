"""The training of one candidate, stage by stage, with the teachers that it needs."""

import copy
import hashlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.core.training import TrainingConfig
from autocompress.evaluation.answers import Answers
from autocompress.evaluation.checkpoints import (
    further_cuts,
    inherit_weights,
    list_checkpoints,
    load_weights,
    save_checkpoint,
)
from autocompress.evaluation.finetune import FineTuneConfig, fine_tune
from autocompress.evaluation.snapshot import Snapshots, under
from autocompress.evaluation.stages import (
    ASSISTANT_SHARE,
    Stage,
    assistant_of,
    plan_stages,
    stage_config,
)
from autocompress.evaluation.task import Batch, Task
from autocompress.evaluation.teaching import CO_STUDY
from autocompress.graph.inputs import trainable
from autocompress.graph.structure import ModelGraph
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import Cut


@dataclass(frozen=True, kw_only=True)
class Course:
    """What all stages of a training share.

    Attributes:
        candidate: What the student is in the end.
        training: The schedule.
        graph: Structure of the original.
        cut: Cuts a copy of the original to a candidate on the way.
        teachers: The original, then others.
        task: Supplies `train` and the loss.
        val: Where a recipe with patience looks.
        images: Training images of all stages.
        seconds: Wall time of all stages; None for no limit.
        seed: Returns the seed of a stage, from the images that this course saw before it.
        device: Torch device name.
        on_step: Called with the share done.
        snapshots: Where an interrupted course goes on.
        assistants: Folder of the assistants' weights.
        answers: What teachers have said already; None to ask them every time.
    """

    candidate: Candidate
    training: TrainingConfig
    graph: ModelGraph
    cut: Callable[[Candidate], CompressedModel]
    teachers: Sequence[nn.Module]
    task: Task
    val: Sequence[Batch]
    images: int
    seconds: float | None
    seed: Callable[[int], int]
    device: str
    on_step: Callable[[float], None] | None
    snapshots: Snapshots
    assistants: Path
    answers: Answers | None

    @cached_property
    def stages(self) -> tuple[Stage, ...]:
        """The stages of the student."""
        return plan_stages(self.candidate, self.training, self.graph)

    def run(self, model: CompressedModel) -> tuple[CompressedModel, int]:
        """Train a model through all stages.

        Args:
            model: Cut to the first stage; trained in place there.

        Returns:
            The model of the last stage, not settled yet, and the images that it has seen.
        """
        begun = time.monotonic()
        teacher, images = self._teacher()
        learning: nn.Module | None = None
        found, first, trained = self.snapshots.read(), 0, 0
        if found is not None:
            first, trained = found[0]["stage"]["number"], found[0]["stage"]["trained"]
        for number, stage in enumerate(self.stages):
            if stage.lesson == CO_STUDY and learning is None:
                learning = trainable(copy.deepcopy(teacher))
            if number < first:
                continue
            if number > 0:
                parent, model = model, self.cut(stage.candidate)
                if number > first:
                    inherit_weights(model, parent)
            self.snapshots.stage = {"number": number, "trained": trained}
            self.snapshots.teacher = learning
            if learning is not None and found is not None and number == first:
                learning.load_state_dict(under("taught", found[1]))
            left = None if self.seconds is None else self.seconds - (time.monotonic() - begun)
            trained += fine_tune(
                model,
                teacher if learning is None else learning,
                self.task,
                self.candidate.distill,
                stage_config(stage, self.training, images=images, trained=trained, seconds=left),
                seed=self.seed(trained),
                device=self.device,
                on_step=None if self.on_step is None else stage.steps(self.on_step),
                doomed=self._doomed(model, number),
                others=self.teachers[1:],
                val=self.val,
                snapshots=self.snapshots,
                answers=self.answers,
            )
        self.snapshots.drop()
        return model, trained

    def _doomed(self, model: CompressedModel, number: int) -> tuple[Cut, ...]:
        """Return what later stages cut, if there are penalties on it."""
        penalised = self.training.norm_l1 + self.training.group_lasso > 0.0
        if not penalised or number + 1 == len(self.stages):
            return ()
        return further_cuts(model.record, self.cut(self.stages[-1].candidate).record) or ()

    def _teacher(self) -> tuple[nn.Module, int]:
        """Return who teaches, and the images that are left for the student.

        An assistant is taught first, once for a candidate: its weights are kept. The
        student's images are the same either way.
        """
        if self.training.teacher != "assistant":
            return self.teachers[0], self.images
        assistant = self.cut(assistant_of(self.candidate, self.graph))
        images = round(ASSISTANT_SHARE * self.images)
        for known in list_checkpoints(self.assistants):
            if known.record == assistant.record:
                load_weights(assistant, known, self.teachers[0])
                assistant.quantise_activations = False  # nothing has calibrated them
                assistant.quantise_weights = any(b < 8 for b in assistant.record.quantised.values())
                return assistant, self.images - images
        seconds = None if self.seconds is None else ASSISTANT_SHARE * self.seconds
        seen = fine_tune(
            assistant,
            self.teachers[0],
            self.task,
            self.candidate.distill,
            FineTuneConfig(
                images=images,
                recipe=replace(self.training.recipe, patience=0),
                seconds=seconds,
                learned_steps=self.training.learned_steps,
            ),
            seed=self.seed(-1),
            device=self.device,
            others=self.teachers[1:],
            answers=self.answers,
        )
        name = hashlib.sha256(assistant.record.to_json().encode()).hexdigest()[:16]
        save_checkpoint(assistant, self.assistants / f"{name}.safetensors", seen)
        return assistant, self.images - images
