from types import SimpleNamespace
from typing import Any

from autocompress.controller.start import refit_profile


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
