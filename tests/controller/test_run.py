"""What a run says while something trains."""

from types import SimpleNamespace

import pytest

from autocompress.controller import run as run_module
from autocompress.controller.run import HEARTBEAT_SECONDS, NEWS_SECONDS, Run


class _Ledger(dict[str, float]):
    """Counts how often the time is noted."""

    notes = 0

    def set(self, key: str, value: float) -> None:
        self[key] = value
        self.notes += 1


def test_training_notes_the_time_often_and_speaks_seldom(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr(run_module, "time", SimpleNamespace(monotonic=lambda: now))
    said: list[str] = []
    fake = SimpleNamespace(
        ledger=_Ledger(),
        schedule=SimpleNamespace(elapsed=7.0),
        say=lambda stage, message: said.append(f"{stage}: {message}"),
    )
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
