"""A search of a tiny network that the chaos test starts, kills and starts again.

python chaos_search.py STUDY_DIR TRIALS EXECUTOR [--die "commit 70" | "write 9" | "export 4"]
    [--workers N] [--address HOST:PORT] [--storage URL]
"""

import argparse
import itertools
import os
import signal
import sys
from pathlib import Path
from typing import Any

import sqlalchemy
import torch
from torch import nn

import autocompress as ac
from autocompress.controller import finish, schedule


class Net(nn.Module):
    """Two convolutions and a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 16, 3, padding=1)
        self.fc = nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Classify images by their colour."""
        x = torch.relu(self.conv2(torch.relu(self.conv1(x))))
        return self.fc(x.amax((2, 3)))


def batches(count: int, seed: int) -> list[tuple[torch.Tensor, torch.Tensor]]:
    """Draw images whose first channel tells the class."""
    generator = torch.Generator().manual_seed(seed)
    found = []
    for _ in range(count):
        labels = torch.randint(4, (32,), generator=generator)
        images = 0.3 * torch.randn(32, 3, 8, 8, generator=generator)
        images[:, 0] += labels.view(-1, 1, 1)
        found.append((images, labels))
    return found


def die(point: str, folder: Path) -> None:
    """Have this process killed at a certain event, just before it takes effect.

    Args:
        point: Which: the n-th commit to the study, the n-th file of the folder that is moved to
            its place, or the n-th change below its `front`.
        folder: The study's folder.
    """
    kind, number = point.split()
    left = itertools.count(int(number) - 1, -1)

    def strike(*_: object) -> None:
        if next(left) == 0:
            os.kill(os.getpid(), signal.SIGKILL)

    def hear(event: str, given: tuple[Any, ...]) -> None:
        is_move = event == "os.rename"
        if kind == "export" and (is_move or event in ("os.mkdir", "os.remove", "tempfile.mkstemp")):
            if str(folder / "front") in str(given[is_move]):
                strike()
        elif kind == "write" and is_move and str(folder) in str(given[1]):
            strike()

    if kind == "commit":
        sqlalchemy.event.listen(sqlalchemy.Engine, "commit", strike)
    else:
        sys.addaudithook(hear)


def main() -> None:
    """Search, or continue."""
    torch.set_num_threads(1)
    schedule.SHORT_IMAGES = schedule.FULL_IMAGES = 64
    finish.FINALISTS = finish.MOST_FINALISTS = finish.FEWEST_FINALISTS = 2
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("trials", type=int)
    parser.add_argument("executor")
    parser.add_argument("--die")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--address")
    parser.add_argument("--storage")
    given = parser.parse_args()
    if given.die:
        die(given.die, given.folder)
    torch.manual_seed(0)
    model = Net().eval()
    executor = ac.Executor(name=given.executor)
    if given.executor == "ray":
        executor = ac.Executor(
            name="ray", workers=given.workers, address=given.address, seconds_per_trial=300.0
        )
    ac.search(
        model,
        ac.Task(train=batches(2, 0), val=batches(2, 1), test=batches(2, 2)),
        target="bit-serial",
        budget=ac.Budget(trials=given.trials),
        study_dir=given.folder,
        executor=executor,
        storage=given.storage,
        sampler="tpe",
        verbose=False,
    )


if __name__ == "__main__":
    main()
