"""Simulated hardware: the time and the energy of a layer, from its sizes and its bits."""

import math
from dataclasses import dataclass

import numpy as np

from autocompress.core.simulation import (
    FLOAT,
    WIDE,
    Accelerator,
    LookupTable,
    Roofline,
    Simulation,
)
from autocompress.cost.kernel_key import KernelKey
from autocompress.errors import InvalidInputError, explain

PICO = 1e-9
"""Millijoules in a picojoule."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerCost:
    """What one layer, or one addition, takes.

    Attributes:
        latency_ms: Milliseconds.
        energy_mj: Millijoules; 0 where the hardware says nothing of energy.
    """

    latency_ms: float
    energy_mj: float = 0.0

    def repeated(self, runs: float) -> "LayerCost":
        """Return the cost of several runs."""
        return LayerCost(latency_ms=runs * self.latency_ms, energy_mj=runs * self.energy_mj)


def simulate_kernel(
    simulation: Simulation, key: KernelKey, bits: tuple[int, int], *, batch_size: int = 1
) -> LayerCost:
    """Compute what a kernel takes on a roofline or an accelerator.

    Args:
        simulation: The hardware; no table, which knows layers only.
        key: The kernel; its own bits do not matter.
        bits: Weight and activation bits that the hardware computes in.
        batch_size: Examples per inference, >= 1.

    Returns:
        Time and energy of the whole batch.

    Example:
        >>> key = KernelKey(kind="linear", in_channels=256, out_channels=16)
        >>> simulate_kernel(Accelerator(clock_mhz=1), key, (1, 2)).latency_ms
        0.288
    """
    if isinstance(simulation, Roofline):
        return _on_roofline(simulation, key, bits, batch_size)
    if isinstance(simulation, Accelerator):
        return _on_accelerator(simulation, key, bits, batch_size)
    raise InvalidInputError(
        explain(
            "simulate_kernel",
            expected="a roofline or an accelerator",
            got=f"a {simulation.kind}",
            remedy="look its layers up with look_up",
        )
    )


def look_up(
    table: LookupTable, layer: int, bits: tuple[int, int], share: float, *, batch_size: int = 1
) -> LayerCost:
    """Look a layer up.

    Args:
        table: The table.
        layer: Number of the layer, in order of execution.
        bits: Weight and activation bits; (32, 32) takes the widest entry, in
            proportion to the product of the bits at `WIDE` bits.
        share: Fraction of the multiply-accumulates of the whole layer.
        batch_size: Examples per inference, >= 1.
    """
    rows = table.cycles[layer]
    widest = (len(rows), len(rows[0]))
    weight, activation = widest if bits == (FLOAT, FLOAT) else bits
    cycles = rows[weight - 1][activation - 1] * share * batch_size
    if bits == (FLOAT, FLOAT):
        cycles *= WIDE * WIDE / (weight * activation)
    return LayerCost(latency_ms=cycles / (1e3 * table.clock_mhz))


def array_cycles(
    array: Accelerator, key: KernelKey, bits: tuple[int, int], *, batch_size: int = 1
) -> float:
    """Count the cycles of a convolution or a linear layer on an array.

    The array computes, while vectors of weights and of activations enter it;
    whichever takes longest decides. What of the lesser stream belongs to one
    tile comes before the first product. Groups of a grouped convolution share
    a pass as far as there are lanes for their inputs and rows for them.

    Args:
        array: The accelerator.
        key: The layer.
        bits: Weight and activation bits that it is computed in, at most `WIDE`.
        batch_size: Examples per inference, >= 1.
    """
    passes, tiles, outputs = _mapping(array, key)
    weight, activation = (math.ceil(b / array.step_bits) for b in bits)
    positions = batch_size * math.prod(key.size)
    computing = positions * passes * tiles * weight * activation
    entering = positions * passes * activation * array.rows
    loading = passes * outputs * weight * array.rows
    first = min(entering, loading) / (passes * tiles)
    return max(computing, entering, loading) + first


def tensor_sizes(key: KernelKey) -> tuple[int, int]:
    """Return the elements of a kernel's inputs and of its output, for one example.

    Example:
        >>> tensor_sizes(KernelKey(kind="add", in_channels=8, out_channels=8, size=(4, 4)))
        (256, 128)
    """
    positions = math.prod(key.size)
    given = key.in_channels * positions * math.prod(key.stride)
    return (2 if key.kind == "add" else 1) * given, key.out_channels * positions


def _on_roofline(
    roofline: Roofline, key: KernelKey, bits: tuple[int, int], batch_size: int
) -> LayerCost:
    peaks = {(w, a): peak for w, a, peak in roofline.peak_gmacs}
    weight, activation = bits
    macs = batch_size * key.operations
    between = activation * batch_size * sum(tensor_sizes(key))
    moved = weight * key.weights
    if between > 8 * 1024 * roofline.cache_kib:
        moved += between
    computing = macs / (peaks[bits] * 1e9)
    moving = moved / (8e9 * roofline.bandwidth_gbs)
    energy = macs * roofline.mac_pj * weight * activation / 64 + moved * roofline.memory_bit_pj
    return LayerCost(latency_ms=1e3 * max(computing, moving), energy_mj=PICO * energy)


def _on_accelerator(
    array: Accelerator, key: KernelKey, bits: tuple[int, int], batch_size: int
) -> LayerCost:
    weight, activation = (WIDE, WIDE) if bits == (FLOAT, FLOAT) else bits
    between = activation * batch_size * sum(tensor_sizes(key))
    if key.kind == "add":  # beside the array, while tensors are moved
        return LayerCost(latency_ms=0.0, energy_mj=PICO * between * array.buffer_bit_pj)
    cycles = array_cycles(array, key, (weight, activation), batch_size=batch_size)
    passes, _, outputs = _mapping(array, key)
    vectors = activation * batch_size * math.prod(key.size) + weight * outputs
    entered = array.lanes * passes * vectors
    energy = (
        weight * activation * batch_size * key.operations * array.bit_product_pj
        + entered * array.buffer_bit_pj
        + (weight * key.weights + between) * array.memory_bit_pj
    )
    return LayerCost(latency_ms=cycles / (1e3 * array.clock_mhz), energy_mj=PICO * energy)


def _mapping(array: Accelerator, key: KernelKey) -> tuple[int, int, int]:
    """Return the passes over lanes, the tiles of rows in each, and the outputs of a group."""
    inputs = math.prod(key.kernel) * key.in_channels // key.groups
    outputs = key.out_channels // key.groups
    together = min(key.groups, array.rows, max(1, array.lanes // inputs))
    passes = math.ceil(key.groups / together) * math.ceil(inputs / array.lanes)
    return passes, math.ceil(together * outputs / array.rows), outputs


def kernel_table(simulation: Accelerator, key: KernelKey, widest: int = 8) -> np.ndarray:
    """Tabulate the cycles of a layer over bits.

    Args:
        simulation: The accelerator.
        key: The layer.
        widest: Most bits of either operand.

    Returns:
        `widest x widest` cycles, rows by weight bits - 1, columns by activation bits - 1.
    """
    widths = range(1, widest + 1)
    return np.array([[array_cycles(simulation, key, (w, a)) for a in widths] for w in widths])
