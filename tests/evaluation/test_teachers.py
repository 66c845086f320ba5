"""Teachers that answer as the original does, and some that do not."""

import copy

import pytest
import torch
from torch import Tensor, nn

from autocompress.errors import InvalidInputError
from autocompress.evaluation.task import Task
from autocompress.evaluation.teachers import freeze_teachers

BATCH = (torch.randn(4, 3, 8, 8), torch.tensor([0, 1, 2, 3]))


class Viewing(nn.Module):
    """Calls `view` on features, which channels-last convolutions do not allow."""

    def __init__(self, classes: int = 4) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(512, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Classify images of 8 x 8."""
        found: Tensor = self.head(self.conv(x).relu().view(len(x), -1))
        return found


def test_teachers_are_copies_in_a_format_that_they_run_in() -> None:
    task, teacher = Task([BATCH], [BATCH]), Viewing().train()
    [frozen] = freeze_teachers(task, Viewing(), [teacher], BATCH)
    assert frozen is not teacher
    assert not frozen.training
    torch.testing.assert_close(frozen(BATCH[0]), teacher(BATCH[0]))
    assert freeze_teachers(task, Viewing(), [], BATCH) == ()


def test_teachers_of_other_classes_or_inputs_are_refused_by_number() -> None:
    task = Task([BATCH], [BATCH])
    with pytest.raises(InvalidInputError, match=r"number 1.*\[4, 4\].*outputs \[4, 7\]"):
        freeze_teachers(task, Viewing(), [Viewing(), Viewing(classes=7)], BATCH)
    with pytest.raises(InvalidInputError, match=r"number 0.*RuntimeError"):
        freeze_teachers(task, Viewing(), [nn.Linear(3, 4)], BATCH)


def test_arguments_are_asked_of_a_copy() -> None:
    class Normed(Viewing):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Sequential(self.conv, nn.BatchNorm2d(8), nn.Dropout(0.5))

    task = Task([BATCH], [BATCH], forward=lambda model, batch: model(batch[0]))
    teacher = Normed().train().to(torch.bfloat16)  # which the copy is not
    before = copy.deepcopy(teacher.state_dict())
    [frozen] = freeze_teachers(task, Viewing(), [teacher], BATCH)
    assert all(torch.equal(before[name], v) for name, v in teacher.state_dict().items())
    assert teacher.training
    assert not frozen.training
