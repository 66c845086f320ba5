from typing import get_args

import pytest

from autocompress.core.candidate import DEFAULT_CRITERION, CriterionName
from autocompress.errors import InvalidInputError
from autocompress.transform.criteria import CRITERIA, Evidence, check_evidence, find_criterion
from autocompress.transform.criteria.l1 import l1_scores
from subjects import mixed, observed, scores_of


def test_every_name_of_a_candidate_has_a_criterion() -> None:
    assert set(CRITERIA) == set(get_args(CriterionName))
    assert find_criterion(DEFAULT_CRITERION).score is l1_scores


def test_an_unknown_criterion_is_refused_with_the_closest_name() -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'l1'"):
        find_criterion("l11")


@pytest.mark.parametrize("name", CRITERIA)
def test_criteria_refuse_what_they_cannot_know(name: str) -> None:
    needs = find_criterion(name).needs
    _, _, _, everything = observed()
    check_evidence(name, everything)
    if needs == "weights":
        check_evidence(name, Evidence())
        return
    expected = {"labels": "a task whose labels give a loss", "inputs": "inputs to observe"}[needs]
    with pytest.raises(InvalidInputError, match=f"criterion '{name}'.*{expected}.*got none"):
        check_evidence(name, Evidence())


@pytest.mark.parametrize("name", CRITERIA)
def test_scores_are_finite_and_not_negative(name: str) -> None:
    model, graph, _, evidence = observed()
    for group in graph.groups:
        if group.prunable:
            scores = scores_of(name, model, group, evidence)
            assert (scores >= 0).all()
            assert scores.max() < float("inf")
            again = scores_of(name, model, group, evidence)
            assert scores.tolist() == again.tolist()


def test_the_mixed_model_has_the_groups_that_the_tests_rely_on() -> None:
    _, graph, _ = mixed()
    found = {group.name: [(m.module, m.axis) for m in group.members] for group in graph.groups}
    assert ("depthwise", "out") in found["conv"]
    assert ("up", "in") in found["conv"]
    assert ("fc", "in") in found["up"]
    assert [group.prunable for group in graph.groups] == [True, True, False]
