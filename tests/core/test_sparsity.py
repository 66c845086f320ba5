import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.sparsity import kept_weights, parse_pattern, pattern_sparsity


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
    assert kept_weights((1, 4), 0.5, "2:4") == 2
    assert kept_weights((3, 11, 2), 0.5, "2:4") == 3 * 2 * (4 + 3)
    assert kept_weights((5, 3, 3, 3), 0.5, "2:4") == 5 * 27
    assert kept_weights((3, 11, 2), 0.75, "1:4") == 3 * 2 * (2 + 3)
    assert kept_weights((3, 11, 2), 0.5, "4:8") == 3 * 2 * (4 + 3)
    for pattern in ("unstructured", "2:4"):
        assert kept_weights((5, 8), 0.0, pattern) == 40


@given(n=st.integers(1, 40), m=st.integers(1, 40))
def test_patterns_are_read_and_bad_ones_refused(n: int, m: int) -> None:
    if n < m:
        assert parse_pattern(f"{n}:{m}") == (n, m)
        assert pattern_sparsity(f"{n}:{m}") == 1.0 - n / m
    else:
        with pytest.raises(ValueError, match="1 <= N < M"):
            parse_pattern(f"{n}:{m}")


@pytest.mark.parametrize("pattern", ["", "2", "0:4", "2:4:8", "a:b", "-1:4", "2:4 ", "02:4"])
def test_what_is_no_pattern_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="1 <= N < M"):
        parse_pattern(pattern)
    assert parse_pattern("unstructured") is None
