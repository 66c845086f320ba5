from types import SimpleNamespace
from typing import Any

from autocompress.controller.ladder import Rung
from autocompress.controller.sensitivity import find_ladders
from autocompress.core.candidate import Candidate


def test_a_resumed_study_reads_its_ladders_and_evaluates_nothing() -> None:
    candidate = Candidate(pruning_ratios={"conv1": 0.5})
    rung = {"candidate": candidate.to_json(), "deviation": 0.25, "cost": 0.75}
    run: Any = SimpleNamespace(ledger=SimpleNamespace(get=lambda key: {"latency_ms": [rung]}))
    forecast: Any = None
    assert find_ladders(run, forecast) == {
        "latency_ms": [Rung(candidate=candidate, deviation=0.25, cost=0.75)]
    }
