import heapq

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.artifact.huffman import BLOCK, LONGEST, code_lengths, decode, encode, encoded_bits


@given(symbols=st.lists(st.integers(0, 255), min_size=1, max_size=400), spread=st.integers(1, 8))
def test_symbols_survive(symbols: list[int], spread: int) -> None:
    values = np.array(symbols, dtype=np.uint8) >> (8 - spread)
    np.testing.assert_array_equal(decode(encode(values), len(values)), values)


def test_more_symbols_than_a_block_survive() -> None:
    rng = np.random.default_rng(0)
    values = rng.choice(16, BLOCK // 2, p=rng.dirichlet(np.ones(16))).astype(np.uint8)
    assert encoded_bits(values) > BLOCK
    np.testing.assert_array_equal(decode(encode(values), len(values)), values)


@given(counts=st.lists(st.integers(1, 1000), min_size=2, max_size=40))
def test_no_code_is_shorter_on_average(counts: list[int]) -> None:
    heap, least = list(counts), 0
    heapq.heapify(heap)
    while len(heap) > 1:  # the sum of all merges is the cost of an optimal code
        merged = heapq.heappop(heap) + heapq.heappop(heap)
        least += merged
        heapq.heappush(heap, merged)
    lengths = code_lengths(np.array(counts))
    assert sum(2.0**-length for length in lengths) == 1.0
    if max(lengths) < LONGEST:
        assert int(np.array(counts) @ lengths) == least


def test_lengths_are_limited() -> None:
    lengths = code_lengths(np.array([int(1.7**n) for n in range(60)]))
    assert lengths.max() == LONGEST
    assert lengths.min() >= 1
    assert sum(2.0**-length for length in lengths) <= 1.0
    rare = np.repeat(np.arange(30, dtype=np.uint8), [int(1.5**n) for n in range(30)])
    np.testing.assert_array_equal(decode(encode(rare), len(rare)), rare)


def test_one_symbol_takes_one_bit() -> None:
    content = encode(np.full(80, 7, dtype=np.uint8))
    assert len(content) == 2 + 1 + 10
    assert decode(content, 80).tolist() == [7] * 80
    with pytest.raises(ValueError, match="no symbol has"):
        decode(content[:-1] + b"\xff", 80)


@pytest.mark.parametrize(
    ("content", "count"),
    [(b"", 1), (b"\x05\x01\x00", 1), (b"\x00\x01\x11", 40), (b"\x00\x03\x11\x11\x00", 2)],
)
def test_what_is_no_code_is_refused(content: bytes, count: int) -> None:
    with pytest.raises(ValueError, match=r"code|bits"):
        decode(content, count)


def test_another_number_of_symbols_is_refused() -> None:
    values = np.random.default_rng(0).integers(0, 5, 300).astype(np.uint8)
    content = encode(values)
    for count in (200, 320, 600, 10**12):
        with pytest.raises(ValueError, match=r"code|bits"):
            decode(content, count)
    with pytest.raises(ValueError, match=r"code|bits"):
        decode(content[:-20], 300)
