import numpy as np
import pytest
from scipy.stats import kendalltau

from autocompress.core.simulation import Accelerator, LookupTable, Roofline
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.simulator import (
    array_cycles,
    kernel_table,
    look_up,
    simulate_kernel,
)
from autocompress.errors import InvalidInputError

ROOFLINE = Roofline(
    peak_gmacs=((32, 32, 10.0), (8, 8, 40.0)), bandwidth_gbs=2.0, cache_kib=64.0, mac_pj=1.0
)
CONV = KernelKey(
    kind="conv", in_channels=16, out_channels=32, kernel=(3, 3), stride=(1, 1), size=(8, 8)
)
DEPTHWISE = KernelKey(
    kind="conv",
    in_channels=64,
    out_channels=64,
    kernel=(3, 3),
    stride=(1, 1),
    groups=64,
    size=(28, 28),
)


def test_a_roofline_computes_or_waits_for_memory() -> None:
    macs, weights = 8 * 8 * 16 * 32 * 9, 16 * 32 * 9
    computing = simulate_kernel(ROOFLINE, CONV, (8, 8))
    assert computing.latency_ms == pytest.approx(macs / 40e9 * 1e3)
    assert computing.energy_mj == pytest.approx((macs + 8 * weights * 20) * 1e-9)
    slow = Roofline(peak_gmacs=ROOFLINE.peak_gmacs, bandwidth_gbs=0.01, cache_kib=64.0)
    assert simulate_kernel(slow, CONV, (8, 8)).latency_ms == pytest.approx(weights / 1e7 * 1e3)
    moved = weights + 8 * 8 * (16 + 32)
    uncached = Roofline(peak_gmacs=ROOFLINE.peak_gmacs, bandwidth_gbs=0.01)
    assert simulate_kernel(uncached, CONV, (8, 8)).latency_ms == pytest.approx(moved / 1e7 * 1e3)


def test_hand_counted_cycles_of_an_array() -> None:
    array = Accelerator(rows=16, lanes=128)
    # 144 inputs are two passes, 32 outputs two tiles; 64 positions.
    assert array_cycles(array, CONV, (8, 4)) == 64 * 2 * 2 * 8 * 4 + min(64 * 2 * 4 * 16, 2**13) / 4
    # Few weight bits: the vectors of activations decide.
    entering, loading = 64 * 2 * 4 * 16, 2 * 32 * 1 * 16
    assert array_cycles(array, CONV, (1, 4)) == entering + loading / 4


def test_weight_bits_of_a_depthwise_layer_matter_little_on_an_array() -> None:
    array = Accelerator()
    wide, narrow = (array_cycles(array, DEPTHWISE, (bits, 4)) for bits in (8, 2))
    assert narrow < wide < 1.05 * narrow
    assert array_cycles(array, DEPTHWISE, (8, 8)) > 1.9 * wide


def test_bits_are_rounded_up_to_the_bricks_of_an_array() -> None:
    array = Accelerator(step_bits=2)
    assert array_cycles(array, CONV, (3, 5)) == array_cycles(array, CONV, (4, 6))


def test_a_table_differs_from_the_product_of_bits_and_never_falls() -> None:
    table = kernel_table(Accelerator(), DEPTHWISE)
    assert (np.diff(table, axis=0) >= 0).all()
    assert (np.diff(table, axis=1) > 0).all()
    bits = np.outer(range(1, 9), range(1, 9))
    assert kendalltau(table.ravel(), bits.ravel()).statistic < 0.8


@pytest.mark.parametrize("simulation", [ROOFLINE, Accelerator()])
def test_a_batch_takes_longer_than_an_example(simulation: Roofline | Accelerator) -> None:
    one, four = (simulate_kernel(simulation, CONV, (8, 8), batch_size=size) for size in (1, 4))
    assert 2 * one.latency_ms < four.latency_ms <= 4 * one.latency_ms
    assert one.energy_mj < four.energy_mj


def test_unquantised_layers_run_in_wide_integers() -> None:
    plain, int8 = (simulate_kernel(Accelerator(), CONV, bits) for bits in ((32, 32), (8, 8)))
    assert 2 * int8.latency_ms <= plain.latency_ms <= 4 * int8.latency_ms
    assert plain == simulate_kernel(Accelerator(), CONV, (16, 16))


def test_additions_move_tensors_only() -> None:
    add = KernelKey(kind="add", in_channels=16, out_channels=16, size=(8, 8))
    assert simulate_kernel(Accelerator(), add, (8, 8)).latency_ms == 0.0
    assert simulate_kernel(ROOFLINE, add, (8, 8)).latency_ms > 0.0


def test_a_layer_is_looked_up() -> None:
    table = LookupTable(cycles=(((10.0, 20.0), (30.0, 40.0)),), clock_mhz=1.0)
    assert look_up(table, 0, (1, 2), 0.5).latency_ms == pytest.approx(0.01)
    assert look_up(table, 0, (32, 32), 1.0).latency_ms == pytest.approx(40e-3 * 16 * 16 / 4)
    with pytest.raises(InvalidInputError, match="table"):
        simulate_kernel(table, CONV, (8, 8))
