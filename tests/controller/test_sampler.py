import time
from functools import partial
from pathlib import Path

import numpy as np
import pytest

from autocompress.controller.ledger import Ledger
from autocompress.controller.sampler import (
    SAMPLER_NAMES,
    STARTUP_TRIALS,
    Guide,
    distributions,
    make_sampler,
)
from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(1, 32))
TINY = SearchSpace.load(
    {
        "pruning": {"ratios": [0, 0.5]},
        "blocks": {"drop": False},
        "quantisation": {"weight_bits": []},
        "distillation": {
            "temperature": {"low": 4, "high": 4},
            "kd_weight": {"low": 0.9, "high": 0.9},
        },
    }
).bind_graph(residual_graph(3, 32))


def open_ledger(path: Path, *, seed: int = 0) -> Ledger:
    return Ledger.open(
        path, metric_names=["accuracy", "latency_ms"], identity={"model": "toy"}, seed=seed
    )


def losses(candidate: Candidate, space: BoundSpace = SPACE) -> tuple[float, float]:
    """A front known in advance: damage grows as latency falls, layer by layer."""
    row = space.encode(candidate)[0, :-2]
    strength = np.where([p.name.startswith("prec") for p in space.parameters[:-2]], 1 - row, row)
    weights = np.linspace(0.5, 1.5, len(strength))
    return float((weights * strength**2).mean()), float(1.0 - strength.mean())


def run(ledger: Ledger, name: str, count: int, *, space: BoundSpace = SPACE) -> list[Candidate]:
    """Run trials; every ninth is pruned, every fifth violates a constraint."""
    candidates = []
    for _ in range(count):
        ticket = ledger.ask(space, partial(make_sampler, name, ledger.seed))
        candidates.append(ticket.candidate)
        if ticket.slot % 9 == 8:
            ledger.prune(ticket, "planted")
            continue
        violation = 0.1 if ticket.slot % 5 == 4 else -0.1
        ledger.complete(
            ticket, losses(ticket.candidate, space), {}, None, {"accuracy_drop": violation}
        )
    return candidates


SLOW = ("gp", "haq", "nsga2")


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in SAMPLER_NAMES]
)
def test_a_resumed_study_proposes_what_an_undisturbed_one_does(tmp_path, name):
    count = 26 if name == "nsga2" else STARTUP_TRIALS + 6
    whole = open_ledger(tmp_path / "whole.db")
    halved = open_ledger(tmp_path / "halved.db")
    for ledger in (whole, halved):
        ledger.enqueue(SPACE.to_params(SPACE.uniform(8, 8, 0.0)), "int8")
        ledger.enqueue(SPACE.to_params(SPACE.uniform(32, 32, 0.0)), "unmodified")
    expected = run(whole, name, count)
    first = run(halved, name, count - 3)
    halved.ask(SPACE, partial(make_sampler, name, 0))  # and never told: the process dies
    halved.close()
    again = open_ledger(tmp_path / "halved.db")
    assert first + run(again, name, 3) == expected
    assert len(set(expected)) == count
    origins = [evaluation.origin for evaluation in again.evaluations()]
    assert origins[:2] == ["int8", "unmodified"]
    modelled = {"random": "stratified", "nsga2": "nsgaii"}.get(name, name)
    assert origins[-1] == modelled
    whole.close()
    again.close()


def test_another_seed_proposes_other_candidates(tmp_path):
    first = run(open_ledger(tmp_path / "a.db", seed=0), "tpe", 12)
    second = run(open_ledger(tmp_path / "b.db", seed=1), "tpe", 12)
    assert not set(first) & set(second)


def test_tpe_learns_where_the_best_are(tmp_path):
    ledger = open_ledger(tmp_path / "study.db")
    distances = []
    for _ in range(30):
        ticket = ledger.ask(SPACE, partial(make_sampler, "tpe", 0))
        distances.append(float(np.abs(SPACE.encode(ticket.candidate) - 0.6).mean()))
        ledger.complete(ticket, distances[-1:] * 2, {}, None)
    assert np.mean(distances[-10:]) < 0.85 * np.mean(distances[:STARTUP_TRIALS])


def test_known_candidates_are_not_proposed_again(tmp_path):
    """The space has eight candidates: all are met before one comes twice."""
    ledger = open_ledger(tmp_path / "study.db")
    seen = []
    for _ in range(7):
        ticket = ledger.ask(TINY, partial(make_sampler, "tpe", 0))
        seen.append(ticket.candidate)
        ledger.complete(ticket, [0.1, 0.2], {}, None)
    assert len(set(seen)) == 7
    origins = [evaluation.origin for evaluation in ledger.evaluations()]
    assert any(origin.endswith("mutated") for origin in origins)


def test_an_exhausted_space_still_answers(tmp_path):
    ledger = open_ledger(tmp_path / "study.db")
    for _ in range(10):
        ledger.complete(ledger.ask(TINY, partial(make_sampler, "random", 0)), [0.1, 0.2], {}, None)
    assert ledger.finished == 10


def test_several_trials_may_run_at_once(tmp_path):
    ledger = open_ledger(tmp_path / "study.db")
    run(ledger, "tpe", STARTUP_TRIALS)
    tickets = [ledger.ask(SPACE, partial(make_sampler, "tpe", 0)) for _ in range(3)]
    assert len({ticket.candidate for ticket in tickets}) == 3
    for ticket in reversed(tickets):
        ledger.complete(ticket, losses(ticket.candidate), {}, None)
    assert ledger.finished == STARTUP_TRIALS + 3


def test_distributions_cover_the_parameters():
    found = distributions(SPACE)
    assert list(found) == [parameter.name for parameter in SPACE.parameters]
    assert found["prune:blocks.0.conv1"].to_internal_repr(3) == 3.0
    assert found["temperature"].log  # type: ignore[attr-defined]


def test_an_unknown_sampler_is_refused():
    with pytest.raises(InvalidInputError, match="did you mean 'tpe'"):
        make_sampler("tpee", 0, 0)


@pytest.mark.bench
def test_a_large_study_answers_quickly(tmp_path):
    space = SearchSpace.load("cnn").bind_graph(residual_graph(27, 64))
    assert len(space.parameters) > 100
    ledger = open_ledger(tmp_path / "study.db")
    run(ledger, "tpe", 100, space=space)
    start = time.perf_counter()
    run(ledger, "tpe", 5, space=space)
    assert (time.perf_counter() - start) / 5 < 0.5


def test_what_is_not_affordable_gives_way_to_a_child_of_a_good_candidate(tmp_path):
    parent = SPACE.uniform(8, 8, 0.5)

    def affordable(candidate: Candidate) -> bool:
        return len(candidate.pruning_ratios) >= 1 and len(candidate.layers) >= 3

    guide = Guide(affordable=affordable, parents=(parent,))
    ledger = open_ledger(tmp_path / "study.db")
    for _ in range(12):
        ticket = ledger.ask(SPACE, partial(make_sampler, "random", 0), guide)
        assert affordable(ticket.candidate)
        assert ticket.candidate != parent or ticket.origin != "offspring"
        ledger.prune(ticket, "planted")
    rows = ledger.rows()
    ledger.close()
    assert "offspring" in {row["origin"] for row in rows}
    assert len({row["candidate"] for row in rows}) == 12


def test_without_parents_a_proposal_stays_as_it_is(tmp_path):
    ledger = open_ledger(tmp_path / "study.db")
    guide = Guide(affordable=lambda _: False)
    ticket = ledger.ask(SPACE, partial(make_sampler, "random", 0), guide)
    ledger.close()
    assert ticket.origin == "stratified" or "random" in ticket.origin
