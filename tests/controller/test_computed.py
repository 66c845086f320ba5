from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from autocompress.controller.computed import (
    TRAINING_PARAMETERS,
    Computed,
    Sensitivities,
    effective,
    joint_sampler,
)
from autocompress.controller.current import Judgement
from autocompress.controller.forecast import Forecast
from autocompress.controller.ledger import Ledger
from autocompress.controller.sampler import Guide, distributions
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.core.population import Candidates
from autocompress.cost.analytic import count_costs
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(3, 32))
NAMES = tuple(name for name in distributions(SPACE) if name not in TRAINING_PARAMETERS)


class _Profile:
    """Latency in proportion to the MACs."""

    version = 1

    def __init__(self, scale: float = 1e-6) -> None:
        self.scale = scale

    def predict_costs(self, graph: Any, candidate: Candidate) -> dict[str, float]:
        return {"latency_ms": self.scale * count_costs(graph, candidate)["macs"]}

    def predict_many(self, graph: Any, candidates: Candidates) -> dict[str, np.ndarray]:
        found = [self.predict_costs(graph, candidate)["latency_ms"] for candidate in candidates]
        return {"latency_ms": np.array(found)}


def forecast(**constraints: float | str) -> Forecast:
    whole = count_costs(SPACE.graph, Candidate())
    return Forecast(
        SPACE.graph,
        _Profile(),  # type: ignore[arg-type]
        parse_objectives(["accuracy", "latency_ms", "size_bytes"]),
        parse_constraints(constraints),
        whole | {"accuracy": 0.9, "proxy_accuracy": 0.9, "latency_ms": 1.0},
        lambda pace: 100,
    )


def rows(count: int) -> np.ndarray:
    samples = [SPACE.to_params(SPACE.sample(seed)) for seed in range(count)]
    return np.array([[params[name] for name in NAMES] for params in samples], dtype=np.float64)


def candidate(row: np.ndarray) -> Candidate:
    rest = {p.name: p.low for p in SPACE.parameters if p.name not in NAMES}
    return SPACE.from_params(rest | dict(zip(NAMES, row.tolist(), strict=True)))


def test_costs_are_those_of_the_candidate_and_follow_the_profile() -> None:
    judged = forecast(size_bytes="50%")
    computed = Computed(SPACE, judged, NAMES)
    table = rows(6)
    for _ in range(2):
        known = [judged.costs(candidate(row)) for row in table]
        np.testing.assert_allclose(computed.loss(1)(table), [c["latency_ms"] for c in known])
        np.testing.assert_allclose(computed.loss(2)(table), [c["size_bytes"] for c in known])
        over = [judged.violations(c | {"accuracy": 1.0})["size_bytes"] for c in known]
        np.testing.assert_allclose(computed.violation("size_bytes")(table), over)
        judged.profile = _Profile(3e-6)  # type: ignore[assignment]


def test_parameters_without_an_effect_are_named_by_what_the_candidate_is() -> None:
    active_names = effective(SPACE, NAMES)
    rng = np.random.default_rng(0)
    for row in rows(12):
        params = dict(zip(NAMES, row.tolist(), strict=True))
        active = {name for name, on in zip(NAMES, active_names(row[None])[0], strict=True) if on}
        for name in NAMES:
            levels = distributions(SPACE)[name].high + 1  # type: ignore[attr-defined]
            moved = params | {name: float((params[name] + rng.integers(1, levels)) % levels)}
            same = candidate(np.array([moved[n] for n in NAMES])) == candidate(row)
            assert same == (name not in active), name


def test_sensitivities_are_looked_up_filled_in_and_monotone() -> None:
    start = SPACE.uniform(8, 8, 0.0)
    params = SPACE.to_params(start)
    knob = SPACE.pruning_knobs[0]
    levels = len(knob.levels)
    tried = {
        SPACE.from_params(params | {knob.name: 2}).to_json(): 0.54,
        SPACE.from_params(params | {knob.name: levels - 1}).to_json(): 0.3,  # less than before
        SPACE.from_params(params | {f"drop:{SPACE.blocks[0]}": 1}).to_json(): 1.1,
        start.to_json(): 0.1,
    }
    found = Sensitivities.find(SPACE, start, lambda c: tried.get(c.to_json()))
    table = found.tables[knob.name]
    assert table[0] == 0.0
    assert table[1] == pytest.approx(0.44 / 4)  # a quarter at half the way
    assert table[2] == pytest.approx(0.44)
    assert (np.diff(table) >= 0.0).all()
    assert found.tables[f"drop:{SPACE.blocks[0]}"].tolist() == pytest.approx([0.0, 1.0])
    assert set(found.tables) == {knob.name, f"drop:{SPACE.blocks[0]}"}
    listed = found.features(NAMES)(rows(3))
    assert listed.shape == (3, 3)
    np.testing.assert_allclose(listed[:, 2], listed[:, :2].sum(axis=1))
    void = rows(1)
    void[0, NAMES.index(knob.name)] = np.nan
    assert found.features(NAMES)(void)[0, list(found.tables).index(knob.name)] == 0.0


def test_what_was_not_tried_beyond_the_start_is_harmless_only_where_it_is_milder() -> None:
    knob = SPACE.precision_knobs[0]
    start = SPACE.uniform(8, 8, 0.0)
    at = int(SPACE.to_params(start)[knob.name])
    assert 0 < at < len(knob.levels) - 1
    narrower = SPACE.from_params(SPACE.to_params(start) | {knob.name: at - 1}).to_json()
    found = Sensitivities.find(
        SPACE, start, lambda c: {narrower: 0.25, start.to_json(): 0.0}.get(c.to_json())
    )
    table = found.tables[knob.name]
    assert table[at] == 0.0
    assert (table[at + 1 :] == 0.0).all()
    assert (table[: at - 1] > 0.25).all()


def test_nothing_known_gives_no_features() -> None:
    assert not Sensitivities.find(SPACE, SPACE.uniform(8, 8, 0.0), lambda _: None)


def quality(found: Candidate) -> float:
    """Accuracy that falls with every cut, more in later groups."""
    ratios = [found.pruning_ratios.get(k.name[6:], 0.0) for k in SPACE.pruning_knobs]
    bits = [32 - found.layer(name).weight_bits for name in SPACE.layers]
    lost = 0.1 * np.dot(np.square(ratios), np.linspace(0.3, 1.0, len(ratios)))
    return float(0.9 - lost - 0.001 * sum(bits) / len(bits) - 0.05 * len(found.dropped_blocks))


def test_proposals_of_a_search_are_whole_and_within_the_limits(tmp_path: Path) -> None:
    judged = forecast(latency_ms="70%")
    limit = 0.7 * judged.baseline["latency_ms"]
    sampler = joint_sampler(SPACE, judged, Sensitivities({}), seed=0)
    ledger = Ledger.open(
        tmp_path / "study.db",
        metric_names=["accuracy", "latency_ms", "size_bytes"],
        identity={"model": "toy"},
        seed=0,
    )
    seen: list[Mapping[str, float]] = []
    for _ in range(13):
        ticket = ledger.ask(SPACE, lambda _: sampler, Guide())
        costs = judged.costs(ticket.candidate)
        values = costs | {"accuracy": quality(ticket.candidate)}
        ledger.complete(
            ticket, judged.losses(values), costs, values["accuracy"], judged.violations(values)
        )
        seen.append(ticket.params)
    joint = [e for e in ledger.evaluations() if e.origin == "joint"]
    assert len(joint) >= 11
    assert all(judged.costs(e.candidate)["latency_ms"] <= limit * (1 + 1e-9) for e in joint)
    assert all(params.keys() == {p.name for p in SPACE.parameters} for params in seen)
    assert len({params["temperature"] for params in seen}) > 5
    assert ledger.rounds()[0]["trials"] >= 10
    assert ledger.rounds()[0]["reference"] == pytest.approx(judged.reference().tolist())
    ledger.close()


def test_a_resumed_search_proposes_what_an_undisturbed_one_does(tmp_path: Path) -> None:
    """Judgements change as the study grows, as after fine-tunes; a process dies in between."""
    space = SearchSpace.load("cnn").bind_graph(residual_graph(1, 32))
    whole = count_costs(space.graph, Candidate())
    judged = Forecast(
        space.graph,
        _Profile(),  # type: ignore[arg-type]
        parse_objectives(["accuracy", "latency_ms"]),
        (),
        whole | {"accuracy": 0.9, "proxy_accuracy": 0.9, "latency_ms": 1.0},
        lambda pace: 100,
    )

    def go(ledger: Ledger, count: int, dies: bool = False) -> list[Candidate]:
        sampler = joint_sampler(space, judged, Sensitivities({}), seed=0)
        found = []
        for number in range(count):
            learned = ledger.finished // 4

            def judge(evaluation: Evaluation, learned: int = learned) -> Judgement:
                loss = 0.1 + 0.02 * len(evaluation.candidate.pruning_ratios) * (1 + learned)
                values = judged.costs(evaluation.candidate) | {"accuracy": 1.0 - loss}
                return Judgement(losses=judged.losses(values), violations={})

            ticket = ledger.ask(space, lambda _: sampler, Guide(judge=judge))
            found.append(ticket.candidate)
            if not dies or number < count - 1:
                ledger.complete(ticket, [0.5, 0.5], {}, None)
        return found

    def opened(name: str) -> Ledger:
        path = tmp_path / name
        return Ledger.open(path, metric_names=["accuracy", "latency_ms"], identity={}, seed=0)

    undisturbed, first = opened("whole.db"), opened("halved.db")
    expected = go(undisturbed, 13)
    begun = go(first, 12, dies=True)
    first.close()
    again = opened("halved.db")
    assert begun[:11] + go(again, 2) == expected
    undisturbed.close()
    again.close()
