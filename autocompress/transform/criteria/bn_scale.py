"""The scale of the batch norms that channels pass through."""

import torch
from torch import Tensor, nn

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def bn_scale_scores(subject: Subject) -> Tensor:
    """Score channels by the absolute scale of their batch norms.

    Summed over every batch norm of the group (Liu et al. 2017, "Learning
    Efficient Convolutional Networks through Network Slimming"). The paper
    trains with an L1 penalty on the scales first; without one, they tell less.
    A group without batch norm has the scale 1 throughout.
    """
    scores, found = subject.blank(), False
    for member in subject.group.members:
        module = subject.modules[member.module]
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and member.axis == "out":
            scale = module.weight
            values = torch.ones(module.num_features) if scale is None else scale.detach().cpu()
            scores += sum_by_channel(values.abs(), member)
            found = True
    return scores if found else torch.ones_like(scores)
