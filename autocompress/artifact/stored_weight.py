"""One weight as the packed file holds it: symbols or values, and which of them are kept."""

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor

from autocompress.artifact.container import Entry, Symbols, encode_symbols
from autocompress.artifact.sparse_layout import (
    pack_bitmask,
    pack_gaps,
    unpack_bitmask,
    unpack_gaps,
)

PLACES = {"bitmask": unpack_bitmask, "gaps": unpack_gaps}
"""Entries that say which weights are kept, and how each is read."""


def weight_entries(
    weight: Tensor, levels: Tensor | None = None, mask: Tensor | None = None
) -> dict[str, Entry]:
    """Choose the smallest way to store a weight.

    Args:
        weight: Integer codes, or values where there are no levels; any shape.
        levels: All values that a code can be, ascending; None for floats.
        mask: True where a weight is kept; the others are zero.

    Returns:
        "codes", numbers of levels, or "values", of all weights or of the kept
        ones only; then with "bitmask" or "gaps".
    """
    whole = _content(weight.detach().flatten().cpu(), levels)
    if mask is None:
        return whole
    kept = mask.flatten().cpu()
    places = {"bitmask": pack_bitmask(kept.numpy()), "gaps": pack_gaps(kept.numpy())}
    name = min(places, key=lambda place: entry_bytes(places[place]))
    content = _content(weight.detach().flatten().cpu()[kept], levels)
    sparse: dict[str, Entry] = {**content, name: places[name]}
    return min(whole, sparse, key=entries_bytes)


def read_weight(
    entries: Mapping[str, Entry], shape: torch.Size, levels: Tensor | None
) -> tuple[Tensor, Tensor | None]:
    """Undo `weight_entries`.

    Args:
        entries: What it returned.
        shape: Shape of the weight.
        levels: What it was given.

    Returns:
        The weight, codes as integers, and its mask where the entries hold it.

    Raises:
        ValueError: If the entries do not fit the shape or the levels.
        KeyError: If one of them is missing.
    """
    name = next((place for place in PLACES if place in entries), None)
    count = shape.numel()
    packed = None if name is None else entries[name]
    if isinstance(packed, Tensor):
        raise ValueError(f"no symbols in '{name}'")
    content = _read_content(entries, levels)
    if name is None or packed is None:
        return content.reshape(shape), None
    mask = torch.from_numpy(PLACES[name](packed, count))
    weight = torch.zeros(count, dtype=content.dtype)
    weight[mask] = content
    return weight.reshape(shape), mask.reshape(shape)


def entry_bytes(entry: Entry) -> int:
    """Return the bytes of one entry in the file."""
    if isinstance(entry, Symbols):
        return len(encode_symbols(entry)[1])
    return entry.numel() * entry.element_size()


def entries_bytes(entries: Mapping[str, Entry]) -> int:
    """Return the bytes of all entries together."""
    return sum(entry_bytes(entry) for entry in entries.values())


def level_bits(levels: Tensor) -> int:
    """Return the bits of the number of a level.

    Example:
        >>> level_bits(torch.arange(-1, 2))
        2
    """
    return max(1, (len(levels) - 1).bit_length())


def _content(flat: Tensor, levels: Tensor | None) -> dict[str, Entry]:
    if levels is None:
        return {"values": flat.clone()}
    numbers = torch.searchsorted(levels.cpu().float(), flat.float())
    return {"codes": Symbols(numbers.numpy().astype(np.uint8), level_bits(levels))}


def _read_content(entries: Mapping[str, Entry], levels: Tensor | None) -> Tensor:
    content = entries["values" if levels is None else "codes"]
    if levels is None or isinstance(content, Tensor):
        if levels is None and isinstance(content, Tensor):
            return content
        raise ValueError("a weight of another kind")
    numbers = torch.from_numpy(content.values.astype(np.int64))
    if len(numbers) and int(numbers.max()) >= len(levels):
        raise ValueError(f"a code beyond {len(levels)} levels")
    return levels[numbers]
