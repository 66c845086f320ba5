"""First-order Taylor expansion of the loss: gradient times weight."""

from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def taylor_scores(subject: Subject) -> Tensor:
    """Score channels by the squared change of the loss when their filters are zeroed.

    To first order, that is (sum over the filter of gradient x weight)^2,
    averaged over batches and summed over every producing layer (Molchanov et
    al. 2019, "Importance Estimation for Neural Network Pruning", equation 8).
    """
    scores = subject.blank()
    for member, _ in subject.producers():
        if member.module in subject.evidence.saliency:
            scores += sum_by_channel(subject.evidence.saliency[member.module], member)
    return scores
