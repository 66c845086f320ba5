import gc
import os

import pytest

from autocompress.cost.steady import bound_to, garbage_kept


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="the system binds no threads")
def test_a_thread_is_bound_and_released() -> None:
    before = os.sched_getaffinity(0)
    with bound_to(1):
        assert len(os.sched_getaffinity(0)) == 1
    assert os.sched_getaffinity(0) == before
    with bound_to(None):
        assert os.sched_getaffinity(0) == before


def test_the_garbage_collector_comes_back() -> None:
    with garbage_kept():
        assert not gc.isenabled()
    assert gc.isenabled()
