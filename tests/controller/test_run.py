"""What a run says while something trains."""

from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import pytest

from autocompress.controller import run as run_module
from autocompress.controller.run import HEARTBEAT_SECONDS, MEMBER_SECONDS, NEWS_SECONDS, Run


class _Ledger(dict[str, Any]):
    """Counts how often the time is noted."""

    notes = 0

    def set(self, key: str, value: Any) -> None:
        self[key] = value
        self.notes += 1


def test_training_notes_the_time_often_and_speaks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: now))
    said: list[str] = []
    fake = SimpleNamespace(
        ledger=_Ledger(),
        schedule=SimpleNamespace(elapsed=7.0),
        evaluator=SimpleNamespace(seconds_per_image=0.5),
        _speed=0.5,
        say=lambda stage, message, **_: said.append(f"{stage}: {message}"),
    )
    fake.note_time = lambda: Run.note_time(fake)  # type: ignore[arg-type]
    step = Run.watch(fake, "finalists", "finalist 3")  # type: ignore[arg-type]
    step(0.1)
    assert (fake.ledger.notes, said) == (0, [])
    now += HEARTBEAT_SECONDS
    step(0.2)
    step(0.2)
    assert (fake.ledger["elapsed_s"], fake.ledger.notes, said) == (7.0, 1, [])
    now += NEWS_SECONDS
    step(0.5)
    step(0.5)
    assert said == ["finalists: finalist 3 is trained to 50%"]


def test_a_resumed_run_knows_how_long_members_and_images_take(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("Schedule", "Evaluator", "MemberStore"):
        monkeypatch.setattr(run_module, name, MagicMock())
    setup, ledger = MagicMock(), _Ledger()
    first = Run(setup, ledger)  # type: ignore[arg-type]
    assert first.evaluator.seconds_per_image == 0.0
    first.schedule.elapsed = 3.0
    first.note_member(2.0)
    first.evaluator.seconds_per_image = 0.01
    first.note_time()
    resumed = Run(setup, ledger)  # type: ignore[arg-type]
    assert resumed.seconds_per_member == first.seconds_per_member == 0.5 * MEMBER_SECONDS
    assert resumed.evaluator.seconds_per_image == 0.01
    resumed.note_member(40.0)
    assert Run(setup, ledger).seconds_per_member == 40.0  # type: ignore[arg-type]


def test_the_pace_of_a_trained_candidate_is_found_once(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    monkeypatch.setattr(
        run_module, "pace", lambda _, candidate: asked.append(candidate) or candidate
    )
    known = [
        SimpleNamespace(slot=slot, candidate=0.2 * slot, fidelities={0: None, 1: None})
        for slot in range(3)
    ]
    ledger = SimpleNamespace(evaluations=lambda: known)
    fake: Any = SimpleNamespace(ledger=ledger, setup=SimpleNamespace(graph=None), _paces={})
    usual: Any = Run.usual_pace
    known[2].fidelities = {0: None}
    assert [usual.fget(fake) for _ in range(2)] == [pytest.approx(0.1)] * 2
    known[2].fidelities = {0: None, 1: None}
    assert usual.fget(fake) == pytest.approx(0.2)
    assert len(asked) == 3


def test_a_note_is_said_and_kept_for_the_report() -> None:
    said: list[tuple[str, str]] = []
    fake: Any = SimpleNamespace(
        ledger=_Ledger(notes=["First."]), say=lambda *what: said.append(what)
    )
    Run.note(fake, "baseline", "it is noisy")
    assert fake.ledger["notes"] == ["First.", "It is noisy."]
    assert said == [("baseline", "it is noisy")]
