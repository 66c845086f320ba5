"""The forecast on a hand-made profile: costs, learning, violations."""

from dataclasses import replace

import numpy as np
import pytest

from autocompress.controller.forecast import Forecast
from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.core.objective import parse_constraints, parse_objectives
from autocompress.core.target import Target
from autocompress.cost.analytic import count_costs
from autocompress.cost.kernels import executed_kernels
from autocompress.cost.profile import DeviceProfile
from autocompress.predictor.recovery import LearningCurve
from toy_graphs import residual_graph

GRAPH = residual_graph()
TARGET = Target.named("onnxruntime-cpu")
BASELINE = {"accuracy": 0.9, "proxy_accuracy": 0.9, "latency_ms": 1.0, "size_bytes": 1e6}


@pytest.fixture
def forecast() -> Forecast:
    int8 = Candidate(
        layers={x.name: LayerConfig(weight_bits=8, activation_bits=8) for x in GRAPH.layers}
    )
    keys = {*executed_kernels(GRAPH, Candidate(), TARGET), *executed_kernels(GRAPH, int8, TARGET)}
    profile = DeviceProfile(
        target=TARGET,
        device="test",
        versions={},
        created="2026-01-01T00:00:00+00:00",
        kernels={key: 0.1 * key.bits / 32 for key in keys},
    )
    return Forecast(
        GRAPH,
        profile,
        parse_objectives(["accuracy", "latency_ms"]),
        parse_constraints({"accuracy_drop": 0.02, "latency_ms": "50%"}),
        BASELINE,
        lambda pace: 400,
    )


def _trial(slot: int, *accuracies: float, full: int = 400) -> Evaluation:
    block = GRAPH.blocks[-1].name
    results = {
        fidelity: FidelityResult(
            accuracy=accuracy, images=100, trained_images=(0, 100, full)[fidelity], seconds=1.0
        )
        for fidelity, accuracy in enumerate(accuracies)
    }
    return Evaluation(
        slot=slot, candidate=Candidate(dropped_blocks=(block,)), origin="x", fidelities=results
    )


def test_costs_are_the_counted_ones_and_the_predicted_latency(forecast: Forecast) -> None:
    costs = forecast.costs(Candidate())
    counted = count_costs(GRAPH, Candidate())
    assert {name: costs[name] for name in counted} == counted
    expected = forecast.profile.predict_latency(GRAPH, Candidate())
    assert costs["latency_ms"] == pytest.approx(expected, rel=1e-8)


def test_a_finalist_is_predicted_at_what_it_reached(forecast: Forecast) -> None:
    assert forecast.accuracy(_trial(0, 0.5, 0.87, 0.89)) == 0.89


def test_a_short_fine_tune_leaves_a_part_to_win_back(forecast: Forecast) -> None:
    left = 0.1 + 0.9 / 2  # four times the images
    assert forecast.accuracy(_trial(0, 0.5, 0.87)) == pytest.approx(0.9 - 0.03 * left)
    assert forecast.accuracy(_trial(0, 0.5, 0.91)) == 0.91


def test_what_was_scored_on_the_proxys_images_is_compared_on_them(forecast: Forecast) -> None:
    forecast.baseline["proxy_accuracy"] = 0.88
    alike = _trial(0, 0.5, 0.87, 0.89)
    assert [forecast.gap(alike, f) for f in (0, 1, 2)] == pytest.approx([0.38, 0.01, 0.01])
    known = {**alike.fidelities, 1: replace(alike.fidelities[1], images=250)}
    assert forecast.gap(replace(alike, fidelities=known), 1) == pytest.approx(0.03)


def test_finalists_teach_what_a_full_fine_tune_wins_back(forecast: Forecast) -> None:
    forecast.learn([_trial(slot, 0.5, 0.8, 0.89) for slot in range(4)])
    assert forecast.curve.exponent > 1.0
    assert forecast.accuracy(_trial(9, 0.5, 0.8)) == pytest.approx(0.885, abs=0.001)


def test_finalists_that_were_never_trained_shortly_teach_it_too(forecast: Forecast) -> None:
    short = [_trial(slot, 0.5 - 0.01 * slot, 0.80 - 0.01 * slot) for slot in range(4)]
    proxied, full = (
        _trial(9, 0.45),
        FidelityResult(accuracy=0.895, images=100, trained_images=4000, seconds=1.0),
    )
    finalist = replace(proxied, fidelities={**proxied.fidelities, 2: full})
    forecast.learn(short)
    assert forecast.curve == LearningCurve()
    before = forecast.accuracy(short[0])
    forecast.learn([*short, finalist])
    assert forecast.curve.left(100 / 4000) < 0.5 * LearningCurve().left(100 / 4000)
    assert before < forecast.accuracy(short[0]) < 0.9


def test_a_full_fine_tune_goes_on_from_the_images_of_the_longest_one(forecast: Forecast) -> None:
    full = 0.9 - 0.1 * (0.1 + 0.9 / 4)  # at 16 times the images
    forecast.learn([_trial(0, 0.5, 0.8, full, full=1_600)])
    assert forecast.curve == LearningCurve()
    assert forecast.accuracy(_trial(9, 0.5, 0.8)) == pytest.approx(full, abs=0.001)


def test_training_results_teach_what_training_recovers(forecast: Forecast) -> None:
    proxied = _trial(9, 0.6)
    before = forecast.accuracy(proxied)
    forecast.learn([_trial(slot, 0.6, 0.89, 0.895) for slot in range(4)])
    after = forecast.accuracy(proxied)
    assert 0.6 < before < after
    assert after == pytest.approx(0.895, abs=0.005)


def test_a_larger_gap_is_never_predicted_better(forecast: Forecast) -> None:
    forecast.learn([_trial(0, 0.8, 0.89), _trial(1, 0.5, 0.85)])
    predicted = [forecast.accuracy(_trial(2, proxy)) for proxy in (0.9, 0.7, 0.5, 0.3)]
    assert predicted == sorted(predicted, reverse=True)


def test_losses_violations_and_reference(forecast: Forecast) -> None:
    values = {"accuracy": 0.87, "latency_ms": 0.6}
    assert forecast.losses(values) == pytest.approx([0.13, 0.6])
    violations = forecast.violations(values)
    assert violations["accuracy_drop"] == pytest.approx(0.01)
    whole = forecast.costs(Candidate())["latency_ms"]  # predictions are judged by predictions
    assert violations["latency_ms"] == pytest.approx(0.6 / (0.5 * whole) - 1.0)
    np.testing.assert_allclose(forecast.reference(), [0.1 + 1.1 * 0.02, 1.1 * whole])


def test_an_allowance_is_the_share_of_a_cost_that_its_limit_leaves(forecast: Forecast) -> None:
    assert forecast.allowance(Candidate()) == pytest.approx({"latency_ms": 0.5})


def test_caution_counts_where_nothing_was_trained(forecast: Forecast) -> None:
    proxied, trained = _trial(0, 0.5), _trial(1, 0.5, 0.85)
    assert forecast.accuracy(proxied, caution=1.0) < forecast.accuracy(proxied)
    assert forecast.accuracy(trained, caution=1.0) == forecast.accuracy(trained)
    before = forecast.accuracy(proxied) - forecast.accuracy(proxied, caution=1.0)
    forecast.learn([_trial(slot, 0.5, 0.85, 0.88) for slot in range(4)])
    assert forecast.accuracy(proxied) - forecast.accuracy(proxied, caution=1.0) < before


def test_nearer_reference_points_lose_less_accuracy(forecast: Forecast) -> None:
    whole, half = forecast.reference(), forecast.reference(0.5)
    assert half[0] - 0.1 == pytest.approx((whole[0] - 0.1) / 2)  # the original loses 0.1
    assert half[1] == whole[1]


def test_what_trains_quickly_is_expected_to_lose_less_where_minutes_are_budgeted(
    forecast: Forecast,
) -> None:
    """The same losses so far; without the block, training takes three quarters of the time."""
    slow, quick = Candidate(), Candidate(dropped_blocks=(GRAPH.blocks[-1].name,))
    short = {
        0: FidelityResult(accuracy=0.4, images=100, trained_images=0, seconds=1.0),
        1: FidelityResult(accuracy=0.6, images=100, trained_images=100, seconds=1.0),
    }
    trials = [
        Evaluation(slot=slot, candidate=candidate, origin="x", fidelities=short)
        for slot, candidate in enumerate((slow, quick))
    ]
    forecast.learn(trials)
    assert forecast.accuracy(trials[0]) == forecast.accuracy(trials[1])
    forecast.full_images = lambda pace: int(4000 / pace)
    forecast.learn(trials)
    assert forecast.accuracy(trials[1]) > forecast.accuracy(trials[0]) + 0.001
    other = replace(slow, distill=DistillConfig(kd_weight=0.0))
    alike = [
        Evaluation(slot=9, candidate=candidate, origin="x", fidelities={0: short[0]})
        for candidate in (slow, other)
    ]
    assert forecast.accuracy(alike[1]) > forecast.accuracy(alike[0]), "no teacher to ask"


def test_a_finalist_that_needed_no_training_teaches_nothing(forecast: Forecast) -> None:
    trials = [_trial(slot, 0.5, 0.8) for slot in range(4)]
    forecast.learn(trials)
    before = forecast.curve
    proxied = _trial(4, 0.9)
    untrained = _trial(4, 0.9, 0.9, 0.9, full=0).fidelities[2]
    forecast.learn([*trials, replace(proxied, fidelities={**proxied.fidelities, 2: untrained})])
    assert forecast.curve == before


def test_images_of_candidates_are_asked_for_once_until_something_is_trained(
    forecast: Forecast,
) -> None:
    asked: list[float] = []
    forecast.full_images = lambda pace: asked.append(pace) or 400  # type: ignore[func-returns-value]
    forecast.learn([_trial(0, 0.5, 0.8)])
    for _ in range(3):
        forecast.accuracy(_trial(1, 0.6, 0.85))
    assert len(asked) == 1
    forecast.learn([_trial(0, 0.5, 0.8), _trial(1, 0.6, 0.85)])
    assert len(asked) == 2
