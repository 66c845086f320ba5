"""Hardware that is described rather than measured: what a simulated target consists of."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from autocompress.core.files import UNREADABLE, read_json
from autocompress.core.schema import check_name, check_record
from autocompress.errors import (
    InvalidInputError,
    MissingFileError,
    WrongTypeError,
    check_type,
    explain,
)

FLOAT = 32
"""Bit-width that stands for unquantised floating point."""

WIDE = 16
"""Bits in which an accelerator without floating point runs unquantised layers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Roofline:
    """A processor that computes or waits for memory, whichever takes longer.

    The model of Williams, Waterman and Patterson (2009), layer by layer. The
    tensors between layers stay in the cache where they fit; weights come from
    memory.

    Attributes:
        peak_gmacs: (weight bits, activation bits) and billions of
            multiply-accumulates per second in that precision; (32, 32) among them.
        bandwidth_gbs: Billions of bytes per second from memory.
        cache_kib: Size of the cache.
        mac_pj: Energy of an 8-bit multiply-accumulate, in pJ; other precisions
            in proportion to the product of their bits.
        memory_bit_pj: Energy of a bit from or to memory, in pJ.
    """

    kind: ClassVar[str] = "roofline"
    tells_energy: ClassVar[bool] = True
    peak_gmacs: tuple[tuple[int, int, float], ...]
    bandwidth_gbs: float
    cache_kib: float = 0.0
    mac_pj: float = 0.23
    memory_bit_pj: float = 20.0

    def __post_init__(self) -> None:
        _check_positive(self, zero=("cache_kib",))
        for weight, activation, peak in self.peak_gmacs:
            _check_number(f"peak of {weight}x{activation} bits", peak)
        if (FLOAT, FLOAT) not in self.precisions:
            raise InvalidInputError(
                explain(
                    "'peak_gmacs'",
                    expected="a peak of 32x32 bits among them",
                    got=[f"{w}x{a}" for w, a in self.precisions],
                    remedy="add the peak of floating point, such as {32x32: 20}",
                )
            )

    @property
    def precisions(self) -> tuple[tuple[int, int], ...]:
        """(weight bits, activation bits) that it computes in as such."""
        return tuple((weight, activation) for weight, activation, _ in self.peak_gmacs)

    def to_json(self) -> dict[str, Any]:
        """Return the description as a JSON object."""
        numbers = _numbers(self)
        numbers["peak_gmacs"] = {f"{w}x{a}": peak for w, a, peak in self.peak_gmacs}
        return {"kind": self.kind, **numbers}


@dataclass(frozen=True, kw_only=True, slots=True)
class Accelerator:
    """An array that multiplies a few bits of weights and activations at a time.

    With one bit at a time it is bit-serial, as BISMO (Umuroglu et al. 2018);
    with two, the bricks of Bit Fusion (Sharma et al. 2018). An array has
    `rows` outputs, each of which sums `lanes` products per cycle. A vector of
    `lanes` bits, of weights or of activations, takes as many cycles to enter
    as there are rows. Unquantised layers run in `WIDE` bits.

    Attributes:
        rows: Outputs that are computed at a time.
        lanes: Products that each sums per cycle.
        step_bits: Bits of either operand that go into one product.
        weight_bits: Widths of weights that the array takes, `WIDE` beside.
        activation_bits: Widths of activations, likewise.
        clock_mhz: Millions of cycles per second.
        bit_product_pj: Energy of a product of two bits, its sum included, in pJ.
        buffer_bit_pj: Energy of a bit that enters the array, in pJ.
        memory_bit_pj: Energy of a bit from or to memory, in pJ.
    """

    kind: ClassVar[str] = "accelerator"
    tells_energy: ClassVar[bool] = True
    rows: int = 16
    lanes: int = 256
    step_bits: int = 1
    weight_bits: tuple[int, ...] = (1, 2, 3, 4, 5, 6, 7, 8)
    activation_bits: tuple[int, ...] = (2, 3, 4, 5, 6, 7, 8)
    clock_mhz: float = 200.0
    bit_product_pj: float = 0.0036
    buffer_bit_pj: float = 0.16
    memory_bit_pj: float = 20.0

    def __post_init__(self) -> None:
        _check_positive(self)
        for name in ("weight_bits", "activation_bits"):
            widths = getattr(self, name)
            if not widths or not all(isinstance(b, int) and 1 <= b <= WIDE for b in widths):
                raise InvalidInputError(
                    explain(
                        f"'{name}'",
                        expected=f"integers from 1 to {WIDE}",
                        got=list(widths),
                        remedy="list the widths that the array takes",
                    )
                )

    @property
    def precisions(self) -> tuple[tuple[int, int], ...]:
        """(weight bits, activation bits) that it computes in; (32, 32) stands for `WIDE`."""
        pairs = [(w, a) for w in self.weight_bits for a in self.activation_bits]
        return (*(p for p in pairs if max(p) <= 8), (FLOAT, FLOAT))

    def to_json(self) -> dict[str, Any]:
        """Return the description as a JSON object."""
        return {"kind": self.kind, **_numbers(self)}


@dataclass(frozen=True, kw_only=True, slots=True)
class LookupTable:
    """Cycles of every layer of one model at every pair of bits, from elsewhere.

    Unquantised layers take the widest entry, in proportion to the product of
    the bits at `WIDE` bits; pruned layers as many of its cycles as their share
    of multiply-accumulates.

    Attributes:
        cycles: For each layer with multiply-accumulates, in order of
            execution: rows by weight bits - 1, columns by activation bits - 1.
        clock_mhz: Millions of cycles per second.
    """

    kind: ClassVar[str] = "table"
    tells_energy: ClassVar[bool] = False
    cycles: tuple[tuple[tuple[float, ...], ...], ...]
    clock_mhz: float = 200.0

    def __post_init__(self) -> None:
        _check_positive(self)
        shape = np.shape(np.asarray(self.cycles, dtype=object))
        if len(shape) != 3 or 0 in shape or max(shape[1:]) > 8:
            raise InvalidInputError(
                explain(
                    "'cycles'",
                    expected="layers x weight bits x activation bits, 8 x 8 at most",
                    got=f"shape {shape}",
                    remedy="give one table of equal size per layer",
                )
            )
        table = np.asarray(self.cycles)
        if not (np.issubdtype(table.dtype, np.number) and (table > 0).all()):
            raise InvalidInputError(
                explain(
                    "'cycles'",
                    expected="numbers above 0",
                    got="others",
                    remedy="complete the table",
                )
            )

    @classmethod
    def read(cls, path: Path, *, array: str = "cycles", clock_mhz: float = 200.0) -> "LookupTable":
        """Import a table.

        Args:
            path: A .npz, .npy or .json file.
            array: Name of the array in a .npz file, or the key in a JSON object.
            clock_mhz: Millions of cycles per second.

        Raises:
            MissingFileError: If there is no such file.
            InvalidInputError: If it holds no table of that name.
        """
        if not path.is_file():
            raise MissingFileError(
                explain(f"'{path}'", expected="a table", got="nothing there", remedy="check it")
            )
        try:
            if path.suffix == ".json":
                found = read_json(path)
                values = found[array] if isinstance(found, Mapping) else found
            else:
                with path.open("rb") as file:
                    loaded = np.load(file, allow_pickle=False)
                    values = loaded if path.suffix == ".npy" else loaded[array]
            rows = np.asarray(values, dtype=np.float64).tolist()
        except (KeyError, IndexError, ValueError, TypeError, *UNREADABLE) as error:
            raise InvalidInputError(
                explain(
                    f"'{path}'",
                    expected=f"a table of numbers named '{array}'",
                    got=str(error).strip("'\""),
                    remedy="name the array, or correct the file",
                )
            ) from error
        return cls(cycles=_nested(rows), clock_mhz=clock_mhz)

    @property
    def precisions(self) -> tuple[tuple[int, int], ...]:
        """(weight bits, activation bits) in the table; (32, 32) stands for `WIDE`."""
        weights, activations = len(self.cycles[0]), len(self.cycles[0][0])
        pairs = [(w, a) for w in range(1, weights + 1) for a in range(2, activations + 1)]
        return (*pairs, (FLOAT, FLOAT))

    def to_json(self) -> dict[str, Any]:
        """Return the table as a JSON object."""
        cycles = [[list(row) for row in layer] for layer in self.cycles]
        return {"kind": self.kind, "cycles": cycles, "clock_mhz": self.clock_mhz}


Simulation = Roofline | Accelerator | LookupTable

_KINDS: Mapping[str, type[Roofline] | type[Accelerator] | type[LookupTable]] = {
    kind.kind: kind for kind in (Roofline, Accelerator, LookupTable)
}


def parse_simulation(record: object, folder: Path | None = None) -> Simulation:
    """Read the description of simulated hardware.

    Args:
        record: An object with a "kind", and the attributes of that kind; a
            table may have a "file" and an "array" instead of "cycles".
        folder: Where such a file is looked for; the current one by default.

    Raises:
        InvalidInputError: If the kind is unknown or a value is out of range.
        WrongTypeError: If a value has another type.

    Example:
        >>> record = {"peak_gmacs": {"32x32": 20, "8x8": 80}, "bandwidth_gbs": 4}
        >>> parse_simulation({"kind": "roofline", **record}).precisions
        ((32, 32), (8, 8))
    """
    every = {name for kind in _KINDS.values() for name in _names(kind)} | {"kind", "file", "array"}
    given = dict(check_record(record, what="simulation", keys=every, required=("kind",)))
    check_name("simulation, kind", check_type("simulation, kind", given["kind"], str), _KINDS)
    kind = _KINDS[given.pop("kind")]
    if kind is LookupTable and "file" in given:
        keys = ("file", "array", "clock_mhz")
        values = dict(check_record(given, what="simulation", keys=keys))
        return LookupTable.read((folder or Path()) / str(values.pop("file")), **values)
    required = {"roofline": ("peak_gmacs", "bandwidth_gbs"), "table": ("cycles",)}
    values = dict(
        check_record(
            given,
            what=f"simulation of kind '{kind.kind}'",
            keys=_names(kind),
            required=required.get(kind.kind, ()),
        )
    )
    for name in ("weight_bits", "activation_bits"):
        if name in values:
            widths = values[name]
            listed = widths if isinstance(widths, tuple) else check_type(f"'{name}'", widths, list)
            values[name] = tuple(listed)
    if "peak_gmacs" in values:
        values["peak_gmacs"] = _peaks(values["peak_gmacs"])
    if "cycles" in values:
        values["cycles"] = _nested(values["cycles"])
    return kind(**values)


def _names(kind: type[Roofline] | type[Accelerator] | type[LookupTable]) -> list[str]:
    return [entry.name for entry in fields(kind)]


def _numbers(simulation: Roofline | Accelerator) -> dict[str, Any]:
    values = {entry.name: getattr(simulation, entry.name) for entry in fields(simulation)}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}


def _nested(rows: Any) -> tuple[tuple[tuple[float, ...], ...], ...]:
    try:
        return tuple(tuple(tuple(row) for row in layer) for layer in rows)
    except TypeError as error:
        raise WrongTypeError(
            explain(
                "'cycles'",
                expected="layers x weight bits x activation bits",
                got=type(rows).__name__,
                remedy="give one table per layer",
            )
        ) from error


def _peaks(peaks: object) -> tuple[tuple[int, int, float], ...]:
    """Read peaks by precision, written as "8x8"."""
    try:
        if not isinstance(peaks, Mapping):
            raise TypeError
        pairs = [(*(int(bits) for bits in str(key).split("x")), ms) for key, ms in peaks.items()]
        return tuple((weight, activation, peak) for weight, activation, peak in pairs)
    except (TypeError, ValueError) as error:
        raise WrongTypeError(
            explain(
                "'peak_gmacs'",
                expected="a mapping of precisions such as 8x8 to numbers",
                got=repr(peaks),
                remedy="write {32x32: 20, 8x8: 80}",
            )
        ) from error


def _check_positive(simulation: Simulation, zero: tuple[str, ...] = ()) -> None:
    """Refuse attributes that are not positive numbers; some may be 0."""
    for entry in fields(simulation):
        value = getattr(simulation, entry.name)
        if not isinstance(value, tuple):
            _check_number(f"'{entry.name}'", value, zero=entry.name in zero)
            if entry.type is int and value != int(value):
                raise WrongTypeError(
                    explain(
                        f"'{entry.name}'",
                        expected="an integer",
                        got=repr(value),
                        remedy="round it",
                    )
                )


def _check_number(what: str, value: object, *, zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise WrongTypeError(
            explain(what, expected="a number", got=repr(value), remedy="write a number")
        )
    if not (math.isfinite(value) and (value > 0 or (zero and value == 0))):
        raise InvalidInputError(
            explain(what, expected="a number above 0", got=value, remedy="correct the number")
        )


BUILT_IN: Mapping[str, Simulation] = {
    "bit-serial": Accelerator(),
    "bit-fusion": Accelerator(
        lanes=512,
        step_bits=2,
        weight_bits=(2, 4, 8),
        activation_bits=(2, 4, 8),
        clock_mhz=500.0,
    ),
}
"""Simulated hardware that has a name: arrays of 16 rows as in HAQ (Wang et al. 2019)."""
