import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.artifact.sparse_layout import (
    pack_mask,
    pack_numbers,
    unpack_mask,
    unpack_numbers,
)
from autocompress.core.sparsity import count_bits, index_bits


@given(data=st.data(), bits=st.integers(1, 32))
def test_numbers_survive_packing(data: st.DataObject, bits: int) -> None:
    numbers = data.draw(st.lists(st.integers(0, 2**bits - 1), max_size=30))
    stream = pack_numbers(np.array(numbers, dtype=np.int64), bits)
    assert len(stream) == -(-len(numbers) * bits // 8)
    text = "".join(f"{number:0{bits}b}" for number in numbers).ljust(8 * len(stream), "0")
    assert stream.tobytes() == bytes(int(text[i : i + 8], 2) for i in range(0, len(text), 8))
    assert unpack_numbers(stream, bits, len(numbers)).tolist() == numbers


@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 40),
    share=st.floats(0.0, 1.0),
    seed=st.integers(0, 10**6),
)
@pytest.mark.parametrize("layout", ["bitmask", "rows"])
def test_masks_survive_both_layouts(
    layout: str, rows: int, columns: int, share: float, seed: int
) -> None:
    mask = np.random.default_rng(seed).random((rows, columns)) < share
    packed = pack_mask(mask, layout)  # type: ignore[arg-type]
    np.testing.assert_array_equal(unpack_mask(packed, rows, columns), mask)
    expected = {"mask": -(-rows * columns // 8)}
    if layout == "rows":
        expected = {
            "counts": -(-rows * count_bits(columns) // 8),
            "columns": -(-int(mask.sum()) * index_bits(columns) // 8),
        }
    assert {name: len(stream) for name, stream in packed.items()} == expected


def test_places_outside_the_layer_are_refused() -> None:
    packed = {
        "counts": pack_numbers(np.array([1, 0]), count_bits(5)),
        "columns": pack_numbers(np.array([7]), index_bits(5)),
    }
    with pytest.raises(ValueError, match="beyond 5"):
        unpack_mask(packed, 2, 5)
    with pytest.raises(ValueError, match="reshape"):
        unpack_mask({"mask": np.zeros(1, dtype=np.uint8)}, 5, 5)
