"""The scale of the batch norms that channels pass through."""

import torch
from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def bn_scale_scores(subject: Subject) -> Tensor:
    """Score channels by the absolute scale of their batch norms.

    Summed over every batch norm of the group (Liu et al. 2017, "Learning
    Efficient Convolutional Networks through Network Slimming"). The paper
    trains with an L1 penalty on the scales first; without one, they tell less.
    A group without batch norm has the scale 1 throughout.
    """
    found = [sum_by_channel(scales.abs(), member) for member, scales in subject.scales()]
    return torch.stack(found).sum(dim=0) if found else torch.ones_like(subject.blank())
