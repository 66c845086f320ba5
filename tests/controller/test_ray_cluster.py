"""Which workers a cluster has room for; Ray itself is stood in for."""

from typing import Any

import pytest

from autocompress.core.executor import Executor
from autocompress.errors import InvalidInputError

ray_cluster = pytest.importorskip(
    "autocompress.controller.ray_cluster", reason="Ray is not installed"
)


@pytest.fixture
def ended(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Stand in for a cluster of two nodes that live and one that does not."""
    ended: list[bool] = []
    nodes = [
        {"Alive": True, "Resources": {"CPU": 2.0}},
        {"Alive": True, "Resources": {"CPU": 1.0, "GPU": 1.0}},
        {"Alive": False, "Resources": {"CPU": 64.0, "GPU": 8.0}},
    ]
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: False)
    monkeypatch.setattr(ray_cluster.ray, "init", lambda **_: None)
    monkeypatch.setattr(ray_cluster.ray, "nodes", lambda: nodes)
    monkeypatch.setattr(ray_cluster.ray, "shutdown", lambda: ended.append(True))
    return ended


@pytest.mark.parametrize(
    ("changes", "words"),
    [({"gpus": 2.0}, r"'gpus': expected at most 1.*got 2"), ({"cpus": 16}, "'cpus'.*at most 2")],
)
def test_workers_that_this_host_has_no_room_for_are_refused(
    ended: list[bool], changes: dict[str, Any], words: str
) -> None:
    with pytest.raises(InvalidInputError, match=words):
        ray_cluster.connect(Executor(name="ray", **changes))
    assert ended


def test_a_cluster_without_room_may_grow_and_says_what_it_waits_for(
    ended: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    assert ray_cluster.connect(Executor(name="ray", address="auto", cpus=2, gpus=1))
    assert "no node has a worker's 2 CPUs and 1 GPUs (at most 2 and 1)" in caplog.text
    assert not ended


def test_a_cluster_that_the_user_connected_to_is_never_ended(
    ended: list[bool], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(ray_cluster.ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray_cluster.ray, "nodes", list)
    assert not ray_cluster.connect(Executor(name="ray", cpus=4))
    assert "4 CPUs and 0 GPUs (at most 0 and 0)" in caplog.text
    assert not ended


def test_a_worker_that_fits_on_a_node_is_not_spoken_of(
    ended: list[bool], caplog: pytest.LogCaptureFixture
) -> None:
    assert ray_cluster.connect(Executor(name="ray", address="auto", cpus=1, gpus=1))
    assert ray_cluster.connect(Executor(name="ray", cpus=2))
    assert not caplog.text
    assert not ended


@pytest.mark.parametrize(
    ("needs", "workers"),
    [({}, 3), ({"cpus": 2}, 1), ({"gpus": 1}, 1), ({"gpus": 0.4}, 1), ({"cpus": 3}, 1)],
)
def test_there_are_as_many_workers_as_nodes_have_room_for(
    ended: list[bool], needs: dict[str, Any], workers: int
) -> None:
    assert ray_cluster.room_for(Executor(name="ray", address="auto", **needs)) == workers
