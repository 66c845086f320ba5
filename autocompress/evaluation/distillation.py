"""What a teacher tells beside labels: losses between its outputs or features and a student's."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from autocompress.evaluation.outputs import OutputForm

ANGLE_WEIGHT = 2.0
"""Weight of angles beside distances in `relation_loss`, as in its paper."""

SMALLEST = 1e-8
"""Norms below it count as it, so that gradients stay finite."""


def distillation_loss(
    student: Tensor,
    teachers: Tensor | Sequence[Tensor],
    temperature: float,
    form: OutputForm = OutputForm(),  # noqa: B008  frozen
) -> Tensor:
    """Return T^2 KL(teacher || student) of softened outputs (Hinton et al. 2015).

    Several teachers speak with the mean of their softened probabilities. Of
    predicted numbers it is the mean squared difference.

    Args:
        student: Outputs, such as logits, n x classes.
        teachers: Outputs of the same shape, of one teacher or of each.
        temperature: Softening, > 0.
        form: What the outputs stand for.

    Returns:
        The mean over decisions, scaled by T^2 so that gradients keep their size.
    """
    given = (teachers,) if isinstance(teachers, Tensor) else tuple(teachers)
    target = form.mean([form.describe(outputs, temperature) for outputs in given])
    return form.divergence(target, form.describe(student, temperature)) * temperature**2


def hint_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Return half the mean squared difference of features (FitNets, Romero et al. 2015, eq. 3).

    Args:
        student: Features, mapped to the teacher's channels.
        teacher: Features of the same shape.
    """
    return 0.5 * F.mse_loss(student.float(), teacher.float())


def attention_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare where features are large (attention transfer, Zagoruyko and Komodakis 2017).

    A map of attention is the mean square over the channels, one number per
    position, scaled to length 1. The loss is the squared distance of the maps.

    Args:
        student: Features, n x positions x channels.
        teacher: Features of the same positions, with any channels.

    Returns:
        The mean over examples.
    """
    one, other = (
        F.normalize(features.float().square().mean(dim=-1), dim=1, eps=SMALLEST)
        for features in (student, teacher)
    )
    return (one - other).square().sum(dim=1).mean()


def relation_loss(student: Tensor, teacher: Tensor) -> Tensor:
    """Compare how examples lie to each other (relational distillation, Park et al. 2019).

    Huber losses on the distances of all pairs as multiples of their mean, and
    on the angles of all triples, which weigh twice as much.

    Args:
        student: One embedding per example, n x channels.
        teacher: Likewise, with any channels; n alike.
    """
    own, taught = student.float(), teacher.float()
    with torch.autocast(own.device.type, enabled=False):  # which makes products bfloat16
        distance = F.smooth_l1_loss(_relative_distances(own), _relative_distances(taught))
        return distance + ANGLE_WEIGHT * F.smooth_l1_loss(_angles(own), _angles(taught))


def _relative_distances(rows: Tensor) -> Tensor:
    """Return n x n distances as multiples of the mean over pairs of different examples."""
    squared = (rows[:, None] - rows[None]).square().sum(dim=-1)
    others = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
    distances = torch.where(others, squared.clamp_min(SMALLEST**2).sqrt(), 0.0)
    count = max(1, int(others.sum()))
    return distances / (distances.sum() / count).clamp_min(SMALLEST)


def _angles(rows: Tensor) -> Tensor:
    """Return n x n x n cosines of the angles at the second example of each triple."""
    rays = F.normalize(rows[:, None] - rows[None], dim=-1, eps=SMALLEST)
    return torch.einsum("ijd,kjd->ijk", rays, rays)
