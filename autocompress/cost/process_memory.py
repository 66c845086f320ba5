"""How much memory a piece of work adds to this process at its peak."""

import ctypes
import gc
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def peak_growth(work: Callable[[], T]) -> tuple[T, int | None]:
    """Run something, and tell by how much it raised the process's resident memory.

    The kernel's high-water mark is reset before (Linux only). Memory that the
    process holds free is given back first, so that it hides nothing; pages of
    files that were read before do not count again.

    Args:
        work: What to run.

    Returns:
        What it returned, and bytes; None where the system does not tell.
    """
    gc.collect()
    before = _resident_before()
    result = work()
    return result, None if before is None else max(0, _kilobytes("VmHWM") * 1024 - before)


def _resident_before() -> int | None:
    try:
        ctypes.CDLL(None).malloc_trim(0)
        _RESET.write_text("5")
        return _kilobytes("VmRSS") * 1024
    except (OSError, AttributeError):
        return None


def _kilobytes(key: str) -> int:
    for line in _STATUS.read_text(encoding="utf-8").splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1])
    return 0
