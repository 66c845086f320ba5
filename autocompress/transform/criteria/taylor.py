"""First-order Taylor expansion of the loss: gradient times weight."""

import torch
from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def taylor_scores(subject: Subject) -> Tensor:
    """Score channels by the squared change of the loss when they are removed.

    To first order, that is the sum of gradient x weight over all weights that
    read the channel, in every layer that does, squared and averaged over
    batches: the gate behind the batch norm of Molchanov et al. 2019
    ("Importance Estimation for Neural Network Pruning", equation 8), for the
    whole coupled group. What is zero there is removed there, batch norms
    included; a zero filter would still leave the shift of its batch norm.
    """
    changes = [
        sum_by_channel(sums, member)
        for member, sums in subject.consumers(subject.evidence.saliency)
    ]
    return torch.stack(changes).sum(dim=0).square().mean(dim=0) if changes else subject.blank()
