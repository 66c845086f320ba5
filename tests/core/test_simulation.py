import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.core.simulation import (
    BUILT_IN,
    Accelerator,
    LookupTable,
    Roofline,
    parse_simulation,
)
from autocompress.core.target import Target
from autocompress.errors import InvalidInputError, MissingFileError, WrongTypeError

ROOFLINE = Roofline(peak_gmacs=((32, 32, 20.0), (8, 8, 80)), bandwidth_gbs=4)
TABLE = LookupTable(cycles=(((1.0, 2.0), (3.0, 4.0)),))


@pytest.mark.parametrize("simulation", [ROOFLINE, TABLE, *BUILT_IN.values()])
def test_a_description_survives_json(simulation: Any) -> None:
    assert parse_simulation(json.loads(json.dumps(simulation.to_json()))) == simulation
    target = Target(name="npu", threads=2, simulation=simulation)
    assert Target.from_json(json.loads(json.dumps(target.to_json()))) == target


def test_a_simulated_target_executes_what_its_hardware_does() -> None:
    assert Target.named("bit-serial").executed(3, 5) == (3, 5)
    assert Target.named("bit-serial").executed(32, 32) == (32, 32)
    assert Target.named("bit-fusion").executed(3, 5) == (4, 8)
    assert Target(name="npu", simulation=ROOFLINE).executed(2, 4) == (8, 8)
    assert Target(name="npu", simulation=TABLE).precisions == ((1, 2), (2, 2), (32, 32))


def test_energy_is_only_for_hardware_that_tells_it() -> None:
    Target.named("bit-serial").check_costs(["energy_mj"])
    for target in (Target(name="npu", simulation=TABLE), Target.named("onnxruntime-cpu")):
        target.check_costs(["latency_ms"])
        with pytest.raises(InvalidInputError, match="energy_mj"):
            target.check_costs(["energy_mj"])


@pytest.mark.parametrize(
    ("record", "error", "words"),
    [
        ({"kind": "rooflin"}, InvalidInputError, "did you mean 'roofline'"),
        ({"kind": "roofline", "bandwidth_gbs": 4}, InvalidInputError, "peak_gmacs"),
        ({"kind": "roofline", "peak_gmacs": 3, "bandwidth_gbs": 4}, WrongTypeError, "mapping"),
        (
            {"kind": "roofline", "peak_gmacs": {"8x8": 3}, "bandwidth_gbs": 4},
            InvalidInputError,
            "32x32",
        ),
        (
            {"kind": "roofline", "peak_gmacs": {"32x32": 0}, "bandwidth_gbs": 4},
            InvalidInputError,
            "above 0",
        ),
        ({"kind": "accelerator", "rows": "16"}, WrongTypeError, "rows"),
        ({"kind": "accelerator", "rows": 1.5}, WrongTypeError, "integer"),
        ({"kind": "accelerator", "lanes": -1}, InvalidInputError, "lanes"),
        ({"kind": "accelerator", "weight_bits": [0]}, InvalidInputError, "weight_bits"),
        ({"kind": "accelerator", "columns": 3}, InvalidInputError, "columns"),
        ({"kind": "table", "cycles": [[[1, 2], [3]]]}, InvalidInputError, "shape"),
        ({"kind": "table", "cycles": [[[1, 0]]]}, InvalidInputError, "above 0"),
        ({"kind": "table", "cycles": 3}, WrongTypeError, "cycles"),
        ({"kind": "accelerator", "weight_bits": 8}, WrongTypeError, "weight_bits"),
        ({"kind": ["table"]}, WrongTypeError, "kind"),
        ({"kind": "table", "file": "none.npz"}, MissingFileError, "none.npz"),
    ],
)
def test_wrong_descriptions_are_refused(
    record: dict[str, Any], error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        parse_simulation(record)


def test_a_table_is_imported_from_numpy_and_json(tmp_path: Path) -> None:
    cycles = np.arange(1, 25).reshape(3, 4, 2)
    np.savez(tmp_path / "lut.npz", cycles=cycles)
    np.save(tmp_path / "lut.npy", cycles)
    (tmp_path / "lut.json").write_text(json.dumps({"cycles": cycles.tolist()}))
    for name in ("lut.npz", "lut.npy", "lut.json"):
        read = parse_simulation({"kind": "table", "file": name, "clock_mhz": 100}, tmp_path)
        assert isinstance(read, LookupTable)
        assert np.array_equal(read.cycles, cycles)
        assert read.clock_mhz == 100
    with pytest.raises(InvalidInputError, match="'times'"):
        parse_simulation({"kind": "table", "file": "lut.npz", "array": "times"}, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("lut.npz", b"PK\x03\x04 and no more"),
        ("lut.npy", b""),
        ("lut.json", b'{"cycles": {"a": 1}}'),
        ("lut.json", b"["),
    ],
)
def test_a_damaged_table_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InvalidInputError, match=name):
        LookupTable.read(tmp_path / name)


def test_an_accelerator_has_sensible_bits() -> None:
    assert (1, 2) in Accelerator().precisions
    assert max(max(pair) for pair in Accelerator(weight_bits=(4, 16)).precisions[:-1]) <= 8
