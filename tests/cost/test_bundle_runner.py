import os
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from autocompress.cost.bundle_runner import (
    WARM_UP,
    bind,
    device_name,
    main,
    open_call,
    time_rounds,
    unsettled,
)


def test_every_round_visits_every_call_after_a_warm_up() -> None:
    visits: list[int] = []
    table = time_rounds([lambda: visits.append(0), lambda: visits.append(1)], 4)
    assert table.shape == (4, 2)
    assert (table >= 0).all()
    assert visits.count(0) == visits.count(1)
    starts = visits[:: len(visits) // (2 * (WARM_UP + 4))]
    assert {tuple(starts[n : n + 2]) for n in range(0, len(starts), 2)} == {(0, 1), (1, 0)}


def test_ratios_tell_what_is_settled() -> None:
    rng = np.random.default_rng(0)
    drift = np.linspace(1.0, 3.0, 30)[:, None]  # of the whole device
    ratios = np.stack([np.ones(30), np.full(30, 2.0), rng.uniform(0.5, 1.5, 30)], axis=1)
    assert unsettled(drift * ratios).tolist() == [False, True]


def test_a_model_runs_on_inputs_of_its_own_kinds(tmp_path: Path) -> None:
    kinds = {"a": TensorProto.FLOAT, "b": TensorProto.INT64, "c": TensorProto.UINT8}
    inputs = [helper.make_tensor_value_info(n, kind, ["batch", 3]) for n, kind in kinds.items()]
    nodes = [helper.make_node("Shape", [name], [f"shape {name}"]) for name in kinds]
    outputs = [helper.make_tensor_value_info(f"shape {n}", TensorProto.INT64, [2]) for n in kinds]
    graph = helper.make_graph(nodes, "shapes", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 21)], ir_version=10)
    onnx.save(model, tmp_path / "shapes.onnx")
    found = open_call(tmp_path / "shapes.onnx", threads=1, batch_size=5)()
    assert [shape.tolist() for shape in found] == [[5, 3]] * 3  # type: ignore[attr-defined]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux binds a process")
def test_the_runner_stays_on_as_many_processors_as_threads() -> None:
    before = os.sched_getaffinity(0)
    try:
        bind(1)
        assert os.sched_getaffinity(0) == {max(before)}
    finally:
        os.sched_setaffinity(0, before)


@pytest.mark.parametrize(
    ("options", "words"),
    [(["--rounds", "2"], "expected 3 or more, got 2"), ([], "copy the whole folder")],
)
def test_wrong_use_is_said_in_a_line(
    options: list[str],
    words: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["runner.py", *options])
    with pytest.raises(SystemExit) as stopped:
        main()
    assert stopped.value.code == 2
    assert words in capsys.readouterr().err


def test_a_device_has_a_name() -> None:
    assert device_name().strip()


def test_threads_rest_between_the_runs_of_a_model(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[onnxruntime.SessionOptions] = []

    class Session:
        def __init__(self, _: str, options: onnxruntime.SessionOptions, providers: object) -> None:
            seen.append(options)

        def get_inputs(self) -> list[object]:
            return []

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    open_call(tmp_path / "model.onnx", threads=2, batch_size=1)
    assert seen[0].get_session_config_entry("session.force_spinning_stop") == "1"
