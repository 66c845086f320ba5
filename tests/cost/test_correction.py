import numpy as np
import pytest

from autocompress.core.candidate import Candidate
from autocompress.cost.correction import Anchor, Correction, fit_correction
from autocompress.errors import InvalidInputError


def _anchor(kernel_ms: float, latency_ms: float) -> Anchor:
    return Anchor(candidate=Candidate(), kernel_ms=kernel_ms, latency_ms=latency_ms)


def test_a_line_is_recovered_from_spread_anchors() -> None:
    sums = np.linspace(0.1, 2.0, 30)
    fitted = fit_correction([_anchor(x, 0.05 + 1.2 * x) for x in sums])
    assert fitted.offset_ms == pytest.approx(0.05, abs=0.005)
    assert fitted.scale == pytest.approx(1.2, rel=0.02)


def test_close_anchors_cannot_tilt_the_line() -> None:
    fitted = fit_correction([_anchor(1.0, 1.10), _anchor(1.001, 1.15)])
    assert fitted.scale == pytest.approx(1.12, abs=0.05)
    assert fitted.offset_ms == pytest.approx(0.0, abs=0.05)
    same = fit_correction([_anchor(1.0, 1.1), _anchor(1.0, 1.3)])
    assert abs(same.offset_ms) < 1e-9


def test_an_anchor_survives_json() -> None:
    anchor = Anchor(
        candidate=Candidate(pruning_ratios={"conv": 0.5}),
        kernel_ms=1.5,
        latency_ms=2.0,
        boundaries=3,
    )
    assert Anchor.from_json(anchor.to_json()) == anchor
    with pytest.raises(InvalidInputError, match="boundaries"):
        Anchor.from_json({**anchor.to_json(), "boundary": 1})


def test_corrections_are_plain_lines() -> None:
    assert Correction() == Correction(offset_ms=0.0, scale=1.0)
    with pytest.raises(InvalidInputError, match="latency_ms"):
        _anchor(1.0, float("nan"))
