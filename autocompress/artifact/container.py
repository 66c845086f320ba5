"""A small file of named tensors and symbols behind a compressed JSON header.

The file is a line that names the format, the length of the header in four bytes, the header
(JSON, deflated), the content of every entry one after the other, and a CRC-32 of all that in
four bytes; numbers are little-endian. Nothing in it can run code.
"""

import json
import math
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from autocompress.artifact import huffman
from autocompress.core.files import write_bytes

MAGIC = b"autocompress-packed-2\n"

HEADER_LIMIT = 1 << 26
"""Bytes of the largest header that is read."""

DTYPES = {
    str(dtype).removeprefix("torch."): dtype
    for dtype in (
        *(torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64),
        *(torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool),
    )
}
"""What tensors may hold, by name."""


@dataclass(frozen=True, slots=True, eq=False)
class Symbols:
    """Small integers, stored in as few bits as they take.

    Attributes:
        values: Integers in [0, 2**bits), in one dimension.
        bits: 1 to 8.
    """

    values: NDArray[np.uint8]
    bits: int


Entry = Tensor | Symbols


def encode_symbols(symbols: Symbols) -> tuple[str, bytes]:
    r"""Write symbols in the smaller of two codings.

    Returns:
        "bits", each in its width, or "huffman"; and the bytes.

    Example:
        >>> encode_symbols(Symbols(np.array([3, 0, 1], dtype=np.uint8), 2))
        ('bits', b'\xc4')
    """
    flat = np.unpackbits(symbols.values[:, None], axis=1)[:, 8 - symbols.bits :]
    plain = np.packbits(flat.ravel()).tobytes()
    coded = huffman.encode(symbols.values) if len(symbols.values) else plain
    return ("huffman", coded) if len(coded) < len(plain) else ("bits", plain)


def decode_symbols(coding: str, content: bytes, bits: int, count: int) -> Symbols:
    """Undo `encode_symbols`.

    Raises:
        ValueError: If the content does not hold so many symbols.
    """
    if coding == "huffman":
        return Symbols(huffman.decode(content, count), bits)
    if coding != "bits" or bits not in range(1, 9) or len(content) != -(-count * bits // 8):
        raise ValueError(f"{len(content)} bytes for {count} symbols of {bits} bits")
    flat = np.unpackbits(np.frombuffer(content, dtype=np.uint8))[: count * bits]
    weights = 1 << np.arange(bits - 1, -1, -1)
    return Symbols((flat.reshape(count, bits) @ weights).astype(np.uint8), bits)


def write_container(path: Path, entries: Mapping[str, Entry], metadata: Mapping[str, Any]) -> int:
    """Write entries and what is to be known of them; return the size in bytes.

    Args:
        path: The file, replaced when complete.
        entries: What to store, by name.
        metadata: Plain JSON.
    """
    contents, table = [], []
    for name, entry in entries.items():
        if isinstance(entry, Symbols):
            coding, content = encode_symbols(entry)
            table.append([name, coding, entry.bits, len(entry.values), len(content)])
        else:
            flat = entry.detach().cpu().contiguous().reshape(-1)
            content = flat.view(torch.uint8).numpy().tobytes()
            table.append([name, str(entry.dtype).removeprefix("torch."), *entry.shape])
        contents.append(content)
    header = json.dumps({"metadata": metadata, "entries": table}, separators=(",", ":"))
    packed = zlib.compress(header.encode(), 9)
    whole = b"".join([MAGIC, len(packed).to_bytes(4, "little"), packed, *contents])
    whole += zlib.crc32(whole).to_bytes(4, "little")
    write_bytes(path, whole)
    return len(whole)


def read_container(content: bytes) -> tuple[dict[str, Entry], dict[str, Any]]:
    """Undo `write_container`.

    Nothing larger than the content allows is ever made: a symbol takes at
    least one bit of it, and a header is read up to `HEADER_LIMIT`.

    Args:
        content: The content of the file.

    Returns:
        The entries by name, and the metadata.

    Raises:
        ValueError: If the content is damaged or of another format.
    """
    if not content.startswith(MAGIC):
        raise ValueError("another kind of file")
    body, checksum = content[:-4], content[-4:]
    if zlib.crc32(body).to_bytes(4, "little") != checksum:
        raise ValueError("damaged content")
    start = len(MAGIC) + 4
    end = start + int.from_bytes(body[len(MAGIC) : start], "little")
    header = _header(body[start:end])
    entries: dict[str, Entry] = {}
    for name, kind, *numbers in header["entries"]:
        if not all(isinstance(number, int) and number >= 0 for number in numbers):
            raise ValueError(f"a damaged entry '{name}'")
        begin = end
        if kind in DTYPES:
            end = begin + math.prod(numbers) * DTYPES[kind].itemsize
            entries[name] = _tensor(_part(body, begin, end), DTYPES[kind], numbers)
        else:
            bits, count, length = numbers
            end = begin + length
            entries[name] = decode_symbols(kind, _part(body, begin, end), bits, count)
    if end != len(body):
        raise ValueError("content that no entry has")
    return entries, header["metadata"]


def _header(packed: bytes) -> dict[str, Any]:
    inflater = zlib.decompressobj()
    try:
        header = json.loads(inflater.decompress(packed, HEADER_LIMIT))
    except (zlib.error, RecursionError) as error:
        raise ValueError("a damaged header") from error
    if not (isinstance(header, dict) and {"metadata", "entries"} <= header.keys()):
        raise ValueError("a header without entries")
    return header


def _part(body: bytes, begin: int, end: int) -> bytes:
    if end > len(body):
        raise ValueError("content that ends too early")
    return body[begin:end]


def _tensor(content: bytes, dtype: torch.dtype, shape: list[int]) -> Tensor:
    if not content:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(bytearray(content), dtype=dtype).reshape(shape)
