"""What a model's outputs stand for, and how far those of two models are apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

CLASSES, INDEPENDENT, VALUES = "classes", "independent", "values"
"""Kinds of outputs: logits of classes that exclude each other; each a logit of its own; numbers."""

SUM_ERROR = 0.01
"""What probabilities of few digits may lack to 1."""


@dataclass(frozen=True, kw_only=True, slots=True)
class OutputForm:
    """What outputs stand for.

    Attributes:
        kind: `CLASSES`, `INDEPENDENT` or `VALUES`.
        axis: Where the classes are; -1 for the last axis.
    """

    kind: str = CLASSES
    axis: int = -1

    @classmethod
    def of(cls, outputs: Tensor, targets: Any = None) -> "OutputForm":
        """Tell the form of outputs, as far as it can be told, by the targets that they have.

        Targets of the outputs' shape make each a logit of its own if they lie
        in [0, 1], but for one whole number that is ignored, and predicted
        numbers otherwise; probabilities that add up to 1 are those of classes.
        Fractions of another shape are predicted numbers, too. Classes are on
        axis 1 where `cross_entropy` wants them there, and last otherwise. Of
        several targets, as of mixed images, the first counts.

        Args:
            outputs: One row per example.
            targets: What the task's loss compares them with; None if there are none.

        Example:
            >>> OutputForm.of(torch.zeros(2, 3, 8, 8), torch.zeros(2, 8, 8, dtype=torch.long))
            OutputForm(kind='classes', axis=1)
            >>> OutputForm.of(torch.zeros(2, 1), torch.tensor([0.0, 1.0])).kind
            'independent'
        """
        if isinstance(targets, (tuple, list)) and targets:
            targets = targets[0]
        form = cls(axis=_class_axis(outputs, targets))
        if isinstance(targets, Tensor) and targets.squeeze().shape == outputs.squeeze().shape:
            given = targets.detach().float()
            for axis in (1, -1) if outputs.dim() > 1 else ():
                sums = given.reshape(outputs.shape).sum(dim=axis)
                if outputs.shape[axis] > 1 and bool(((sums - 1.0).abs() < SUM_ERROR).all()):
                    return cls(axis=axis if outputs.dim() > 2 else -1)
            others = torch.unique(given[(given < 0.0) | (given > 1.0)])
            ignored = len(others) == 1 and not targets.is_floating_point()
            return cls(kind=INDEPENDENT if ignored or not len(others) else VALUES)
        if isinstance(targets, Tensor) and targets.is_floating_point():
            return cls(kind=VALUES)
        single = outputs.dim() < 2 or outputs.shape[form.axis] == 1
        return cls(kind=VALUES) if single else form

    def describe(self, outputs: Tensor, temperature: float = 1.0) -> Tensor:
        """Return what outputs say, softened: one row per decision.

        Args:
            outputs: One row per example.
            temperature: Softening, > 0.

        Returns:
            Log-probabilities, decisions x classes; or numbers, n x 1.
        """
        numbers = outputs.float() / temperature
        if self.kind == CLASSES:
            return numbers.movedim(self.axis, -1).flatten(0, -2).log_softmax(dim=-1)
        numbers = numbers.flatten()
        if self.kind == VALUES:
            return numbers[:, None]
        return torch.stack([F.logsigmoid(numbers), F.logsigmoid(-numbers)], dim=-1)

    def mean(self, described: Sequence[Tensor]) -> Tensor:
        """Return the mean of several descriptions: of their probabilities, or of their numbers."""
        if len(described) == 1:
            return described[0]
        stacked = torch.stack(list(described))
        if self.kind == VALUES:
            return stacked.mean(dim=0)
        return stacked.logsumexp(dim=0) - math.log(len(described))

    def divergence(self, reference: Tensor, other: Tensor) -> Tensor:
        """Return how far descriptions are apart, the mean over decisions.

        Args:
            reference: What `describe` returned.
            other: Of the same shape.

        Returns:
            KL(reference || other) in nats, or the mean squared difference of numbers.
        """
        if self.kind == VALUES:
            return F.mse_loss(other, reference)
        return F.kl_div(other, reference, reduction="batchmean", log_target=True)


def _class_axis(outputs: Tensor, targets: Any) -> int:
    """Return the axis of the classes: by the targets' shape, or as is usual."""
    if outputs.dim() < 3:
        return -1
    if isinstance(targets, Tensor):
        if targets.shape == (*outputs.shape[:1], *outputs.shape[2:]):
            return 1
        if targets.shape == outputs.shape[:-1]:
            return -1
    return 1 if outputs.dim() > 3 else -1
