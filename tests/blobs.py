"""A problem that a small network learns in a moment: points around class centres."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.evaluation.task import Task
from zoo import Mlp

FEATURES, CLASSES = 12, 4

Batches = list[tuple[Tensor, Tensor]]


def batches(count: int, size: int, *, seed: int, noise: float = 0.6) -> Batches:
    """Draw batches of points and their classes; centres are always the same."""
    generator = torch.Generator().manual_seed(100 + seed)
    centres = torch.randn(CLASSES, FEATURES, generator=torch.Generator().manual_seed(7))
    drawn = []
    for _ in range(count):
        labels = torch.randint(CLASSES, (size,), generator=generator)
        points = centres[labels] + noise * torch.randn(size, FEATURES, generator=generator)
        drawn.append((points, labels))
    return drawn


def make_task() -> Task:
    """Return 512 training, 256 validation and 256 test points."""
    return Task(
        train=batches(8, 64, seed=0), val=batches(4, 64, seed=1), test=batches(4, 64, seed=2)
    )


def trained_model(task: Task, seed: int = 0) -> nn.Module:
    """Train a small network until it is right nearly always."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = Mlp(FEATURES, 16, CLASSES)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(10):
        for points, labels in task.train:
            optimiser.zero_grad()
            functional.cross_entropy(model(points), labels).backward()
            optimiser.step()
    optimiser.zero_grad()
    return model.eval()
