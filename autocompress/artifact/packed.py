"""The packed file: weights at their searched bits, and the record to rebuild the model."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.artifact.container import Entry, Symbols, read_container, write_container
from autocompress.artifact.stored_weight import PLACES, read_weight, weight_entries
from autocompress.core.target import FLOAT
from autocompress.errors import InvalidInputError, MissingFileError, explain
from autocompress.transform.compress import rebuild_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import SurgeryRecord
from autocompress.transform.sparsity import mask_smallest
from autocompress.transform.weights import QuantisedWeight, WeightGrid, WeightLayout

GRIDS = ":grids"
"""Name of the entry that holds the activation grids, one per row."""


def write_packed(compressed: CompressedModel, path: Path) -> int:
    """Write the packed weights of a compressed model.

    Quantised weights are codes, Huffman-coded where that is smaller, with
    float32 scales; everything else is stored as it is, the surgery record and
    the activation grids beside it. Of a masked layer only the kept weights
    are stored, with a bitmask or the gaps between them, where that is smaller
    than the whole layer. Nothing in the file can run code.

    Args:
        compressed: A compressed model.
        path: The file to write.

    Returns:
        Its size in bytes.
    """
    entries: dict[str, Entry] = {}
    special = compressed.record.quantised.keys() | compressed.record.sparse.keys()
    first = _first_names(compressed.network)
    for name, tensor in compressed.network.state_dict().items():
        if first.get(name, name) != name:  # a weight that several share is stored once
            continue
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in special:
            stored = _stored_weight(compressed, layer)
            entries |= {f"{name}:{part}": value for part, value in stored.items()}
        else:
            entries[name] = tensor
    if len(compressed.quantisers):
        states = [quantiser.get_extra_state() for quantiser in compressed.quantisers]
        entries[GRIDS] = torch.stack(states)
    return write_container(path, entries, json.loads(compressed.record.to_json()))


def read_packed(path: Path, model: nn.Module) -> CompressedModel:
    """Rebuild a compressed model from its packed file.

    Args:
        path: A file that `write_packed` wrote.
        model: The original architecture, with any weights; not changed.

    Returns:
        The compressed model in eval mode.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If it is damaged or of another architecture.
    """
    if not path.is_file():
        raise MissingFileError(
            explain(
                f"'{path}'", expected="a packed file", got="nothing there", remedy="check the path"
            )
        )
    try:
        entries, metadata = read_container(path.read_bytes())
        record = SurgeryRecord.from_json(json.dumps(metadata))
    except (KeyError, TypeError, ValueError) as error:
        raise InvalidInputError(
            explain(f"'{path}'", expected="a packed file", got=error, remedy="export it again")
        ) from error
    compressed = rebuild_model(model, record)
    try:
        _restore(compressed, entries)
    except (IndexError, KeyError, RuntimeError, TypeError, ValueError) as error:
        raise InvalidInputError(
            explain(
                f"'{path}'",
                expected="weights that fit this architecture",
                got=str(error).splitlines()[0],
                remedy="give the architecture that was compressed",
            )
        ) from error
    return compressed.eval()


def _stored_weight(compressed: CompressedModel, layer: str) -> dict[str, Entry]:
    """Return what the file holds of a quantised or masked weight, by part."""
    weight = compressed.network.get_submodule(layer).get_parameter("weight").detach()
    mask = compressed.mask(layer) if layer in compressed.record.sparse else None
    if layer not in compressed.record.quantised:
        return weight_entries(weight, mask=mask)
    quantised = compressed.quantised_weight(layer)
    grid = quantised.grid
    parts: dict[str, Entry] = {"scales": grid.scales}
    if grid.codebook is not None:
        parts["codebook"] = grid.codebook
    return parts | weight_entries(quantised.codes, grid.levels, mask)


def _restore_weight(compressed: CompressedModel, layer: str, parts: dict[str, Entry]) -> Tensor:
    """Rebuild a weight from its parts in the file, with its grid and its mask."""
    module, config = (
        compressed.network.get_submodule(layer),
        compressed.record.candidate.layer(layer),
    )
    shape = module.get_parameter("weight").shape
    if layer in compressed.record.quantised:
        layout = WeightLayout.of(module, config.group_size)
        codebook = _tensor(parts["codebook"]) if "codebook" in parts else None
        grid = WeightGrid(
            bits=config.weight_bits,
            layout=layout,
            scales=_tensor(parts["scales"]),
            codebook=codebook,
            reduced=compressed.record.reduced and config.activation_bits != FLOAT,
        )
        codes, mask = read_weight(parts, shape, grid.levels)
        quantised = QuantisedWeight(codes=codes, grid=grid)
        compressed.set_quantised_weight(layer, quantised)
        weight = quantised.values()
    else:
        weight, mask = read_weight(parts, shape, None)
    if mask is not None:
        compressed.set_mask(layer, mask)
    return weight


def _restore(compressed: CompressedModel, entries: dict[str, Entry]) -> None:
    state: dict[str, Any] = {}
    whole = []
    first = _first_names(compressed.network)
    for name in compressed.network.state_dict():
        names = [key for key in entries if key.startswith(f"{name}:")]
        if not names and name not in entries and first.get(name, name) in state:
            state[name] = state[first[name]]
            continue
        if not names:
            state[name] = _tensor(entries.pop(name))
            continue
        layer = name.removesuffix(".weight")
        parts = {key.removeprefix(f"{name}:"): entries.pop(key) for key in names}
        state[name] = _restore_weight(compressed, layer, parts)
        if layer in compressed.record.sparse and not PLACES.keys() & parts.keys():
            whole.append(layer)
    compressed.network.load_state_dict(state)
    mask_smallest(compressed, whole)
    grids = _tensor(entries.pop(GRIDS)) if len(compressed.quantisers) else ()
    for quantiser, row in zip(compressed.quantisers, grids, strict=True):
        quantiser.set_extra_state(row)
    if entries:
        raise KeyError(f"no place for {', '.join(sorted(entries))}")


def _first_names(network: nn.Module) -> dict[str, str]:
    """Map the name of each parameter to the first that the same one has."""
    seen: dict[int, str] = {}
    every = network.named_parameters(remove_duplicate=False)
    return {name: seen.setdefault(id(parameter), name) for name, parameter in every}


def _tensor(entry: Entry) -> Tensor:
    if isinstance(entry, Symbols):
        raise ValueError("symbols where a tensor belongs")
    return entry
