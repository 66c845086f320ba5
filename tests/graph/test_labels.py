import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from autocompress.graph.labels import OUTPUT, Labels

PAIRS = st.lists(st.tuples(st.integers(0, 19), st.integers(0, 19)), max_size=25)


@given(pairs=PAIRS)
def test_classes_are_the_connected_components(pairs: list[tuple[int, int]]) -> None:
    labels = Labels()
    marks = labels.fresh(20)
    component = list(range(20))
    for a, b in pairs:
        labels.union(marks[[a]], marks[[b]])
        component = [component[a] if c == component[b] else c for c in component]
    found = labels.find(marks)
    assert [[f == g for g in found] for f in found] == [
        [c == d for d in component] for c in component
    ]


def test_unions_broadcast_and_happen_at_once() -> None:
    labels = Labels()
    table = labels.fresh(6).reshape(2, 3)
    labels.union(table[:, :1], table)
    assert len(set(labels.find(table).ravel().tolist())) == 2
    labels.union(table[0], table[1])
    assert len(set(labels.find(table).ravel().tolist())) == 1


def test_the_forest_grows() -> None:
    labels = Labels()
    first = labels.fresh(10)
    marks = labels.fresh(5000)
    labels.union(first[:1], marks)
    assert len(set(labels.find(np.concatenate([first[:1], marks])).tolist())) == 1
    assert len(set(labels.find(first).tolist())) == 10


def test_what_meets_a_layer_is_layered() -> None:
    labels = Labels()
    weak, strong = labels.fresh(3, weak=True), labels.fresh(2)
    assert (labels.is_layered(weak), labels.is_layered(strong)) == (False, True)
    labels.union(weak[:1], strong[:1])
    assert labels.is_layered(weak[:1])
    assert not labels.is_layered(weak[1:])


def test_reasons_belong_to_classes_and_being_an_output_comes_first() -> None:
    labels = Labels()
    marks = labels.fresh(4)
    labels.refuse(marks[:2], "first")
    labels.refuse(marks[1:3], "second")
    labels.refuse(marks[2:3], OUTPUT)
    labels.refuse(marks[3:], "doubt", certain=False)
    labels.refuse(None, "nothing")
    reasons = labels.reasons()
    assert [reasons.get(int(c), "") for c in labels.find(marks)] == ["first", "first", OUTPUT, ""]
    assert labels.reasons(certain=False) == {int(labels.find(marks)[3]): "doubt"}
    labels.union(marks[:1], marks[2:3])
    assert labels.reasons()[int(labels.find(marks)[0])] == OUTPUT
