"""Trained weights of candidates, kept so that no training is done twice."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from autocompress.core.files import write_atomic
from autocompress.errors import StudyError, explain
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import SurgeryRecord


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Where the trained weights of one candidate lie.

    Attributes:
        path: The safetensors file.
        record: The surgery that the weights belong to.
        trained_images: Training images that the weights have seen since the cut.
    """

    path: Path
    record: SurgeryRecord
    trained_images: int


def save_checkpoint(model: CompressedModel, path: Path, trained_images: int) -> Checkpoint:
    """Write the weights and the record of a trained model, atomically."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in model.network.state_dict().items()
    }
    metadata = {"record": model.record.to_json(), "trained_images": str(trained_images)}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    return Checkpoint(path=path, record=model.record, trained_images=trained_images)


def list_checkpoints(folder: Path) -> list[Checkpoint]:
    """Read what a folder of checkpoints holds, sorted by file name.

    Raises:
        StudyError: If a file is damaged.
    """
    found = []
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with safetensors.safe_open(path, framework="pt") as file:
                metadata = file.metadata() or {}
            found.append(
                Checkpoint(
                    path=path,
                    record=SurgeryRecord.from_json(metadata["record"]),
                    trained_images=int(metadata["trained_images"]),
                )
            )
        except (SafetensorError, KeyError, TypeError, ValueError) as error:
            raise StudyError(
                explain(
                    f"checkpoint '{path}'",
                    expected="weights that this study wrote",
                    got=error,
                    remedy="delete the file; its candidate is trained again",
                )
            ) from error
    return found


def load_weights(model: CompressedModel, checkpoint: Checkpoint) -> None:
    """Copy a checkpoint's weights into a model of the same or a smaller structure."""
    state: Mapping[str, Tensor] = load_file(checkpoint.path)
    own = model.network.state_dict()
    model.network.load_state_dict({name: state[name] for name in own})


def find_ancestor(model: CompressedModel, checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """Find trained weights that a freshly cut model can start from.

    A checkpoint fits when its candidate is the same, or when it dropped only
    blocks that the model drops too and cut the rest alike. Of those, the
    one with the most blocks dropped, then the most training, is closest.

    Args:
        model: A model after surgery.
        checkpoints: Trained candidates of the same study.

    Returns:
        The closest fitting checkpoint, or None.
    """
    fitting = [c for c in checkpoints if _fits(c.record, model.record)]
    return max(
        fitting,
        key=lambda c: (len(c.record.dropped_blocks), c.trained_images, str(c.path)),
        default=None,
    )


def _fits(parent: SurgeryRecord, child: SurgeryRecord) -> bool:
    if not set(parent.dropped_blocks) <= set(child.dropped_blocks):
        return False
    return {c for c in parent.cuts if not child.candidate.drops(c.module)} == set(child.cuts)
