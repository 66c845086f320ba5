"""How often channels are zero."""

import torch
from torch import Tensor

from autocompress.transform.criteria.subject import Subject, sum_by_channel


def apoz_scores(subject: Subject) -> Tensor:
    """Score channels by how often they are not zero where they are read.

    One minus the average percentage of zeros (Hu et al. 2016, "Network
    Trimming"), observed at the inputs of the layers that read the channels,
    and averaged over those layers. It says nothing where no activation is
    ever exactly zero, as after GELU: all channels then score alike.
    """
    found = []
    for member, zeros in subject.consumers(subject.evidence.zeros):
        counts = sum_by_channel(torch.ones_like(zeros), member)
        found.append(1.0 - sum_by_channel(zeros, member) / counts.clamp_min(1.0))
    return torch.stack(found).mean(dim=0) if found else subject.blank()
