import gc
from itertools import product
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from autocompress.artifact.runtime import InputNode, open_session
from autocompress.cost.measurement import (
    REPEATS,
    WARM_UP_ROUNDS,
    block_medians,
    device_name,
    example_arrays,
    measure_interleaved,
    median_interval,
    relative_widths,
    time_interleaved,
)
from autocompress.errors import InvalidInputError, MeasurementError, MissingFileError


class FakeMachine:
    """A clock that only work moves, and a log of the work."""

    def __init__(self) -> None:
        self.now = 0.0
        self.log: list[str] = []

    def clock(self) -> float:
        return self.now

    def job(self, name: str, seconds: list[float]) -> object:
        def run() -> None:
            self.now += seconds[len(self.log) % len(seconds)]
            self.log.append(name)

        return run


def _product(width: int, *, batch: int | str = "n") -> bytes:
    weight = np.random.default_rng(0).standard_normal((64, width), dtype=np.float32)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "product",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [batch, 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [batch, width])],
        [numpy_helper.from_array(weight, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return model.SerializeToString()


def test_every_round_visits_every_call_and_the_order_changes() -> None:
    machine = FakeMachine()
    calls = [machine.job(name, [0.5]) for name in "abc"]
    table = time_interleaved(
        calls, enough=lambda table: len(table) >= 8, max_seconds=1e9, clock=machine.clock
    )
    np.testing.assert_allclose(table, np.full((8, 3), 0.5))
    visit = REPEATS + 1
    assert len(machine.log) == (8 + WARM_UP_ROUNDS) * 3 * visit
    rounds = np.array(machine.log[::visit]).reshape(-1, 3)
    assert all(sorted(order) == ["a", "b", "c"] for order in rounds)
    assert len({tuple(order) for order in rounds}) > 1


def test_a_sample_is_the_median_of_a_visit_without_its_first_call() -> None:
    machine = FakeMachine()
    call = machine.job("a", [100.0, 1.0, 2.0, 3.0, 9.0, 50.0])
    table = time_interleaved(
        [call], enough=lambda table: True, max_seconds=1e9, clock=machine.clock
    )
    assert table.tolist() == [[3.0]]


def test_time_ends_a_measurement_that_never_has_enough() -> None:
    machine = FakeMachine()
    table = time_interleaved(
        [machine.job("a", [1.0])], enough=lambda _: False, max_seconds=60.0, clock=machine.clock
    )
    assert len(table) == 60 / (REPEATS + 1)
    one = time_interleaved(
        [machine.job("a", [1.0])], enough=lambda _: False, max_seconds=0.1, clock=machine.clock
    )
    assert len(one) == 1


def test_enough_is_not_asked_before_the_least_time() -> None:
    machine = FakeMachine()
    table = time_interleaved(
        [machine.job("a", [1.0])],
        enough=lambda _: True,
        min_seconds=60.0,
        max_seconds=1e9,
        clock=machine.clock,
    )
    assert len(table) == 60 / (REPEATS + 1)


@pytest.mark.parametrize("enabled", [True, False])
def test_the_garbage_collector_rests_and_comes_back_as_it_was(enabled: bool) -> None:
    seen = []
    before = gc.isenabled()
    try:
        (gc.enable if enabled else gc.disable)()
        time_interleaved([lambda: seen.append(gc.isenabled())], enough=len, max_seconds=1.0)  # type: ignore[arg-type]
        assert gc.isenabled() is enabled
    finally:
        (gc.enable if before else gc.disable)()
    assert seen
    assert not any(seen)


def test_nothing_to_measure_and_a_clock_that_stands_still_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="at least one model"):
        time_interleaved([], enough=lambda _: True, max_seconds=1.0)
    with pytest.raises(MeasurementError, match="clock's resolution"):
        time_interleaved([lambda: None], enough=lambda _: True, max_seconds=1.0, clock=lambda: 0.0)


@pytest.mark.parametrize("count", [6, 9, 10, 12])
def test_the_interval_covers_the_median_at_least_95_percent(count: int) -> None:
    low, high = median_interval(np.arange(1.0, count + 1.0))
    rank = int(low)
    assert high == count + 1 - rank

    def coverage(rank: int) -> float:
        below = [sum(signs) for signs in product((0, 1), repeat=count)]
        return float(np.mean([rank <= b <= count - rank for b in below]))

    assert coverage(rank) >= 0.95
    assert coverage(rank + 1) < 0.95


def test_few_samples_give_their_range_and_are_never_narrow() -> None:
    assert median_interval([2.0, 1.0, 1.5]) == (1.0, 2.0)
    assert relative_widths(np.ones((5, 2))).tolist() == [np.inf, np.inf]
    assert relative_widths(np.ones((6, 2))).tolist() == [0.0, 0.0]


def test_relative_widths_agree_with_the_intervals() -> None:
    table = np.random.default_rng(0).uniform(1.0, 2.0, (50, 3))
    for column, width in enumerate(relative_widths(table)):
        low, high = median_interval(table[:, column])
        assert width == pytest.approx((high - low) / np.median(table[:, column]))


def test_blocks_see_a_drift_that_single_rounds_average_away() -> None:
    rng = np.random.default_rng(0)
    slow_wave = 1.0 + 0.1 * np.sin(np.linspace(0, 2 * np.pi, 3000))[:, None]
    table = slow_wave + rng.normal(0, 0.001, (3000, 1))
    assert relative_widths(block_medians(table))[0] > 3 * relative_widths(table)[0]
    few = table[:20]
    np.testing.assert_array_equal(block_medians(few), few)


def test_the_heavier_of_two_models_is_measured_as_such(tmp_path: Path) -> None:
    path = tmp_path / "light.onnx"
    path.write_bytes(_product(16))
    light, heavy = measure_interleaved(
        [path, _product(8192)], np.ones((2, 64)), max_seconds=0.5, target_ci=0.5
    )
    assert light.ratio == 1.0
    assert light.ratio_ci95 == (1.0, 1.0)
    assert heavy.ratio_ci95[0] > 2.0
    assert heavy.ci95_ms[0] > light.ci95_ms[1]
    assert heavy.ci95_ms[0] <= heavy.median_ms <= heavy.ci95_ms[1]
    assert heavy.median_ms == pytest.approx(np.median(heavy.samples))
    assert (heavy.batch_size, heavy.threads, heavy.device) == (2, 1, device_name())
    assert set(heavy.to_json()) >= {"schema_version", "median_ms", "ci95_ms", "samples", "noisy"}


def test_a_measurement_that_ran_out_of_time_is_flagged() -> None:
    (result,) = measure_interleaved([_product(16)], max_seconds=1e-6)
    assert result.noisy
    assert len(result.samples) == 1


def test_inputs_that_do_not_fit_and_missing_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MeasurementError, match="example inputs"):
        measure_interleaved([_product(16)], np.ones((1, 63)), max_seconds=0.1)
    with pytest.raises(MissingFileError):
        measure_interleaved([tmp_path / "none.onnx"])


def test_random_inputs_follow_the_model_and_the_seed() -> None:
    session = open_session(_product(16), threads=1)
    arrays = example_arrays(session, batch_size=3, seed=1)
    assert arrays["x"].shape == (3, 64)
    assert arrays["x"].dtype == np.float32
    np.testing.assert_array_equal(arrays["x"], example_arrays(session, batch_size=3, seed=1)["x"])
    fixed = open_session(_product(16, batch=5), threads=1)
    assert example_arrays(fixed)["x"].shape == (5, 64)


def test_an_open_axis_that_is_not_the_batch_needs_example_inputs() -> None:
    graph = helper.make_graph(
        [helper.make_node("Relu", ["x"], ["y"])],
        "open",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", "t"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", "t"])],
    )
    opset = [helper.make_opsetid("", 17)]
    model = helper.make_model(graph, opset_imports=opset, ir_version=8)
    session = open_session(model.SerializeToString(), threads=1)
    with pytest.raises(InvalidInputError, match="give example inputs"):
        example_arrays(session)
    assert example_arrays(session, np.ones((1, 7)))["x"].shape == (1, 7)


@pytest.mark.parametrize("kind", ["int16", "uint16", "int64", "float16"])
def test_inputs_are_drawn_in_the_type_of_the_model(kind: str) -> None:
    node = InputNode(name="x", type=f"tensor({kind})", shape=("batch", 3))

    class Session:
        def get_inputs(self) -> list[InputNode]:
            return [node]

    found = example_arrays(Session(), batch_size=2)["x"]
    assert (found.dtype.name, found.shape) == (kind, (2, 3))
    node = InputNode(name="x", type="tensor(bfloat16)", shape=("batch", 3))
    with pytest.raises(InvalidInputError, match=r"'x'.*got tensor\(bfloat16\)"):
        example_arrays(Session(), batch_size=2)
