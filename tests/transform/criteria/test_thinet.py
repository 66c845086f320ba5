import numpy as np
import pytest
import torch

from autocompress.transform.criteria import Evidence, gather_evidence
from autocompress.transform.criteria.thinet import greedy_errors
from subjects import Array, loss, make_group, mixed, observed, run, scores_of


def _order_by_hand(parts: Array) -> tuple[list[int], list[float]]:
    """Remove channels one by one, each time trying all that are left."""
    removed: list[int] = []
    errors = []
    while len(removed) < parts.shape[1]:
        trials = {
            channel: float((parts[:, [*removed, channel]].sum(axis=1) ** 2).sum())
            for channel in range(parts.shape[1])
            if channel not in removed
        }
        best = min(trials, key=lambda channel: trials[channel])
        removed.append(best)
        errors.append(trials[best])
    return removed, errors


@pytest.mark.parametrize("seed", range(5))
def test_channels_go_in_the_order_of_the_greedy_search(seed: int) -> None:
    rng = np.random.default_rng(seed)
    parts = rng.normal(size=(40, 9)) * rng.uniform(0.1, 2.0, size=9)
    order, errors = _order_by_hand(parts)
    scores = greedy_errors(torch.from_numpy(parts.T @ parts)).numpy()
    assert np.argsort(scores).tolist() == order
    np.testing.assert_allclose(scores[order], np.maximum.accumulate(errors), rtol=1e-6)


def test_the_order_is_kept_where_errors_fall() -> None:
    parts = np.array([[1.0, -1.0, 5.0], [2.0, -2.0, 5.0]])  # the first two cancel
    scores = greedy_errors(torch.from_numpy(parts.T @ parts)).numpy()
    assert np.argsort(scores).tolist() == [0, 1, 2]
    assert scores[1] == pytest.approx(scores[0])


@pytest.mark.parametrize(("name", "consumer"), [("conv", "up"), ("up", "fc")])
def test_scores_come_from_what_consumers_read(name: str, consumer: str) -> None:
    model, graph, _, evidence = observed()
    group = graph.group(name)
    added = evidence.contributions[consumer].double().numpy()
    member = next(m for m in group.members if (m.module, m.axis) == (consumer, "in"))
    parts = np.stack([added[:, list(taken)].sum(axis=1) for taken in member.indices], axis=1)
    order, _ = _order_by_hand(parts)
    assert np.argsort(scores_of("thinet", model, group, evidence)).tolist() == order


def test_a_channel_that_consumers_ignore_goes_first() -> None:
    model, graph, batches = mixed()
    with torch.no_grad():
        model.up.weight[4] = 0.0
    evidence = gather_evidence(model, graph, batches, run, loss)
    scores = scores_of("thinet", model, graph.group("conv"), evidence)
    assert scores[4] == 0.0
    assert scores.argmin() == 4


def test_all_consumers_count() -> None:
    model, _, _ = mixed()
    group = make_group(2, ("conv", "out"), ("a", "in"), ("b", "in"))
    contributions = {"a": torch.tensor([[1.0, 2.0]]), "b": torch.tensor([[3.0, 0.0], [0.0, 1.0]])}
    scores = scores_of("thinet", model, group, Evidence(contributions=contributions))
    assert scores.argmin() == 1  # 4 + 1 against 1 + 9
    assert scores[1] == pytest.approx(5.0)
