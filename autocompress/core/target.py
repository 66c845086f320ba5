"""The device that a search optimises for: its runtime and what it executes."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from autocompress.core.schema import SCHEMA_VERSION, check_record, unknown_name
from autocompress.errors import InvalidInputError, WrongTypeError, explain

CHANNEL_UNIT = 8
"""Unit of channels assumed of a target until it is measured."""

FLOAT = 32
"""Bit-width that stands for unquantised floating point."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A runtime on a device, with the precisions that it executes.

    Attributes:
        name: What the user calls it, for example "onnxruntime-cpu".
        runtime: The runtime that runs the artifact.
        threads: Threads that one inference uses, >= 1.
        batch_size: Images per inference when latency is measured, >= 1.
        precisions: (weight bits, activation bits) pairs that run as such.
        round_to: Unit in which fewer channels make a layer faster, >= 1.
    """

    name: str
    runtime: str = "onnxruntime"
    threads: int = 1
    batch_size: int = 1
    precisions: tuple[tuple[int, int], ...] = ((FLOAT, FLOAT), (8, 8))
    round_to: int = CHANNEL_UNIT

    def __post_init__(self) -> None:
        for key in ("threads", "batch_size", "round_to"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int):
                raise WrongTypeError(
                    explain(
                        f"target '{key}'",
                        expected="an integer",
                        got=repr(value),
                        remedy=f"set {key}: 1",
                    )
                )
            if value < 1:
                raise InvalidInputError(
                    explain(f"target '{key}'", expected=">= 1", got=value, remedy=f"set {key}: 1")
                )

    def executed(
        self, weight_bits: int, activation_bits: int, group_size: int = 0
    ) -> tuple[int, int]:
        """Name the precision that the runtime really computes a layer in.

        A layer runs in the narrowest executable precision that holds its
        weights and its activations; narrower grids ride in wider integers.
        Inputs whose weights have several scales are summed in floating point.

        Args:
            weight_bits: Bits of the layer's weights, 1 to 8, or 32.
            activation_bits: Bits of its input activations, 2 to 8, or 32.
            group_size: Inputs that share a scale; 0 for one scale per output.

        Returns:
            The executed (weight bits, activation bits) pair.

        Example:
            >>> Target.named("onnxruntime-cpu").executed(4, 8)
            (8, 8)
            >>> Target.named("onnxruntime-cpu").executed(4, 32)
            (32, 32)
        """
        if group_size:
            return FLOAT, FLOAT
        fitting = [p for p in self.precisions if p[0] >= weight_bits and p[1] >= activation_bits]
        return min(fitting, default=(FLOAT, FLOAT), key=lambda pair: (pair[0] * pair[1], pair))

    @property
    def activation_bits(self) -> tuple[int, ...]:
        """The activation bit-widths that the runtime executes, narrowest first."""
        return tuple(sorted({activation for _, activation in self.precisions}))

    @classmethod
    def named(cls, name: str, *, threads: int = 1, batch_size: int = 1) -> "Target":
        """Look a built-in target up by its name.

        Raises:
            InvalidInputError: If there is no target of that name.
        """
        if name not in TARGET_NAMES:
            raise InvalidInputError(unknown_name("target", str(name), TARGET_NAMES))
        return cls(name=name, threads=threads, batch_size=batch_size)

    def to_json(self) -> dict[str, Any]:
        """Return the target as a JSON object."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "runtime": self.runtime,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "precisions": [list(pair) for pair in self.precisions],
            "round_to": self.round_to,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Target":
        """Read a target from what `to_json` returned."""
        keys = ("name", "runtime", "threads", "batch_size", "precisions", "round_to")
        fields = dict(check_record(record, what="target", keys=keys, required=("name",)))
        if "precisions" in fields:
            fields["precisions"] = tuple((int(w), int(a)) for w, a in fields["precisions"])
        return cls(**fields)


TARGET_NAMES = ("onnxruntime-cpu",)
"""Names of the built-in targets."""
