from pathlib import Path

import torch
from torch import nn

from autocompress.evaluation.snapshot import Snapshots, prefixed, under


def _tensors() -> dict[str, torch.Tensor]:
    return {"a": torch.arange(3.0), "b": torch.get_rng_state()}


def test_what_is_offered_is_read_by_the_same_training_alone(tmp_path: Path) -> None:
    path = tmp_path / "x.training"
    snapshots = Snapshots(path, {"of": (1, 2)}, 1e-9)
    assert snapshots.read() is None
    snapshots.stage, snapshots.teacher = {"number": 1}, nn.Linear(2, 2)
    snapshots.offer({"seen": 7}, _tensors)
    same = Snapshots(path, {"of": (1, 2)}, 1.0)
    found = same.read()
    assert found is not None
    assert found[0] == {"seen": 7, "stage": {"number": 1}}
    assert torch.equal(found[1]["a"], torch.arange(3.0))
    assert set(under("taught", found[1])) == {"weight", "bias"}
    assert same.read_stage() is None
    same.stage = {"number": 1}
    assert same.read_stage() is not None
    assert Snapshots(path, {"of": (1, 3)}, 1.0).read() is None
    same.drop()
    assert same.read() is None


def test_nothing_is_written_before_it_is_time(tmp_path: Path) -> None:
    snapshots = Snapshots(tmp_path / "x.training", {}, 1e9)
    snapshots.offer({}, lambda: 1 / 0)  # type: ignore[arg-type, return-value]
    assert not list(tmp_path.iterdir())


def test_a_damaged_file_means_to_begin_at_the_beginning(tmp_path: Path) -> None:
    (tmp_path / "x.training").write_bytes(b"no tensors")
    assert Snapshots(tmp_path / "x.training", {}, 1.0).read() is None


def test_prefixes_come_off_again() -> None:
    tensors = _tensors()
    assert under("p", prefixed("p", tensors) | prefixed("q", tensors)) == tensors
