"""Lessons: what the loss of a batch is, and what is trained beside the student for it."""

from collections.abc import Sequence
from functools import partial
from types import TracebackType

import torch
from torch import Tensor, nn

from autocompress.core.candidate import DistillConfig
from autocompress.errors import InvalidInputError, explain
from autocompress.evaluation.answers import Answers
from autocompress.evaluation.batches import size
from autocompress.evaluation.compiling import Compiled
from autocompress.evaluation.distillation import (
    attention_loss,
    distillation_loss,
    hint_loss,
    relation_loss,
)
from autocompress.evaluation.features import FeatureTap, aligned, feature_points
from autocompress.evaluation.folding import folded
from autocompress.evaluation.task import Batch, Task
from autocompress.transform.compressed import CompressedModel

BOTH, LABELS, CO_STUDY = "both", "labels", "co-study"
"""Lessons: labels and teachers; labels alone; the teacher learns from the student, too."""


class Teaching:
    """The losses of a student, with hooks in it and in its teacher until the end.

    Teachers stay in eval mode. In co-study (QKD, Kim et al. 2019) the first
    one is trained with the student, on labels and on the student's softened
    outputs; its batch norms keep their statistics.

    Args:
        student: The student.
        teachers: At least one; features are those of the first.
        task: Runs models, and knows the loss.
        distill: Temperature, weights and method.
        lesson: `BOTH`, `LABELS` or `CO_STUDY`.
        example: A batch, to see which features there are; needed if some are compared.
        moving: Whether the first teacher changes while it teaches, outside co-study, too.
        compiled: Whether students without grids, and teachers whose outputs alone are read,
            run in compiled code.
        answers: What teachers have said already, where nothing else of them is needed.
    """

    def __init__(
        self,
        student: CompressedModel,
        teachers: Sequence[nn.Module],
        task: Task,
        distill: DistillConfig,
        lesson: str = BOTH,
        example: Batch | None = None,
        *,
        moving: bool = False,
        compiled: bool = False,
        answers: Answers | None = None,
    ) -> None:
        self.student, self.teachers, self.task = student, tuple(teachers), task
        self.distill, self.lesson = distill, lesson
        for teacher in self.teachers:
            teacher.eval()
        self.regressors = nn.ModuleDict()
        self.points: dict[str, bool] = {}
        self._taps: tuple[FeatureTap, ...] = ()
        self._moving = moving or lesson == CO_STUDY
        self._first: Batch | None = None
        self._readable: tuple[nn.Module, ...] = ()
        self._compiled = compiled
        self._learner: nn.Module | None = None if compiled else student
        if distill.feature_weight > 0.0 and lesson != LABELS:
            self._tap(example)
        asked = distill.kd_weight > 0.0 and lesson == BOTH and not (self._moving or self.points)
        self.answers = answers if asked else None

    def __enter__(self) -> "Teaching":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Take the hooks out."""
        for tap in self._taps:
            tap.close()
        if self._compiled:
            torch.compiler.reset()

    @property
    def trained_teacher(self) -> nn.Module | None:
        """The teacher that learns, too; None if none does."""
        return self.teachers[0] if self.lesson == CO_STUDY else None

    def loss(self, batch: Batch, mark: bytes | None = None) -> Tensor:
        """Return the loss of a batch, by whose fingerprint teachers' answers are known.

        (1 - kd_weight) x the task's loss + kd_weight x the distillation loss +
        feature_weight x that of the features; the task's loss is not asked for
        where it has no weight, so that batches need no targets then.
        """
        outputs = self.task.run(self._learning(batch), batch)
        if self.lesson == LABELS:
            return self.task.loss(outputs, batch)
        distill, loss = self.distill, outputs.new_zeros(())
        if distill.kd_weight < 1.0:
            loss = (1.0 - distill.kd_weight) * self.task.loss(outputs, batch)
        learns = self.lesson == CO_STUDY
        if distill.kd_weight > 0.0 or distill.feature_weight > 0.0 or learns:
            with torch.set_grad_enabled(learns):
                taught = self._taught(batch, mark)
            targets = [logits.detach() for logits in taught]
            form = self.task.form(outputs, batch)
            if distill.kd_weight > 0.0:
                soft = distillation_loss(outputs, targets, distill.temperature, form)
                loss = loss + distill.kd_weight * soft
            if self.points:
                loss = loss + distill.feature_weight * self._feature_loss()
            if learns:
                back = distillation_loss(taught[0], outputs.detach(), distill.temperature, form)
                loss = loss + self.task.loss(taught[0], batch) + back
        return loss

    def _learning(self, batch: Batch) -> nn.Module:
        """Return the student, in compiled code if that is wanted and can be."""
        if self._learner is None:
            swift = self.student.is_plain and not self.points
            network = self.student.network
            self._learner = Compiled(network, size(batch)) if swift else self.student
        return self._learner

    def _taught(self, batch: Batch, mark: bytes | None) -> list[Tensor]:
        """Return what each teacher says."""
        if self._first is None:
            self._first = batch
        return [
            self._ask(number, batch)
            if self.answers is None
            else self.answers.of(teacher, mark, partial(self._ask, number, batch))
            for number, teacher in enumerate(self.teachers)
        ]

    def _ask(self, number: int, batch: Batch) -> Tensor:
        return self.task.run(self._readers(self._first)[number], batch)

    def _readers(self, batch: Batch) -> tuple[nn.Module, ...]:
        """Return the teachers, with folded batch norms where only their outputs are read."""
        if not self._readable:
            kept = 1 if self._moving or self.points else 0
            others: list[nn.Module] = [
                folded(teacher, lambda model: self.task.run(model, batch))
                for teacher in self.teachers[kept:]
            ]
            if self._compiled:
                others = [Compiled(teacher, size(batch)) for teacher in others]
            self._readable = (*self.teachers[:kept], *others)
        return self._readable

    def _tap(self, example: Batch | None) -> None:
        """Put hooks where features are compared, and make what maps them to the teacher's."""
        if example is None or not (points := self._points(example)):
            raise InvalidInputError(
                explain(
                    f"distillation method '{self.distill.method}'",
                    expected="modules with features that student and teacher share",
                    got="none",
                    remedy="distil from logits, with feature_weight 0",
                )
            )
        self.points = points
        self._taps = tuple(
            FeatureTap(network, [*points]) for network in (self.student.network, self._network())
        )
        if self.distill.method != "features":
            return
        with torch.no_grad():
            for model in (self.student, self.teachers[0]):
                self.task.run(model, example)
        for name in points:
            student, teacher = self._features(name)
            channels = (student.shape[-1], teacher.shape[-1])
            regressor = nn.Linear(*channels, bias=False, device=student.device)
            if channels[0] == channels[1]:
                nn.init.eye_(regressor.weight)
            self.regressors[name.replace(".", "/")] = regressor

    def _network(self) -> nn.Module:
        """Return the first teacher with the names of the original: without what applies grids."""
        teacher = self.teachers[0]
        return teacher.network if isinstance(teacher, CompressedModel) else teacher

    def _points(self, example: Batch) -> dict[str, bool]:
        training = self.student.training
        self.student.eval()
        dropped = self.student.record.dropped_blocks
        found = feature_points(
            self._network(),
            self.student.network,
            lambda _: self.task.run(self.teachers[0], example),
            positions=self.distill.method == "attention",
        )
        self.student.train(training)
        return {name: first for name, first in found.items() if name not in dropped}

    def _features(self, name: str) -> tuple[Tensor, Tensor]:
        student, teacher = (tap.features[name] for tap in self._taps)
        return aligned(student, teacher.detach(), channels_first=self.points[name])

    def _feature_loss(self) -> Tensor:
        """Return the sum over the points; relations are those of the last one alone."""
        if self.distill.method == "relation":
            student, teacher = self._features([*self.points][-1])
            return relation_loss(student.mean(dim=1), teacher.mean(dim=1))
        terms = []
        for name in self.points:
            student, teacher = self._features(name)
            if self.distill.method == "features":
                mapped = self.regressors[name.replace(".", "/")](student)
                terms.append(hint_loss(mapped, teacher))
            else:
                terms.append(attention_loss(student, teacher))
        return torch.stack(terms).sum()
