import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from autocompress.artifact.container import (
    DTYPES,
    MAGIC,
    Entry,
    Symbols,
    decode_symbols,
    encode_symbols,
    read_container,
    write_container,
)


@given(data=st.data(), bits=st.integers(1, 8))
def test_symbols_survive_in_the_smaller_coding(data: st.DataObject, bits: int) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=60))
    symbols = Symbols(np.array(numbers, dtype=np.uint8), bits)
    coding, content = encode_symbols(symbols)
    assert len(content) <= -(-len(numbers) * bits // 8)
    assert decode_symbols(coding, content, bits, len(numbers)).values.tolist() == numbers
    if coding == "bits":
        text = "".join(f"{number:0{bits}b}" for number in numbers).ljust(8 * len(content), "0")
        assert content == bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))


def _written(tmp_path: Path) -> tuple[Path, dict[str, Entry]]:
    torch.manual_seed(0)
    tensors = {name: (100 * torch.randn(3, 2)).to(dtype) for name, dtype in DTYPES.items()}
    entries: dict[str, Entry] = {**tensors, "none": torch.zeros(0, 4), "one": torch.tensor(3.0)}
    entries["symbols"] = Symbols(np.arange(200, dtype=np.uint8) % 3, 2)
    path = tmp_path / "some.file"
    assert write_container(path, entries, {"a": [1, "b"]}) == path.stat().st_size
    return path, entries


def test_all_entries_survive(tmp_path: Path) -> None:
    path, entries = _written(tmp_path)
    found, metadata = read_container(path.read_bytes())
    assert metadata == {"a": [1, "b"]}
    assert list(found) == list(entries)
    for name, entry in entries.items():
        other = found[name]
        if isinstance(entry, torch.Tensor):
            assert isinstance(other, torch.Tensor)
            assert (other.dtype, other.shape) == (entry.dtype, entry.shape)
            assert torch.equal(other, entry)
        else:
            assert isinstance(other, Symbols)
            np.testing.assert_array_equal(other.values, entry.values)


def test_every_flipped_byte_is_noticed(tmp_path: Path) -> None:
    content = _written(tmp_path)[0].read_bytes()
    for place in range(len(content)):
        damaged = content[:place] + bytes([content[place] ^ 0x40]) + content[place + 1 :]
        with pytest.raises(ValueError, match=r"damaged content|another kind"):
            read_container(damaged)
    for length in (0, len(MAGIC), len(content) - 1):
        with pytest.raises(ValueError, match=r"damaged content|another kind"):
            read_container(content[:length])


def _forged(header: object, payload: bytes = b"", length: int | None = None) -> bytes:
    """Compose a file with a right checksum around whatever header."""
    packed = header if isinstance(header, bytes) else zlib.compress(json.dumps(header).encode())
    size = (len(packed) if length is None else length).to_bytes(4, "little")
    body = MAGIC + size + packed + payload
    return body + zlib.crc32(body).to_bytes(4, "little")


@pytest.mark.parametrize(
    "entry",
    [
        ["a", "float32", 10**12],
        ["a", "float32", -1],
        ["a", "float32", "1"],
        ["a", "bits", 8, 10**12, 4],
        ["a", "bits", 64, 1, 4],
        ["a", "huffman", 8, 10**12, 4],
        ["a", "pickle", 8, 4, 4],
        ["a", "float32", 0],
        ["a", "bits"],
    ],
)
def test_entries_that_promise_more_than_there_is_are_refused(entry: list[object]) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_container(_forged({"metadata": {}, "entries": [entry]}, b"\x00\x01\x11\x00"))


@pytest.mark.parametrize(
    "content",
    [
        _forged(b"no deflated text"),
        _forged([]),
        _forged({"entries": []}),
        _forged(zlib.compress(b"[" * 100_000)),
        _forged({"metadata": {}, "entries": []}, length=2**32 - 1),
        _forged({"metadata": {}, "entries": []}, b"left over"),
    ],
    ids=["garbage", "list", "incomplete", "nested", "long", "surplus"],
)
def test_damaged_headers_are_refused(content: bytes) -> None:
    with pytest.raises(ValueError, match=r"\S"):
        read_container(content)
