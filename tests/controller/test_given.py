from typing import Any

from optuna.trial import FrozenTrial, TrialState, create_trial

from autocompress.controller.given import next_given
from autocompress.controller.sampler import distributions
from autocompress.controller.ticket import trial_attributes
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(1, 32))
RATIOS = (0.0, 0.25, 0.5)
DESIGNS: list[dict[str, Any]] = [
    {
        "params": SPACE.to_params(SPACE.uniform(8, 8, ratio)),
        "origin": f"ratio {ratio}",
        "attributes": {"promote": True},
    }
    for ratio in RATIOS
]


def trial(slot: int, ratio: float, state: TrialState, **more: Any) -> FrozenTrial:
    candidate = SPACE.uniform(8, 8, ratio)
    attributes = trial_attributes(slot=slot, candidate=candidate, origin="tpe") | more
    return create_trial(
        state=state,
        values=[0.1, 0.2] if state == TrialState.COMPLETE else None,
        params=dict(SPACE.to_params(candidate)),
        distributions=distributions(SPACE),
        user_attrs=attributes,
    )


def test_designs_come_in_their_order_and_then_nothing() -> None:
    latest: dict[int, FrozenTrial] = {}
    for slot, ratio in enumerate(RATIOS):
        given = next_given(latest, DESIGNS, SPACE)
        assert given is not None
        assert given.params == DESIGNS[slot]["params"]
        assert given.attributes["slot"] == given.attributes["design"] == slot
        assert given.attributes["attributes"] == {"promote": True}
        latest[slot] = trial(slot, ratio, TrialState.COMPLETE, design=slot)
    assert next_given(latest, DESIGNS, SPACE) is None


def test_a_design_that_is_known_is_passed_over() -> None:
    given = next_given({0: trial(0, RATIOS[0], TrialState.RUNNING)}, DESIGNS, SPACE)
    assert given is not None
    assert (given.attributes["design"], given.attributes["slot"]) == (1, 1)


def test_the_retry_of_the_lowest_slot_goes_first() -> None:
    latest = {
        0: trial(0, 0.0, TrialState.COMPLETE),
        1: trial(1, 0.25, TrialState.FAIL, attempt=2),
        2: trial(2, 0.5, TrialState.FAIL),
    }
    given = next_given(latest, DESIGNS, SPACE)
    assert given is not None
    assert given.params == SPACE.to_params(SPACE.uniform(8, 8, 0.25))
    assert (given.attributes["slot"], given.attributes["attempt"]) == (1, 3)
    assert given.attributes["origin"] == "tpe"
