import math
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.controller import sensitivity
from autocompress.controller.ladder import Rung
from autocompress.controller.sensitivity import (
    FEWEST_IMAGES,
    FIRST_LOOKS,
    FORWARDS,
    IMAGES,
    LADDER_SHARE,
    _images,
    find_ladders,
)
from autocompress.core.candidate import Candidate
from autocompress.evaluation.splits import SENSITIVITY_IMAGES
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph


class Kept(dict[str, Any]):
    """A ledger that keeps values."""

    def set(self, key: str, value: Any) -> None:
        self[key] = value


def test_a_resumed_study_reads_its_ladders_and_evaluates_nothing() -> None:
    candidate = Candidate(pruning_ratios={"conv1": 0.5})
    rung = {"candidate": candidate.to_json(), "deviation": 0.25, "cost": 0.75}
    run: Any = SimpleNamespace(ledger=Kept(ladders={"latency_ms": [rung]}))
    forecast: Any = None
    assert find_ladders(run, forecast) == {
        "latency_ms": [Rung(candidate=candidate, deviation=0.25, cost=0.75)]
    }


def test_an_interrupted_pass_goes_on_where_it_was(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sensitivity, "KEEP_SECONDS", 0.0)
    candidates = [Candidate(pruning_ratios={"conv1": r}) for r in (0.1, 0.2, 0.3)]
    evaluated: list[Candidate] = []

    def deviation(candidate: Candidate) -> float:
        if len(evaluated) == 2:
            raise KeyboardInterrupt
        evaluated.append(candidate)
        return candidate.pruning_ratios["conv1"]

    def build(*arguments: Any, **_: Any) -> list[Rung]:
        found = [arguments[2](candidate) for candidate in candidates]
        return [Rung(candidate=candidates[0], deviation=sum(found), cost=1.0)]

    monkeypatch.setattr(sensitivity, "build_ladder", build)
    monkeypatch.setattr(sensitivity, "ladder_start", lambda _: None)
    ledger = Kept()
    run: Any = SimpleNamespace(
        ledger=ledger,
        evaluator=SimpleNamespace(
            deviation=deviation, traces={"conv1": 2.0}, look_at=lambda _: None
        ),
        say=lambda *_: None,
        note_time=lambda: None,
        schedule=SimpleNamespace(total_seconds=None, elapsed=0.0),
        setup=SimpleNamespace(objectives=[SimpleNamespace(name="latency_ms")], space=None),
    )
    ledger["hessian_traces"] = {"conv1": 2.0}
    forecast: Any = SimpleNamespace(allowance=lambda _: {})
    with pytest.raises(KeyboardInterrupt):
        find_ladders(run, forecast)
    assert run.evaluator.traces == {"conv1": 2.0}
    first = list(evaluated)
    evaluated.clear()
    found = find_ladders(run, forecast)
    assert evaluated == candidates[2:]
    assert first == candidates[:2]
    assert found["latency_ms"][0].deviation == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("allowance", "floor", "needed"),
    [({}, 0.25, 1.0), ({"latency_ms": 1.4}, 0.25, 1.0), ({"latency_ms": 0.3}, 0.18, 0.18)],
)
def test_ladders_go_below_limits(
    monkeypatch: pytest.MonkeyPatch, allowance: dict[str, float], floor: float, needed: float
) -> None:
    asked: dict[str, Any] = {}

    def build(*_: Any, **how: Any) -> list[Rung]:
        asked.update(how)
        return [Rung(candidate=Candidate(), deviation=0.0, cost=1.0)]

    monkeypatch.setattr(sensitivity, "build_ladder", build)
    monkeypatch.setattr(sensitivity, "ladder_start", lambda _: None)
    run: Any = SimpleNamespace(
        ledger=Kept(),
        evaluator=SimpleNamespace(traces=None, look_at=lambda _: None),
        say=lambda *_: None,
        note_time=lambda: None,
        schedule=SimpleNamespace(total_seconds=None, elapsed=0.0),
        setup=SimpleNamespace(objectives=[SimpleNamespace(name="latency_ms")], space=None),
    )
    forecast: Any = SimpleNamespace(allowance=lambda _: allowance)
    find_ladders(run, forecast)
    assert asked["floor"] == pytest.approx(floor)
    assert asked["needed"] == pytest.approx(needed)


def test_predictions_that_are_no_numbers_are_lost_ones() -> None:
    run: Any = SimpleNamespace(
        ledger=Kept(),
        evaluator=SimpleNamespace(deviation=lambda _: math.nan, traces=None),
        note_time=lambda: None,
    )
    assert sensitivity._Remembered(run)(Candidate()) == sensitivity.LOST


class _Forecast:
    """Costs that are all read off the bits and blocks, one call for many."""

    def costs(self, candidate: Candidate) -> dict[str, float]:
        found: dict[str, float] = {"latency_ms": self.all_costs([candidate], [])["latency_ms"][0]}
        return found

    def all_costs(self, candidates: Sequence[Candidate], _: Sequence[str]) -> dict[str, Any]:
        return {"latency_ms": [10.0 - len(c.dropped_blocks) for c in candidates]}


@pytest.mark.parametrize(
    ("minutes", "known", "images"),
    [
        (None, {}, SENSITIVITY_IMAGES),
        (60.0, {}, SENSITIVITY_IMAGES),
        (0.05, {}, FEWEST_IMAGES),
        (0.05, {"deviations": {"of an older version": 1.0}}, FEWEST_IMAGES),
        (60.0, {IMAGES: 300, "deviations": {"some": 1.0}}, 300),
    ],
)
def test_where_minutes_are_few_deviations_are_taken_on_fewer_images(
    minutes: float | None, known: dict[str, Any], images: int
) -> None:
    space = SearchSpace.load("cnn").bind_graph(residual_graph())
    run: Any = SimpleNamespace(
        ledger=Kept(dict(known)),
        evaluator=SimpleNamespace(original_seconds=0.001),
        schedule=SimpleNamespace(total_seconds=minutes and 60.0 * minutes),
        setup=SimpleNamespace(space=space),
    )
    forecast: Any = _Forecast()
    assert _images(run, forecast, ["latency_ms"]) == images
    assert run.ledger[IMAGES] == images
    assert run.ledger.get("deviations") == ({"some": 1.0} if IMAGES in known else {})
    run.schedule.total_seconds = 600.0
    assert _images(run, forecast, ["latency_ms"]) == images  # what was begun stays


def test_images_are_as_many_as_let_all_first_moves_be_tried() -> None:
    space = SearchSpace.load("cnn").bind_graph(residual_graph())
    run: Any = SimpleNamespace(
        ledger=Kept(),
        evaluator=SimpleNamespace(original_seconds=0.001),
        schedule=SimpleNamespace(total_seconds=20.0),
        setup=SimpleNamespace(space=space),
    )
    forecast: Any = _Forecast()
    blocks = len(space.blocks)
    expected = FIRST_LOOKS * LADDER_SHARE * 20.0 / (blocks * FORWARDS * 0.001)
    assert FEWEST_IMAGES < expected < SENSITIVITY_IMAGES
    assert _images(run, forecast, ["latency_ms"]) == int(expected)
    run.ledger.clear()
    assert _images(run, forecast, []) == SENSITIVITY_IMAGES  # without costs, there is no ladder
