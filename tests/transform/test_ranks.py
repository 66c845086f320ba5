from dataclasses import replace

import pytest
import torch

from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError
from autocompress.graph.tracing import trace
from autocompress.transform.criteria import CRITERIA, Evidence
from autocompress.transform.ranks import Ranks, remaining
from seasoned import seasoned
from subjects import observed


def test_members_in_dropped_blocks_do_not_count() -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    group = graph.group("conv1")
    candidate = Candidate(dropped_blocks=("layer1.1",))
    left = remaining(group, candidate)
    assert {m.module for m in group.members} - {m.module for m in left.members} == {
        "layer1.1.conv1",
        "layer1.1.conv2",
        "layer1.1.bn2",
    }
    assert remaining(group, Candidate()) is group
    lost = model.layer1[1].conv2.weight.detach().double().abs().sum(dim=(1, 2, 3))
    ranks = Ranks(model, graph)
    difference = ranks.scores("l1", group) - ranks.scores("l1", left)
    torch.testing.assert_close(torch.from_numpy(difference), lost, rtol=1e-5, atol=1e-5)
    assert bool((lost > 0).all())


@pytest.mark.parametrize("criterion", sorted(set(CRITERIA) - {"random"}))
def test_no_criterion_reads_dropped_blocks(criterion: str) -> None:
    model, graph, _, evidence = observed()
    group = graph.group("conv")
    without = replace(
        group, members=tuple(m for m in group.members if m.module not in ("depthwise", "up"))
    )
    ranks = Ranks(model, graph, gather=lambda: evidence)
    before = ranks.scores(criterion, without)
    for observations in (evidence.saliency, evidence.curvature):
        observations["up"].fill_(1e6)
    evidence.zeros["up"].fill_(0.5)
    evidence.contributions["up"].fill_(1e6)
    with torch.no_grad():
        model.depthwise.weight.normal_(std=1e3)
    fresh = Ranks(model, graph, gather=lambda: evidence)
    assert fresh.scores(criterion, without).tolist() == before.tolist()
    if criterion != "bn_scale":
        assert fresh.scores(criterion, group).tolist() != before.tolist()


def test_the_lowest_scores_go_first_and_ties_by_their_norms() -> None:
    model, graph, _, evidence = observed()
    group = graph.group("up")
    with torch.no_grad():
        model.up.weight[:, 0] = 0.5
        model.up.weight[:, 1] = 0.01
        model.up.weight[:, 2] = 0.1
    zeros = torch.tensor([0.5, 0.5, 0.5, 0.9, 0.1]).double().repeat_interleave(64)
    evidence = replace(evidence, zeros={"fc": zeros})
    ranks = Ranks(model, graph, gather=lambda: evidence)
    assert ranks.order("apoz", group) == [3, 1, 2, 0, 4]


def test_data_are_gathered_once_and_only_when_needed() -> None:
    model, graph, _, evidence = observed()
    calls = []

    def gather() -> Evidence:
        calls.append(1)
        return evidence

    ranks = Ranks(model, graph, gather=gather)
    group = graph.group("conv")
    for criterion in ("l1", "fpgm", "random"):
        ranks.order(criterion, group)
    assert not calls
    for criterion in ("taylor", "hessian", "apoz", "thinet"):
        first = ranks.order(criterion, group)
        assert ranks.order(criterion, group) is first
        assert sorted(first) == list(range(6))
    assert len(calls) == 1


def test_criteria_that_need_data_are_refused_without() -> None:
    model, graph, _, evidence = observed()
    unlabelled = replace(evidence, saliency={}, curvature={})
    ranks = Ranks(model, graph, gather=lambda: unlabelled)
    ranks.order("apoz", graph.group("conv"))
    with pytest.raises(InvalidInputError, match=r"criterion 'taylor'.*pass task="):
        ranks.order("taylor", graph.group("conv"))
    with pytest.raises(InvalidInputError, match=r"criterion 'thinet'.*pass task= or calibration="):
        Ranks(model, graph).order("thinet", graph.group("conv"))
    with pytest.raises(InvalidInputError, match="did you mean 'taylor'"):
        ranks.order("tailor", graph.group("conv"))


def test_the_seed_draws_random_orders() -> None:
    model, graph, _, _ = observed()
    orders = [Ranks(model, graph, seed=s).order("random", graph.group("conv")) for s in (0, 0, 1)]
    assert orders[0] == orders[1] != orders[2]
