"""Which trials are stopped, on a ledger that remembers nothing."""

from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.controller import trials
from autocompress.controller.earlier import Earlier
from autocompress.controller.work import Outcome
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.errors import SearchFailedError

COSTS = {"dear": 3.0, "fair": 1.5, "cheap": 0.9}
"""Cost by criterion, which stands for the candidate here; the limit is 1."""


def _forecast() -> Any:
    return SimpleNamespace(
        costs=lambda candidate: {"latency_ms": COSTS[candidate]},
        violations=lambda values: {
            "latency_ms": values["latency_ms"] - 1.0,
            "accuracy": 0.5 - values["accuracy"],
        },
    )


def _run(designs: list[str]) -> Any:
    return SimpleNamespace(
        setup=SimpleNamespace(
            space=SimpleNamespace(from_params=lambda params: params), earlier=Earlier()
        ),
        ledger=SimpleNamespace(designs=lambda: designs),
    )


@pytest.mark.parametrize(
    ("designs", "nearest"),
    [(["dear", "cheap"], 0.0), (["dear", "fair"], 0.5), ([], 0.0)],
)
def test_the_nearest_design_says_how_far_over_the_limit_is_worth_a_trial(
    designs: list[str], nearest: float
) -> None:
    allowed = trials._allowed(_run(designs), _forecast())
    assert allowed == pytest.approx(nearest + trials.COST_SLACK)


def test_proposals_are_guided_to_the_affordable_near_the_best() -> None:
    run = _run(["dear", "cheap"])
    run.ledger.evaluations = lambda: [
        SimpleNamespace(candidate=name, fidelities={0: None}, failed=False) for name in COSTS
    ]
    forecast = _forecast()
    forecast.values = lambda evaluation: COSTS[evaluation.candidate]
    forecast.losses = lambda value: [value]
    guide = trials._guide(run, forecast)
    assert [guide.affordable(name) for name in COSTS] == [False, False, True]  # type: ignore[arg-type]
    assert guide.parents == ("cheap",)


class _Ledger:
    """Holds evaluations, and takes the end of one trial."""

    def __init__(self, evaluations: list[Evaluation]) -> None:
        self.known = evaluations

    def evaluations(self) -> list[Evaluation]:
        return self.known


def _evaluation(slot: int, accuracy: float, *, trained: bool = False) -> Evaluation:
    result = FidelityResult(accuracy=accuracy, images=10, trained_images=0, seconds=1.0)
    return Evaluation(
        slot=slot,
        candidate=Candidate(),
        origin="tpe",
        fidelities={0: result, 1: result} if trained else {0: result},
    )


@pytest.mark.parametrize("lasting", [True, False])
def test_what_diverges_is_not_tried_again_and_stops_the_search_in_time(lasting: bool) -> None:
    ended: list[tuple[str, int]] = []
    ledger = SimpleNamespace(
        prune=lambda ticket, _: ended.append(("prune", ticket.slot)),
        fail=lambda ticket, _: ended.append(("fail", ticket.slot)),
    )
    run: Any = SimpleNamespace(ledger=ledger, say=lambda *_, **__: None)
    flight = trials._Flight(run, None, SimpleNamespace(workers=1))  # type: ignore[arg-type]
    for slot in range(trials.FAILURES_IN_A_ROW - 1):
        flight._fail(SimpleNamespace(slot=slot), "x", lasting=lasting)  # type: ignore[arg-type]
        flight._failures.clear()  # a proxy in between succeeds
    assert {how for how, _ in ended} == {"prune" if lasting else "fail"}
    last: Any = SimpleNamespace(slot=9)
    if lasting:
        with pytest.raises(SearchFailedError, match="6 failures in a row, mostly 'x'"):
            flight._fail(last, "x", lasting=True)
    else:
        flight._fail(last, "x")


@pytest.mark.parametrize(
    ("workers", "slots", "stops"),
    [
        (1, [0, 0, 0, 1, 1, 1], False),  # two candidates that fail each time
        (1, [0, 0, 0, 1, 1, 1, 2], True),
        (8, list(range(8)), False),  # a host with all its workers is lost
        (8, list(range(16)), True),
    ],
)
def test_a_search_is_stopped_by_what_fails_in_general(
    workers: int, slots: list[int], stops: bool
) -> None:
    run: Any = SimpleNamespace(
        ledger=SimpleNamespace(fail=lambda *_: None), say=lambda *_, **__: None
    )
    flight = trials._Flight(run, None, SimpleNamespace(workers=workers))  # type: ignore[arg-type]
    tickets: list[Any] = [SimpleNamespace(slot=slot) for slot in slots]
    for ticket in tickets[:-1]:
        flight._fail(ticket, "its worker died")
    if stops:
        with pytest.raises(SearchFailedError, match=f"{len(slots)} failures in a row"):
            flight._fail(tickets[-1], "its worker died")
    else:
        flight._fail(tickets[-1], "its worker died")


def test_early_members_are_written_where_they_cost_little() -> None:
    asked: list[int] = []

    def members() -> list[Any]:
        asked.append(1)
        return [SimpleNamespace(id=str(n)) for n in range(9)]

    for minutes, looked in ((10.0, 0), (60.0, 1), (None, 1)):
        asked.clear()
        total = None if minutes is None else 60.0 * minutes
        run: Any = SimpleNamespace(
            schedule=SimpleNamespace(total_seconds=total), seconds_per_member=12.0, members=members
        )
        trials._early_member(run, None, _evaluation(3, 0.5))  # type: ignore[arg-type]
        assert len(asked) == looked


def _promoted(accuracy: float, *, trained: int = 0, may_train: bool = True, **ticket: Any) -> bool:
    others = [_evaluation(slot, 0.5, trained=slot < trained) for slot in range(9)]

    def fits(spent: float, each: float) -> bool:
        assert (spent, each) == (float(trained), float(trained > 0))
        return may_train

    run = SimpleNamespace(ledger=_Ledger(others), schedule=SimpleNamespace(may_train=fits))
    forecast = SimpleNamespace(
        values=lambda e: e.fidelities[0].accuracy, losses=lambda value: [1.0 - value]
    )
    given = SimpleNamespace(**({"attributes": {}, "origin": "tpe"} | ticket))
    return trials._promoted(run, forecast, given, _evaluation(9, accuracy))  # type: ignore[arg-type]


def test_the_best_third_is_trained_while_there_is_time() -> None:
    assert _promoted(0.9)
    assert not _promoted(0.9, may_train=False)
    assert not _promoted(0.9, trained=4)  # a third of ten trials is trained already
    assert not _promoted(0.1)


def test_designs_that_ask_for_it_are_trained_and_baselines_never() -> None:
    assert _promoted(0.1, attributes={"promote": True})
    assert not _promoted(0.9, origin="unmodified")
    assert not _promoted(0.9, origin="plain int8")


def test_a_second_outcome_of_the_same_work_is_no_trial() -> None:
    late = Outcome(slot=7, fidelity=1, failure="its worker died")
    pool: Any = SimpleNamespace(workers=2, wait=lambda _: late)
    flight = trials._Flight(None, None, pool)  # type: ignore[arg-type]
    flight.advance()
    assert not flight.begun
