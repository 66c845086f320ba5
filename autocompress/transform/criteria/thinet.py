"""Reconstruction of the next layer: what its output misses least."""

import torch
from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def thinet_scores(subject: Subject) -> Tensor:
    """Score channels by the error that the next layers' outputs have without them.

    Channels are removed one by one, each time the one that leaves the least
    sum over sampled outputs of (what the removed channels added to it)^2; a
    channel's score is that error, at the largest so far (Luo et al. 2017,
    "ThiNet", algorithm 1). All layers that read the channels count.
    """
    gram = torch.zeros(subject.group.channels, subject.group.channels, dtype=torch.float64)
    for member, added in subject.consumers(subject.evidence.contributions):
        parts = sum_by_channel(added, member)
        gram += parts.T @ parts
    return greedy_errors(gram)


def greedy_errors(gram: Tensor) -> Tensor:
    """Remove channels greedily by the squared norm of the sum of what they add.

    Args:
        gram: `channels x channels` inner products of what channels add.

    Returns:
        The largest error up to each channel's removal, growing a little from
        step to step so that the order of removal can be read off it.
    """
    channels = len(gram)
    left = gram.diagonal().clone()  # what removing each channel would add to the error
    scores = torch.zeros(channels, dtype=torch.float64)
    error = largest = 0.0
    for step in range(channels):
        chosen = int(left.argmin())
        error += float(left[chosen])
        largest = max(largest, error)
        scores[chosen] = largest * (1.0 + 1e-9 * step)
        left += 2.0 * gram[chosen]
        left[chosen] = torch.inf
    return scores
