import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.sparsity import (
    PATTERNS,
    TWO_OF_FOUR,
    count_bits,
    index_bits,
    kept_weights,
    stored_layout,
)


@given(
    shape=st.tuples(st.integers(1, 20), st.integers(1, 20), st.integers(1, 9)),
    sparsity=st.floats(0.0, 0.999),
)
def test_what_is_kept_is_within_half_a_weight_of_what_was_asked(
    shape: tuple[int, ...], sparsity: float
) -> None:
    total = math.prod(shape)
    kept = kept_weights(shape, sparsity, "unstructured")
    assert 1 <= kept <= total
    assert abs(total * (1.0 - sparsity) - kept) <= 0.5 + 1e-9 or kept == 1


def test_two_of_four_is_counted_by_hand() -> None:
    assert kept_weights((1, 4), 0.5, TWO_OF_FOUR) == 2
    assert kept_weights((3, 11, 2), 0.5, TWO_OF_FOUR) == 3 * 2 * (4 + 3)
    assert kept_weights((5, 3, 3, 3), 0.5, TWO_OF_FOUR) == 5 * 27
    for pattern in PATTERNS:
        assert kept_weights((5, 8), 0.0, pattern) == 40


@pytest.mark.parametrize("columns", [1, 2, 3, 8, 9, 255, 256, 257])
def test_the_widths_of_numbers_are_the_smallest_that_hold_them(columns: int) -> None:
    assert 2 ** count_bits(columns) > columns >= 2 ** (count_bits(columns) - 1)
    assert 2 ** index_bits(columns) >= columns
    assert index_bits(columns) == 1 or 2 ** (index_bits(columns) - 1) < columns


def test_sizes_are_counted_by_hand() -> None:
    assert stored_layout(10, 16, 160, 8) == ("dense", 160)
    assert stored_layout(10, 16, 80, 8) == ("bitmask", 20 + 80)
    assert stored_layout(10, 16, 80, 2) == ("dense", 40)  # a bitmask takes 20 + 20 too
    # ten counts of 5 bits, eight columns of 4 bits, eight weights of 32 bits
    assert stored_layout(10, 16, 8, 32) == ("rows", 7 + 4 + 32)


@given(
    rows=st.integers(1, 64),
    columns=st.integers(1, 600),
    share=st.floats(0.01, 1.0),
    bits=st.sampled_from([2, 3, 4, 8, 32]),
)
def test_no_layout_beats_the_chosen_one(rows: int, columns: int, share: float, bits: int) -> None:
    kept = max(1, round(share * rows * columns))
    _, size = stored_layout(rows, columns, kept, bits)
    assert size <= math.ceil(rows * columns * bits / 8)
    assert size <= math.ceil(rows * columns / 8) + math.ceil(kept * bits / 8)
    places = math.ceil(kept * np.ceil(np.log2(max(2, columns))) / 8)
    counts = math.ceil(rows * np.ceil(np.log2(columns + 1)) / 8)
    assert size <= places + counts + math.ceil(kept * bits / 8)
