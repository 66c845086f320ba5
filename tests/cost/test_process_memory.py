import sys

import numpy as np
import pytest

from autocompress.cost import process_memory
from autocompress.cost.process_memory import peak_growth


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_memory_that_is_given_back_counts_at_its_peak() -> None:
    def work() -> int:
        return int(np.ones(40_000_000, np.uint8).sum())

    total, grown = peak_growth(work)
    assert total == 40_000_000
    assert grown is not None
    assert 35e6 < grown < 80e6


def test_other_systems_do_not_tell(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(process_memory, "_RESET", process_memory.Path("/nowhere/clear_refs"))
    assert peak_growth(lambda: 3) == (3, None)
