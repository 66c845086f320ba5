"""Distance to the geometric median of filters: what the others can stand in for."""

import torch
from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def fpgm_scores(subject: Subject) -> Tensor:
    """Score channels by the distances of their filters to all filters of the layer.

    Filters near the geometric median have the smallest sum of distances, and
    are what the rest can replace (He et al. 2019, "Filter Pruning via
    Geometric Median", equation 6). Summed over every producing layer.
    """
    scores = subject.blank()
    for member, rows in subject.producers():
        scores += sum_by_channel(torch.cdist(rows.double(), rows.double()).sum(dim=1), member)
    return scores
