from typing import Any

import pytest

from autocompress.cost.kernel_key import KernelKey
from autocompress.errors import InvalidInputError


def key(**changes: Any) -> KernelKey:
    fields: dict[str, Any] = {
        "kind": "conv",
        "in_channels": 16,
        "out_channels": 32,
        "kernel": (3, 3),
        "stride": (2, 1),
        "size": (8, 4),
        "bits": 8,
    }
    return KernelKey(**(fields | changes))


@pytest.mark.parametrize(
    ("made", "text"),
    [
        (key(), "conv 16>32 k3x3 s2x1 g1 @8x4 b8"),
        (key(kind="linear", kernel=(), stride=(), size=()), "linear 16>32 k s g1 @ b8"),
        (key(kind="attention", kernel=(64,), stride=()), "attention 16>32 k64 s g1 @8x4 b8"),
    ],
)
def test_a_key_is_read_from_what_it_writes(made: KernelKey, text: str) -> None:
    assert str(made) == text
    assert KernelKey.parse(text) == made


@pytest.mark.parametrize("text", ["", "conv", "conv 16>32 k3 s1 g1 @8 b8 ", "conv a>b k s g1 @ b8"])
def test_other_text_is_refused(text: str) -> None:
    with pytest.raises(InvalidInputError, match="measure it again"):
        KernelKey.parse(text)


@pytest.mark.parametrize(
    "changes", [{"kind": "fft"}, {"bits": 4}, {"in_channels": 0}, {"size": (8, 0)}]
)
def test_a_key_says_something_that_can_run(changes: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match="kernel key"):
        key(**changes)


def test_work_is_counted_as_by_hand() -> None:
    assert key().weights == 32 * 16 * 9
    assert key().operations == 32 * 16 * 9 * 8 * 4
    depthwise = key(in_channels=32, groups=32)
    assert depthwise.weights == 32 * 9
    addition = key(kind="add", kernel=(), stride=())
    assert (addition.weights, addition.operations) == (0, 32 * 8 * 4)
    attention = key(kind="attention", in_channels=4, out_channels=4, kernel=(16,), size=(10, 10))
    assert attention.operations == 2 * 4 * 16 * 10 * 10, "scores, and their weighted sum"


def test_families_differ_in_more_than_widths() -> None:
    assert key().family == key(in_channels=8, out_channels=24).family
    assert key().family != key(bits=32).family
    assert key().family != key(stride=(1, 1)).family
    narrow, wide = (key(in_channels=n, out_channels=n, groups=n) for n in (16, 32))
    assert narrow.family == wide.family, "depthwise convolutions have as many groups as channels"
    assert narrow.family != key(in_channels=16, out_channels=16, groups=2).family
