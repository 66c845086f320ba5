import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.artifact.container import Symbols
from autocompress.artifact.sparse_layout import (
    FARTHEST,
    pack_bitmask,
    pack_gaps,
    unpack_bitmask,
    unpack_gaps,
)


@given(count=st.integers(1, 2000), share=st.floats(0.0, 1.0), seed=st.integers(0, 10**6))
def test_masks_survive_both_layouts(count: int, share: float, seed: int) -> None:
    mask = np.random.default_rng(seed).random(count) < share**3
    np.testing.assert_array_equal(unpack_bitmask(pack_bitmask(mask), count), mask)
    np.testing.assert_array_equal(unpack_gaps(pack_gaps(mask), count), mask)


@pytest.mark.parametrize("gap", [0, 254, 255, 256, 510, 511, 1000])
def test_long_gaps_take_several_symbols(gap: int) -> None:
    mask = np.zeros(gap + 1, dtype=np.bool_)
    mask[gap] = True
    packed = pack_gaps(mask)
    assert packed.values.tolist() == [FARTHEST] * (gap // FARTHEST) + [gap % FARTHEST]
    np.testing.assert_array_equal(unpack_gaps(packed, gap + 1), mask)


def test_places_outside_the_layer_are_refused() -> None:
    with pytest.raises(ValueError, match="beyond 5"):
        unpack_gaps(Symbols(np.array([2, 2], dtype=np.uint8), 8), 5)
    with pytest.raises(ValueError, match="1 bytes for 25 weights"):
        unpack_bitmask(Symbols(np.zeros(1, dtype=np.uint8), 8), 25)
