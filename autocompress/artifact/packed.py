"""The packed file: weights at their searched bits, and the record to rebuild the model."""

from pathlib import Path

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from autocompress.artifact.sparse_layout import pack_mask, unpack_mask
from autocompress.core.files import write_atomic
from autocompress.core.sparsity import stored_layout
from autocompress.core.target import FLOAT
from autocompress.errors import InvalidInputError, MissingFileError, explain
from autocompress.transform.compress import rebuild_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import SurgeryRecord
from autocompress.transform.sparsity import mask_smallest
from autocompress.transform.weights import QuantisedWeight, WeightGrid, WeightLayout

FORMAT = "autocompress-packed-1"


def pack_codes(codes: NDArray[np.int64], bits: int) -> NDArray[np.uint8]:
    """Pack signed codes into a stream of bits, most significant first.

    Args:
        codes: Integers in [-2**(bits-1), 2**(bits-1) - 1].
        bits: Bits per code, 1 to 8.

    Returns:
        Bytes; the last one is padded with zeros.

    Example:
        >>> pack_codes(np.array([-1, 0, 1]), 2)
        array([108], dtype=uint8)
    """
    unsigned = (np.asarray(codes).ravel() + 2 ** (bits - 1)).astype(np.uint8)
    stream = np.unpackbits(unsigned[:, None], axis=1)[:, 8 - bits :]
    return np.packbits(stream.ravel())


def unpack_codes(stream: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.int64]:
    """Undo `pack_codes`.

    Args:
        stream: The packed bytes.
        bits: Bits per code, 1 to 8.
        count: Number of codes.

    Example:
        >>> unpack_codes(np.array([108], dtype=np.uint8), 2, 3)
        array([-1,  0,  1])
    """
    flat = np.unpackbits(stream)[: count * bits].reshape(count, bits)
    weights = 2 ** np.arange(bits - 1, -1, -1)
    codes: NDArray[np.int64] = flat.astype(np.int64) @ weights - 2 ** (bits - 1)
    return codes


def write_packed(compressed: CompressedModel, path: Path) -> int:
    """Write the packed weights of a compressed model.

    A safetensors file: quantised weights as bit-packed codes with a float32
    scale per output channel, everything else as it is, the surgery record and
    the activation grids beside them. Of a masked layer only the kept weights
    are stored, with a bitmask or their places, where that is smaller than the
    whole layer. Nothing in it can run code.

    Args:
        compressed: A compressed model.
        path: The file to write.

    Returns:
        Its size in bytes.
    """
    tensors: dict[str, Tensor] = {}
    special = compressed.record.quantised.keys() | compressed.record.sparse.keys()
    for name, tensor in compressed.network.state_dict().items():
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in special:
            stored = _stored_weight(compressed, layer)
            tensors |= {f"{name}:{part}": value for part, value in stored.items()}
        else:
            tensors[name] = tensor.detach().cpu().clone(memory_format=torch.contiguous_format)
    for number, quantiser in enumerate(compressed.quantisers):
        tensors[f":grid:{number}"] = quantiser.get_extra_state().clone()
    metadata = {"format": FORMAT, "record": compressed.record.to_json()}
    write_atomic(path, lambda temporary: save_file(tensors, temporary, metadata=metadata))
    return path.stat().st_size


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
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        if metadata.get("format") != FORMAT:
            raise InvalidInputError(
                explain(
                    f"'{path}'",
                    expected=f"format {FORMAT}",
                    got=metadata.get("format", "another safetensors file"),
                    remedy="use a weights.packed of a front member",
                )
            )
        record = SurgeryRecord.from_json(metadata["record"])
    except (SafetensorError, KeyError, UnicodeDecodeError) as error:
        raise InvalidInputError(
            explain(f"'{path}'", expected="a packed file", got=error, remedy="export it again")
        ) from error
    compressed = rebuild_model(model, record)
    try:
        _restore(compressed, tensors)
    except (KeyError, RuntimeError, ValueError) as error:
        raise InvalidInputError(
            explain(
                f"'{path}'",
                expected="weights that fit this architecture",
                got=str(error).splitlines()[0],
                remedy="give the architecture that was compressed",
            )
        ) from error
    return compressed.eval()


def _stored_weight(compressed: CompressedModel, layer: str) -> dict[str, Tensor]:
    """Return what the file holds of a quantised or masked weight, by part."""
    weight = compressed.network.get_submodule(layer).get_parameter("weight")
    rows, bits = weight.detach().flatten(1).cpu(), FLOAT
    parts: dict[str, Tensor] = {}
    if layer in compressed.record.quantised:
        quantised = compressed.quantised_weight(layer)
        bits = quantised.grid.bits
        parts["scales"] = quantised.grid.scales.flatten().cpu().contiguous()
        rows = quantised.codes.flatten(1).cpu()
    flat = rows.flatten()
    if layer in compressed.record.sparse:
        mask = compressed.mask(layer).flatten(1).cpu()
        layout, _ = stored_layout(len(mask), mask.shape[1], int(mask.sum()), bits)
        if layout != "dense":
            packed = pack_mask(mask.numpy(), layout)
            parts |= {part: torch.from_numpy(array) for part, array in packed.items()}
            flat = rows[mask]
    if bits == FLOAT:
        return parts | {"values": flat.clone()}
    return parts | {"codes": torch.from_numpy(pack_codes(flat.to(torch.int64).numpy(), bits))}


def _restored_weight(
    compressed: CompressedModel, layer: str, own: Tensor, parts: dict[str, Tensor]
) -> Tensor:
    """Rebuild a weight from its parts in the file, and its mask."""
    count, columns = own.reshape(len(own), -1).shape
    mask = torch.ones(count, columns, dtype=torch.bool)
    places = ("mask", "counts", "columns")
    packed: dict[str, NDArray[np.uint8]] = {p: parts[p].numpy() for p in places if p in parts}
    if packed:
        mask = torch.from_numpy(unpack_mask(packed, count, columns))
    rows = torch.zeros(count, columns, dtype=parts["values"].dtype if "values" in parts else None)
    if "values" in parts:
        rows[mask] = parts["values"]
    else:
        bits = compressed.record.quantised[layer]
        codes = unpack_codes(parts["codes"].numpy(), bits, int(mask.sum()))
        rows[mask] = torch.from_numpy(codes).float()
        rows *= parts["scales"].reshape(-1, 1)
    if packed:
        compressed.set_mask(layer, mask.reshape(own.shape))
    return rows.reshape(own.shape)


def _restore(compressed: CompressedModel, tensors: dict[str, Tensor]) -> None:
    state: dict[str, Tensor] = {}
    frozen: dict[str, Tensor] = {}
    whole = []
    for name, own in compressed.network.state_dict().items():
        names = [key for key in tensors if key.startswith(f"{name}:")]
        if not names:
            state[name] = tensors.pop(name)
            continue
        layer = name.removesuffix(".weight")
        parts = {key.removeprefix(f"{name}:"): tensors.pop(key) for key in names}
        state[name] = _restored_weight(compressed, layer, own, parts)
        if "scales" in parts:
            frozen[layer] = parts["scales"]
        if layer in compressed.record.sparse and not {"mask", "counts"} & parts.keys():
            whole.append(layer)
    compressed.network.load_state_dict(state)
    for layer, scales in frozen.items():
        module, bits = compressed.network.get_submodule(layer), compressed.record.quantised[layer]
        layout = WeightLayout.of(module, compressed.record.candidate.layer(layer).group_size)
        grid = WeightGrid(bits=bits, layout=layout, scales=scales[:, None])
        codes = grid.codes(module.get_parameter("weight").detach()).to(torch.int8)
        compressed.set_quantised_weight(layer, QuantisedWeight(codes=codes, grid=grid))
    mask_smallest(compressed, whole)
    for number, quantiser in enumerate(compressed.quantisers):
        quantiser.set_extra_state(tensors.pop(f":grid:{number}"))
    if tensors:
        raise KeyError(f"no place for {', '.join(sorted(tensors))}")
