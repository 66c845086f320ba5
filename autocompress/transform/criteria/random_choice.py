"""Random scores: what every other criterion must beat."""

import torch
from torch import Tensor

from autocompress.core.seeds import derive_seed
from autocompress.transform.criteria.subject import Subject


def random_scores(subject: Subject) -> Tensor:
    """Score channels at random, the same for the same seed and group.

    Random channels are a strong baseline once the network is fine-tuned
    (Mittal et al. 2018, "Recovering from Random Pruning").
    """
    seed = derive_seed(subject.seed, -1, f"random channels of {subject.group.name}")
    generator = torch.Generator().manual_seed(seed)
    return torch.rand(subject.group.channels, dtype=torch.float64, generator=generator)
