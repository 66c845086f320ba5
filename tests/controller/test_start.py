from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autocompress.controller import start
from autocompress.controller.start import (
    device_profile,
    keep_given_profile,
    note_guessing,
    refit_profile,
)
from autocompress.core.simulation import Roofline
from autocompress.core.target import Target
from autocompress.cost.simulated import SimulatedProfile
from autocompress.errors import ExportError
from autocompress.evaluation.task import Task


class _Profile:
    """Keeps what it is refitted with."""

    def __init__(self, anchors: tuple[Any, ...] = ()) -> None:
        self.anchors = anchors

    def anchor(self, graph: str, candidate: str, latency_ms: float) -> tuple[str, str, float]:
        return graph, candidate, latency_ms

    def refit(self, anchors: list[Any]) -> "_Profile":
        return _Profile(tuple(anchors))


def _run(given: object) -> Any:
    members = [SimpleNamespace(id=name, candidate=f"candidate {name}") for name in ("0", "1")]
    return SimpleNamespace(
        setup=SimpleNamespace(profile=given, graph="graph"),
        ledger=SimpleNamespace(get=lambda key, default: {"0": 2.0}),
        members=lambda: members,
    )


def test_measured_members_correct_a_profile_and_others_do_not() -> None:
    refitted: Any = refit_profile(_run(None), _Profile())  # type: ignore[arg-type]
    assert refitted.anchors == (("graph", "candidate 0", 2.0),)


def test_a_profile_that_was_given_stays_as_it_is() -> None:
    profile: Any = _Profile()
    assert refit_profile(_run(profile), profile) is profile


def test_a_profile_that_was_given_replaces_the_one_that_a_study_had(tmp_path: Path) -> None:
    said: list[str] = []

    def begin(bandwidth: float | None) -> Any:
        given = None
        if bandwidth is not None:
            hardware = Roofline(peak_gmacs=((32, 32, 20.0),), bandwidth_gbs=bandwidth)
            given = SimulatedProfile(target=Target(name="npu", simulation=hardware))
        run: Any = SimpleNamespace(
            setup=SimpleNamespace(profile=given, study_dir=tmp_path),
            say=lambda _, message: said.append(message),
        )
        keep_given_profile(run)
        return device_profile(run)

    first = begin(4.0)
    assert begin(4.0) == first
    assert begin(None) == first
    assert said == []
    second = begin(8.0)
    assert second.target.simulation.bandwidth_gbs == 8.0
    assert begin(None) == second
    assert said == ["predicting with the given profile from now on, not with the kept one"]


def test_networks_that_the_quick_exporter_refuses_are_not_timed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise ExportError("no symbolic function for rms_norm")

    monkeypatch.setattr(start, "measure_networks", refuse)
    said: list[str] = []
    run: Any = SimpleNamespace(
        setup=SimpleNamespace(space=None, model=None),
        evaluator=SimpleNamespace(inputs=((), {})),
        schedule=SimpleNamespace(at_most=lambda seconds, _: seconds),
        say=lambda _, message: said.append(message),
    )
    profile: Any = _Profile()
    assert start._time_networks(run, profile) is profile
    assert said[-1] == "whole candidates are not timed: no symbolic function for rms_norm"


@pytest.mark.parametrize(("accuracy", "noted"), [(0.52, True), (0.9, False)])
def test_an_original_that_guesses_is_noted(accuracy: float, noted: bool) -> None:
    labels = torch.tensor([0, 1]).repeat(100)
    val = ((torch.zeros(200, 3), labels),)
    notes: list[tuple[str, str]] = []
    run: Any = SimpleNamespace(
        setup=SimpleNamespace(task=Task(train=val, val=val), splits=SimpleNamespace(val=val)),
        note=lambda *note: notes.append(note),
    )
    note_guessing(run, accuracy)
    words = (
        "the original's accuracy of 52.0 % is hardly more than always answering the commonest "
        "class has: 50.0 %; check its weights"
    )
    assert notes == [("baseline", words)] * noted
