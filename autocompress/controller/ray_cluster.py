"""The Ray cluster of a search: one that runs, or one of this host alone."""

import logging
import os
import socket
import warnings

import ray

from autocompress.core.executor import Executor
from autocompress.errors import InvalidInputError, SearchFailedError, explain

REACH_SECONDS = 10.0
"""Time that a cluster has to answer."""

_SETTINGS = {
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "RAY_AIR_NEW_OUTPUT": "0",
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
}
"""What Ray is told by its environment: the study is the record of a search, not Tune's files."""

_log = logging.getLogger(__name__)


def connect(executor: Executor) -> bool:
    """Connect to a cluster, or start one on this host; tell whether this was done here.

    Raises:
        InvalidInputError: If a worker needs more than this host has.
        SearchFailedError: If there is no cluster.
    """
    os.environ.update({key: value for key, value in _SETTINGS.items() if key not in os.environ})
    for name in ("ray.tune", "ray.air"):
        logging.getLogger(name).setLevel(logging.CRITICAL)
    if ray.is_initialized():
        _check_room(executor, may_grow=True)
        return False
    try:
        _reach(executor.address)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            ray.init(
                address=executor.address or "local",
                num_cpus=(executor.workers * executor.cpus if executor.workers else None)
                if executor.address is None
                else None,
                include_dashboard=None if executor.address else False,
                log_to_driver=False,
                logging_level=logging.ERROR,
            )
    except (ConnectionError, ValueError, RuntimeError, OSError) as error:
        raise SearchFailedError(
            explain(
                "executor 'ray'",
                expected=f"a cluster at '{executor.address}'",
                got=" ".join(str(error).split())[:300],
                remedy="start one by 'ray start --head', or leave 'address' out",
            )
        ) from error
    _check_room(executor, may_grow=executor.address is not None)
    return True


def room_for(executor: Executor) -> int:
    """Count the workers that fit on the nodes of the cluster as it is, at least one."""
    fitting = 0
    for node in _alive():
        shares = [node.get("CPU", 0.0) / executor.cpus]
        if executor.gpus >= 1:
            shares.append(node.get("GPU", 0.0) / executor.gpus)
        elif executor.gpus:  # a part of one
            shares.append(node.get("GPU", 0.0) * int(1.0 / executor.gpus + 1e-9))
        fitting += int(min(shares) + 1e-9)
    return max(1, fitting)


def _alive() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _check_room(executor: Executor, *, may_grow: bool) -> None:
    """Look for a node that a worker fits on, without which Ray would wait.

    A cluster may grow, so that it is only said; one of this host alone never does, and refuses.
    """
    nodes = _alive()
    wanted = {"CPU": executor.cpus, "GPU": executor.gpus}
    if any(all(node.get(key, 0.0) >= wanted[key] for key in wanted) for node in nodes):
        return
    most = {key: max((node.get(key, 0.0) for node in nodes), default=0.0) for key in wanted}
    if may_grow:
        words = "no node has a worker's %g CPUs and %g GPUs (at most %g and %g): waiting for one"
        _log.warning(words, *wanted.values(), *most.values())
        return
    ray.shutdown()
    key = max(wanted, key=lambda key: wanted[key] - most[key])
    raise InvalidInputError(
        explain(
            f"executor '{key.lower()}s'",
            expected=f"at most {most[key]:g}, which this host has",
            got=wanted[key],
            remedy="lower it, or name a cluster with 'address'",
        )
    )


def _reach(address: str | None) -> None:
    """Try a host and port, which Ray itself would try for minutes."""
    host, _, port = (address or "").rpartition(":")
    if host and "/" not in host and port.isdigit():
        socket.create_connection((host, int(port)), REACH_SECONDS).close()
