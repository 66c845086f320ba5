"""Teachers beside the original, which must answer as it does."""

from collections.abc import Sequence

import torch
from torch import nn

from autocompress.errors import InvalidInputError, explain
from autocompress.evaluation.original import frozen_copy
from autocompress.evaluation.splits import first_inputs
from autocompress.evaluation.task import Batch, Task
from autocompress.graph.inputs import ModelInputs, one_line


def freeze_teachers(
    task: Task,
    original: nn.Module,
    teachers: Sequence[nn.Module],
    batch: Batch,
    *,
    device: str = "cpu",
) -> tuple[nn.Module, ...]:
    """Copy teachers for reading, and try each on a batch.

    Args:
        task: Tells how a batch reaches a model.
        original: Frozen, on the device.
        teachers: Not changed.
        batch: Of `val`, on the device.
        device: Where the copies go.

    Raises:
        InvalidInputError: If one cannot answer, or its answers have another shape.
    """
    found = []
    with torch.inference_mode():
        expected = task.run(original, batch).shape
    for number, teacher in enumerate(teachers):
        try:
            args, kwargs = first_inputs(task, teacher, batch, device)
            frozen = frozen_copy(teacher, device, ModelInputs(args=args, kwargs=kwargs))
            with torch.inference_mode():
                said = task.run(frozen, batch).shape
        except Exception as error:  # a forward may raise anything
            raise _unfit(number, expected, one_line(error)) from error
        if said != expected:
            raise _unfit(number, expected, f"outputs {list(said)}")
        found.append(frozen)
    return tuple(found)


def _unfit(number: int, expected: torch.Size, got: str) -> InvalidInputError:
    return InvalidInputError(
        explain(
            f"'teachers', number {number}",
            expected=f"outputs {list(expected)} on a batch of val, as the original has",
            got=got,
            remedy="give a model for the same inputs and classes",
        )
    )
