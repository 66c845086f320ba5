"""The L2 norm of filters."""

from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def l2_scores(subject: Subject) -> Tensor:
    """Score channels by the L2 norm of the filters that produce them.

    Summed over every producing layer of the group (He et al. 2018, "Soft
    Filter Pruning for Accelerating Deep Convolutional Neural Networks").
    """
    scores = subject.blank()
    for member, rows in subject.producers():
        scores += sum_by_channel(rows.double().square().sum(dim=1).sqrt(), member)
    return scores
