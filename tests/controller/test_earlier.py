from dataclasses import replace
from pathlib import Path

import pytest

from autocompress.controller import earlier
from autocompress.controller.earlier import DESIGNS, Earlier, fitted, keep_earlier, read_earlier
from autocompress.controller.ledger import Ledger
from autocompress.controller.sampler import make_sampler
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.errors import MissingFileError, WrongTypeError
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SMALL = SearchSpace.load("cnn").bind_graph(residual_graph(2, 32))
LARGE = SearchSpace.load("cnn").bind_graph(residual_graph(4, 32))
IDENTITY = {"model": "m", "weights": "w", "data": "d", "target": "there"}


def accuracy(candidate: Candidate) -> float:
    cut = sum(candidate.pruning_ratios.values()) + len(candidate.dropped_blocks)
    saved = sum(32 - config.weight_bits for config in candidate.layers.values())
    return max(0.1, 0.9 - 0.05 * cut - 0.002 * saved)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("earlier")
    ledger = Ledger.open(
        folder / "study.db", metric_names=["accuracy", "latency_ms"], identity=IDENTITY, seed=0
    )
    for slot in range(14):
        ticket = ledger.ask(SMALL, lambda slot: make_sampler("random", 0, slot))
        if slot == 3:
            ledger.prune(ticket, "planted")
            continue
        value = accuracy(ticket.candidate)
        found = FidelityResult(accuracy=value, images=10, trained_images=0, seconds=1.0)
        ledger.record(ticket, 0, found)
        ledger.complete(ticket, [1.0 - value, 1.0], {}, value)
    ledger.close()
    return folder


@pytest.mark.parametrize("key", ["target", "model", "weights", "data"])
def test_accuracies_count_for_the_same_model_and_data_whatever_the_target(
    study: Path, key: str
) -> None:
    here = IDENTITY | {key: "other"}
    found = read_earlier([study], SMALL, here)
    assert len(found.evaluations) == (13 if key == "target" else 0)
    assert all(e.slot < 0 for e in found.evaluations)
    assert all(e.fidelities[0].accuracy == accuracy(e.candidate) for e in found.evaluations)
    assert len({e.slot for e in found.evaluations}) == len(found.evaluations)
    assert 1 <= len(found.designs) <= DESIGNS
    assert found.folders == (str(study),)


def test_a_similar_model_takes_over_what_it_has_too(study: Path) -> None:
    found = read_earlier([study], LARGE, IDENTITY | {"model": "larger"})
    assert found.designs
    for design in found.designs:
        assert LARGE.from_params(LARGE.to_params(design)) == design
    assert any(design != Candidate() for design in found.designs)


def test_what_only_the_other_model_has_is_left_out() -> None:
    group = SMALL.pruning_knobs[0].members[0]
    candidate = Candidate(
        pruning_ratios={group: 0.5, "elsewhere": 0.5},
        dropped_blocks=("elsewhere.1",),
        layers={"elsewhere": SMALL.uniform(8, 8, 0.0).layers[SMALL.layers[0]]},
        criterion="fpgm",
    )
    near = fitted(candidate, SMALL)
    assert list(near.pruning_ratios) == [group]
    assert not near.dropped_blocks
    assert near.criterion == SMALL.criteria[0]


def test_a_study_keeps_what_it_was_given(study: Path, tmp_path: Path) -> None:
    found = read_earlier([study], SMALL, IDENTITY)
    path = tmp_path / "study.db"
    for given in (found, Earlier()):  # a resumed search need not find the folder any more
        ledger = Ledger.open(
            path, metric_names=["accuracy", "latency_ms"], identity=IDENTITY, seed=0
        )
        assert keep_earlier(ledger, given) == found
        ledger.close()


def test_evaluations_that_this_space_does_not_hold_do_not_count(study: Path) -> None:
    coarse: BoundSpace = SearchSpace.load(
        {"pruning": {"ratios": [0, 0.5]}, "quantisation": {"weight_bits": [8]}}
    ).bind_graph(residual_graph(2, 32))
    found = read_earlier([study], coarse, IDENTITY)
    assert len(found.evaluations) < 13
    assert all(coarse.canonical(e.candidate) == e.candidate for e in found.evaluations)


def test_folders_without_a_study_are_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError):
        read_earlier([tmp_path], SMALL, IDENTITY)
    with pytest.raises(WrongTypeError, match="expected a list of folders"):
        read_earlier("runs/earlier", SMALL, IDENTITY)


def test_what_a_full_fine_tune_reached_counts_before_any_prediction() -> None:
    results = {
        fidelity: FidelityResult(accuracy=value, images=10, trained_images=10, seconds=1.0)
        for fidelity, value in ((0, 0.5), (2, 0.9))
    }
    trial = Evaluation(slot=1, candidate=Candidate(), origin="tpe", predicted_accuracy=0.7)
    assert earlier._accuracy(replace(trial, fidelities={0: results[0]})) == 0.7
    assert earlier._accuracy(replace(trial, fidelities=results)) == 0.9
