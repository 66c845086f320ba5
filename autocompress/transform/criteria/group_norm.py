"""The norm of everything that is coupled to a channel."""

from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def group_norm_scores(subject: Subject) -> Tensor:
    """Score channels by the L2 norm of all parameters that go with them.

    The filters that produce the channel, the weights that read it and the
    scales of its batch norms, in all layers of the group (Fang et al. 2023,
    "DepGraph", section 3.4).
    """
    squares = subject.blank()
    for member, rows in (*subject.producers(), *subject.readers()):
        squares += sum_by_channel(rows.double().square().sum(dim=1), member)
    for member, scales in subject.scales():
        squares += sum_by_channel(scales.double().square(), member)
    return squares.sqrt()
