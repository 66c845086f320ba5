"""The packed file: weights at their searched bits, and the record to rebuild the model."""

from pathlib import Path

import numpy as np
import safetensors
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from autocompress.core.files import write_atomic
from autocompress.errors import InvalidInputError, MissingFileError, explain
from autocompress.transform.compress import rebuild_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.grids import weight_codes
from autocompress.transform.record import SurgeryRecord

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
    the activation grids beside them. Nothing in it can run code.

    Args:
        compressed: A compressed model.
        path: The file to write.

    Returns:
        Its size in bytes.
    """
    tensors: dict[str, Tensor] = {}
    for name, tensor in compressed.network.state_dict().items():
        layer = name.removesuffix(".weight")
        if name.endswith(".weight") and layer in compressed.record.quantised:
            weight = compressed.network.get_parameter(name)
            scales, bits = compressed.quantised_weight(layer, weight)
            codes = weight_codes(weight.detach(), scales, bits).to(torch.int64).cpu().numpy()
            tensors[f"{name}:codes"] = torch.from_numpy(pack_codes(codes, bits))
            tensors[f"{name}:scales"] = scales.detach().float().cpu().contiguous()
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


def _restore(compressed: CompressedModel, tensors: dict[str, Tensor]) -> None:
    state: dict[str, Tensor] = {}
    frozen: dict[str, Tensor] = {}
    for name, own in compressed.network.state_dict().items():
        if f"{name}:codes" not in tensors:
            state[name] = tensors.pop(name)
            continue
        layer = name.removesuffix(".weight")
        stream, scales = tensors.pop(f"{name}:codes").numpy(), tensors.pop(f"{name}:scales")
        codes = unpack_codes(stream, compressed.record.quantised[layer], own.numel())
        grid = torch.from_numpy(codes).reshape(own.shape).float()
        state[name] = grid * scales.reshape(-1, *([1] * (own.dim() - 1)))
        frozen[layer] = scales
    compressed.network.load_state_dict(state)
    compressed.freeze_scales(frozen)
    for number, quantiser in enumerate(compressed.quantisers):
        quantiser.set_extra_state(tensors.pop(f":grid:{number}"))
    if tensors:
        raise KeyError(f"no place for {', '.join(sorted(tensors))}")
