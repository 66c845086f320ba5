"""The kept predictor: fitted again from its file, or from the study where that is damaged."""

import logging
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from autocompress.controller.kept_predictor import (
    KEPT,
    check_kept_predictor,
    keep_predictor,
    read_predictor,
)
from autocompress.controller.ledger import Ledger
from autocompress.controller.sampler import make_sampler
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import FidelityResult
from autocompress.errors import InvalidInputError
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(2, 16))
HELD_OUT = [SPACE.sample(seed) for seed in range(100, 110)]


def _accuracy(candidate: Candidate) -> float:
    ratios = sum(candidate.pruning_ratios.values())
    return 0.9 - 0.02 * ratios - 0.1 * len(candidate.dropped_blocks)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A study of fifteen trials, whose forecast is what they reached."""
    folder = tmp_path_factory.mktemp("study")
    ledger = Ledger.open(
        folder / "study.db",
        metric_names=["accuracy", "latency_ms"],
        identity={"space": SPACE.fingerprint},
        seed=0,
    )
    for _ in range(15):
        ticket = ledger.ask(SPACE, lambda slot: make_sampler("random", 0, slot))
        accuracy = _accuracy(ticket.candidate)
        result = FidelityResult(accuracy=accuracy, images=10, trained_images=0, seconds=0.1)
        ledger.record(ticket, 0, result)
        ledger.complete(ticket, [1.0 - accuracy, 1.0], {}, accuracy)
    said: list[str] = []
    yield SimpleNamespace(
        ledger=ledger,
        evaluations=ledger.evaluations,
        setup=SimpleNamespace(space=SPACE, study_dir=folder, seed=0),
        said=said,
        say=lambda stage, message: said.append(message),
    )
    ledger.close()


@pytest.fixture
def run(study: Any) -> Any:
    """The study without a kept predictor."""
    (study.setup.study_dir / KEPT).unlink(missing_ok=True)
    study.said.clear()
    return study


FORECAST: Any = SimpleNamespace(accuracy=lambda evaluation: evaluation.fidelities[0].accuracy)


def test_what_is_read_predicts_what_was_kept(run: Any) -> None:
    keep_predictor(run, FORECAST)
    found = read_predictor(run.setup.study_dir, SPACE)
    mean, deviation = found.predict(HELD_OUT)
    truth = np.array([_accuracy(candidate) for candidate in HELD_OUT])
    assert np.abs(mean - truth).mean() < 0.5 * np.abs(truth - truth.mean()).mean()
    assert (deviation > 0.0).all()
    assert found.rank_correlation > 0.5
    assert not list((run.setup.study_dir / KEPT).parent.glob("*.tmp"))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and then nothing"])
def test_a_damaged_file_is_fitted_anew_with_a_word(
    run: Any, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    keep_predictor(run, FORECAST)
    path = run.setup.study_dir / KEPT
    whole = read_predictor(run.setup.study_dir, SPACE).predict(HELD_OUT)
    path.write_bytes(damage)
    with caplog.at_level(logging.WARNING):
        rebuilt = read_predictor(run.setup.study_dir, SPACE).predict(HELD_OUT)
    assert "damaged" in caplog.text
    np.testing.assert_allclose(rebuilt, whole)
    check_kept_predictor(run, FORECAST)  # a search that goes on writes it anew
    assert any("damaged" in message for message in run.said)
    np.testing.assert_allclose(read_predictor(run.setup.study_dir, SPACE).predict(HELD_OUT), whole)


def test_an_intact_file_needs_no_word(run: Any) -> None:
    check_kept_predictor(run, FORECAST)
    keep_predictor(run, FORECAST)
    check_kept_predictor(run, FORECAST)
    assert run.said == []


def test_another_space_is_refused(run: Any) -> None:
    keep_predictor(run, FORECAST)
    other: BoundSpace = SearchSpace.load("cnn").bind_graph(residual_graph(3, 16))
    with pytest.raises(InvalidInputError, match="space of the study"):
        read_predictor(run.setup.study_dir, other)
