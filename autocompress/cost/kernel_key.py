"""What one runtime kernel is: its kind, its widths and sizes, the numbers it computes in."""

import math
import re
from collections.abc import Hashable
from dataclasses import dataclass

from autocompress.core.target import FLOAT
from autocompress.errors import InvalidInputError, explain

WEIGHTLESS = ("maxpool", "avgpool", "attention")
"""Pools, and scores, softmax and weighted sum of an attention."""

KINDS = ("conv", "linear", "add", "quantise", "dequantise", *WEIGHTLESS)
"""What a kernel computes; a convolution or an addition includes its activation function."""

INT8 = 8
"""Bit-width of the integer kernels."""

_PATTERN = re.compile(
    r"(?P<kind>[a-z]+) (?P<in_channels>\d+)>(?P<out_channels>\d+) k(?P<kernel>[\dx]*) "
    r"s(?P<stride>[\dx]*) g(?P<groups>\d+) @(?P<size>[\dx]*) b(?P<bits>\d+)"
)


@dataclass(frozen=True, kw_only=True, slots=True)
class KernelKey:
    """One kernel as the runtime sees it; equal keys take equal time.

    Attributes:
        kind: "conv", "linear", "add", "maxpool", "avgpool", "attention", or
            one of the conversions "quantise", which reads floats, and
            "dequantise", which reads integers.
        in_channels: Channels of the input; heads of an attention.
        out_channels: Channels of the output, likewise.
        kernel: Kernel per spatial axis, for an addition that of the convolution
            whose output is added to, for an attention the features of a head;
            () if there is none.
        stride: Stride per spatial axis, likewise; () for an attention.
        groups: Convolution groups, >= 1.
        size: Output size per spatial axis (or token axis), for an attention
            its queries and keys; () if there is none.
        bits: 8 if computed in integers, 32 in floating point.

    Example:
        >>> key = KernelKey(kind="linear", in_channels=64, out_channels=10, bits=8)
        >>> str(key)
        'linear 64>10 k s g1 @ b8'
        >>> KernelKey.parse(str(key)) == key
        True
    """

    kind: str
    in_channels: int
    out_channels: int
    kernel: tuple[int, ...] = ()
    stride: tuple[int, ...] = ()
    groups: int = 1
    size: tuple[int, ...] = ()
    bits: int = FLOAT

    def __post_init__(self) -> None:
        channels = (self.in_channels, self.out_channels, self.groups)
        numbers = (*channels, *self.kernel, *self.stride, *self.size)
        if self.kind not in KINDS or self.bits not in (INT8, FLOAT) or min(numbers) < 1:
            raise InvalidInputError(
                explain(
                    "kernel key",
                    expected=f"a kind of {KINDS}, positive sizes, bits 8 or 32",
                    got=str(self),
                    remedy="check the profile or measure it again",
                )
            )

    def __str__(self) -> str:
        kernel, stride, size = (
            "x".join(map(str, v)) for v in (self.kernel, self.stride, self.size)
        )
        return (
            f"{self.kind} {self.in_channels}>{self.out_channels} k{kernel} s{stride} "
            f"g{self.groups} @{size} b{self.bits}"
        )

    @classmethod
    def parse(cls, text: str) -> "KernelKey":
        """Read a key from its string.

        Raises:
            InvalidInputError: If the text is not a kernel key.
        """
        match = _PATTERN.fullmatch(text)
        if match is None:
            raise InvalidInputError(
                explain(
                    "kernel key",
                    expected="text such as 'linear 64>10 k s g1 @ b8'",
                    got=repr(text),
                    remedy="check the profile or measure it again",
                )
            )
        fields = match.groupdict()
        return cls(
            kind=fields["kind"],
            in_channels=int(fields["in_channels"]),
            out_channels=int(fields["out_channels"]),
            kernel=_numbers(fields["kernel"]),
            stride=_numbers(fields["stride"]),
            groups=int(fields["groups"]),
            size=_numbers(fields["size"]),
            bits=int(fields["bits"]),
        )

    @property
    def family(self) -> Hashable:
        """What kernels share that differ in their widths only."""
        depthwise = self.groups > 1 and self.groups == self.in_channels
        groups = 0 if depthwise else self.groups
        return (self.kind, self.kernel, self.stride, groups, self.size, self.bits)

    @property
    def operations(self) -> int:
        """Multiply-accumulates for one example; elements that additions and conversions write."""
        if self.kind in WEIGHTLESS:
            products = 2 if self.kind == "attention" else 1
            return products * self.out_channels * math.prod(self.kernel) * math.prod(self.size)
        return max(self.weights, self.out_channels) * math.prod(self.size)

    @property
    def weights(self) -> int:
        """Number of weights; 0 for what has none."""
        if self.kind not in ("conv", "linear"):
            return 0
        return self.out_channels * math.prod(self.kernel) * self.in_channels // self.groups


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split("x")) if text else ()
