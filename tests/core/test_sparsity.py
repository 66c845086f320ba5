import math

from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.sparsity import PATTERNS, TWO_OF_FOUR, kept_weights


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
