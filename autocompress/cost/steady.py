"""What keeps a measurement from being disturbed by its own process."""

import gc
import os
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def bound_to(threads: int | None) -> Iterator[None]:
    """Keep the thread on as many processors as it may use, where the system can do that."""
    if threads is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    allowed = os.sched_getaffinity(0)
    os.sched_setaffinity(0, sorted(allowed)[-threads:])
    try:
        yield
    finally:
        os.sched_setaffinity(0, allowed)


@contextmanager
def garbage_kept() -> Iterator[None]:
    """Keep the garbage collector from running."""
    was_enabled = gc.isenabled()
    gc.collect()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
