import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.space.ties import tied_sets

ATTENTION = [f"{i}.{part}" for i in range(2) for part in ("query", "key", "value", "out")]


def test_parts_are_tied_where_the_wildcards_stand_for_the_same() -> None:
    found = tied_sets(ATTENTION, [["*.query", "*.key", "*.value"]])
    assert found == (("0.query", "0.key", "0.value"), ("1.query", "1.key", "1.value"))


def test_one_glob_ties_all_that_match() -> None:
    assert tied_sets(ATTENTION, [["*.out"]]) == (("0.out", "1.out"),)
    assert tied_sets(ATTENTION, [["*"]]) == (tuple(ATTENTION),)


def test_ties_with_a_name_in_common_are_one() -> None:
    found = tied_sets(ATTENTION, [["*.query", "*.key"], ["0.key", "0.out"], ["?.query"]])
    assert found == (("0.query", "0.key", "0.out", "1.query", "1.key"),)


def test_names_alone_are_not_tied() -> None:
    assert tied_sets(ATTENTION, []) == ()
    assert tied_sets(ATTENTION, [["0.query"], ["fc*"]]) == ()


@pytest.mark.parametrize(
    ("glob", "matched"),
    [
        ("a[12].b", ["a1.b", "a2.b"]),
        ("a[!12].b", ["a3.b", "aX.b"]),
        ("a?.b", ["a1.b", "a2.b", "a3.b", "aX.b"]),
        ("a+.b", []),
        ("a1*", ["a1.b", "a1xb"]),
    ],
)
def test_globs_mean_what_they_mean_elsewhere(glob: str, matched: list[str]) -> None:
    names = ["a1.b", "a2.b", "a3.b", "aX.b", "a1xb"]
    assert [name for found in tied_sets(names, [[glob]]) for name in found] == matched


@given(
    names=st.lists(st.from_regex(r"[ab]\.[xy]\.[12]", fullmatch=True), unique=True),
    ties=st.lists(st.lists(st.from_regex(r"[ab*]\.[xy*]\.[12*]", fullmatch=True), min_size=1)),
)
def test_sets_are_disjoint_and_at_least_two(names: list[str], ties: list[list[str]]) -> None:
    found = tied_sets(names, ties)
    members = [name for members in found for name in members]
    assert len(members) == len(set(members))
    assert all(len(members) > 1 for members in found)
    for globs in ties:
        if len(globs) == 1:
            pattern = re.escape(globs[0]).replace(r"\*", ".*")
            matching = [name for name in names if re.fullmatch(pattern, name)]
            sets = {next((s for s in found if name in s), name) for name in matching}
            assert len(sets) <= 1
