"""Trained weights of candidates, kept so that no training is done twice."""

from dataclasses import dataclass, replace
from pathlib import Path

import safetensors
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autocompress.core.files import write_atomic
from autocompress.errors import StudyError, explain
from autocompress.transform.compress import rebuild_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import Cut, SurgeryRecord
from autocompress.transform.sparsity import mask_smallest
from autocompress.transform.surgery import cut_model

STEP, GRID = ":step:", ":grid:"
"""What names of learned steps begin with in a checkpoint, and those of grids that have some."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Checkpoint:
    """Where the trained weights of one candidate lie.

    Attributes:
        path: The safetensors file.
        record: The surgery that the weights belong to.
        trained_images: Training images that the weights have seen since the cut.
        fidelity: 2 after a full fine-tune, 1 after a short one.
    """

    path: Path
    record: SurgeryRecord
    trained_images: int
    fidelity: int = 1


def save_checkpoint(
    model: CompressedModel, path: Path, trained_images: int, fidelity: int = 1
) -> Checkpoint:
    """Write the weights and the record of a trained model, atomically."""
    tensors = {
        name: tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, tensor in (*model.network.state_dict().items(), *_named_steps(model))
    }
    metadata = {
        "record": model.record.to_json(),
        "trained_images": str(trained_images),
        "fidelity": str(fidelity),
    }
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    return Checkpoint(
        path=path, record=model.record, trained_images=trained_images, fidelity=fidelity
    )


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
                    fidelity=int(metadata.get("fidelity", 1)),
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


def load_weights(model: CompressedModel, checkpoint: Checkpoint, original: nn.Module) -> None:
    """Give a model the weights of a checkpoint, cut and masked further where it is smaller.

    Args:
        model: A freshly cut model that the checkpoint fits; changed in place.
        checkpoint: From `find_ancestor`.
        original: The uncut model, for its architecture.
    """
    ancestor = rebuild_model(original, checkpoint.record)
    tensors = load_file(checkpoint.path)
    learned = {
        start: {
            name.removeprefix(start): tensors.pop(name)
            for name in [*tensors]
            if name.startswith(start)
        }
        for start in (STEP, GRID)
    }
    ancestor.set_steps(learned[STEP], learned[GRID])
    ancestor.network.load_state_dict(tensors)
    inherit_weights(model, ancestor)


def inherit_weights(model: CompressedModel, parent: CompressedModel) -> None:
    """Give a model the weights of a larger one, cut and masked further.

    Args:
        model: A freshly cut model that the parent fits; changed in place.
        parent: Removed nothing that the model has; not changed.
    """
    blocks = set(model.record.dropped_blocks) - set(parent.record.dropped_blocks)
    further = further_cuts(parent.record, model.record) or ()
    smaller = cut_model(parent.network, sorted(blocks), further, model.record.branches)
    model.network.load_state_dict(smaller.state_dict())
    mask_smallest(model)
    if not further and not blocks:
        model.set_steps(dict(parent.steps.items()), parent.learned_grids())


def _named_steps(model: CompressedModel) -> list[tuple[str, Tensor]]:
    steps = [(f"{STEP}{key}", step.detach()) for key, step in model.steps.items()]
    return steps + [(f"{GRID}{key}", grid) for key, grid in model.learned_grids().items()]


def find_ancestor(model: CompressedModel, checkpoints: list[Checkpoint]) -> Checkpoint | None:
    """Find trained weights that a freshly cut model can start from.

    A checkpoint fits when all that it removed is removed from the model too.
    Of those, more training counts for more, and each block, group or layer
    that is cut or masked further takes some of its worth away.

    Args:
        model: A model after surgery.
        checkpoints: Trained candidates of the same study.

    Returns:
        The best fitting checkpoint, or None.
    """
    fitting = [c for c in checkpoints if further_cuts(c.record, model.record) is not None]
    return max(
        fitting,
        key=lambda c: (c.trained_images / (1 + _steps(c.record, model.record)), str(c.path)),
        default=None,
    )


def _steps(ancestor: SurgeryRecord, model: SurgeryRecord) -> int:
    """Count the blocks, groups and layers that the model removed further."""
    before, after = ancestor.candidate.pruning_ratios, model.candidate.pruning_ratios
    pruned = sum(ratio > before.get(name, 0.0) for name, ratio in after.items())
    masked = sum(
        model.candidate.layer(name).sparsity > ancestor.candidate.layer(name).sparsity
        for name in model.sparse
    )
    return len(set(model.dropped_blocks) - set(ancestor.dropped_blocks)) + pruned + masked


def _masked_alike(ancestor: SurgeryRecord, model: SurgeryRecord) -> bool:
    """Tell whether each layer of the model is masked at least as far as the ancestor's."""
    return all(
        model.candidate.layer(name).sparsity >= ancestor.candidate.layer(name).sparsity
        for name in ancestor.sparse
        if not model.candidate.drops(name)
    )


def further_cuts(ancestor: SurgeryRecord, model: SurgeryRecord) -> tuple[Cut, ...] | None:
    """Express the model's cuts in the ancestor's positions; None where it does not fit.

    Args:
        ancestor: What was done to the larger model.
        model: What was done to the smaller one.
    """
    if not _masked_alike(ancestor, model):
        return None
    if not set(ancestor.dropped_blocks) <= set(model.dropped_blocks):
        return None
    wanted = {(cut.module, cut.axis): cut for cut in model.cuts}
    known = {(c.module, c.axis): c for c in ancestor.cuts if not model.candidate.drops(c.module)}
    if not known.keys() <= wanted.keys():
        return None
    further = []
    for key, cut in wanted.items():
        kept = known[key].kept if key in known else tuple(range(cut.size))
        if key in known and not set(known[key].removed) <= set(cut.removed):
            return None
        gone = set(cut.removed)
        removed = tuple(index for index, position in enumerate(kept) if position in gone)
        if removed:
            further.append(replace(cut, size=len(kept), removed=removed))
    return tuple(further)
