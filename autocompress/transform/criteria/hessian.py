"""Second-order expansion of the loss, with a diagonal Hessian."""

from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def hessian_scores(subject: Subject) -> Tensor:
    """Score channels by the second-order change of the loss when nothing reads them.

    Half the sum of Hessian x weight^2 over all weights that read the channel,
    in every layer that does, with the Hessian taken as diagonal (LeCun et al.
    1990, "Optimal Brain Damage", equation 5). The diagonal is not that of the
    Hessian itself but of the empirical Fisher information, the mean square of
    the gradient on the given labels, estimated from the gradients of batches;
    near a minimum of a likelihood the two are alike, elsewhere they may not be.
    """
    scores = subject.blank()
    for member, values in subject.consumers(subject.evidence.curvature):
        scores += sum_by_channel(values, member)
    return scores
