"""The L1 norm of filters."""

import torch
from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def l1_scores(subject: Subject) -> Tensor:
    """Score channels by the L1 norm of the filters that produce them.

    Summed over every producing layer of the group (Li et al. 2017, "Pruning
    Filters for Efficient ConvNets", section 3.1).
    """
    scores = subject.blank()
    for member, rows in subject.producers():
        scores += sum_by_channel(rows.abs().sum(dim=1, dtype=torch.float64), member)
    return scores
