import torch

from autocompress.graph.dataflow import Dataflow


def _sum(flow: Dataflow, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    total = a + b
    flow.note([total], [a, b], [])
    flow.note_sum(total)
    return total


def test_a_branch_is_what_lies_between_the_operands() -> None:
    flow = Dataflow()
    x, other = torch.zeros(1), torch.ones(1)
    inner, outer, aside = x + 1, x + 2, other + 1
    flow.note([inner], [x], [0, 3, 4])
    flow.note([aside], [other], [0, 7])
    flow.note([outer], [inner, aside], [0, 5])
    assert flow.branch([outer, x], [0]) == [3, 5]
    assert flow.branch([x, outer], [0, 3]) == [4, 5]
    assert flow.branch([x, other], [0]) is None
    assert flow.branch([x, aside], [0]) is None


def test_a_sum_carries_its_older_operand_on() -> None:
    flow = Dataflow()
    x = torch.zeros(1)
    first, second = x + 1, x + 2
    flow.note([first], [x], [1])
    total = _sum(flow, first, x)
    flow.note([second], [x], [2])
    assert flow.branch([total, second], []) == [2]
    assert flow.branch([_sum(flow, total, second), x], []) == [1, 2]


def test_a_tensor_that_is_changed_in_place_is_a_new_one() -> None:
    flow = Dataflow()
    x = torch.zeros(1)
    out = x + 1
    flow.note([out], [x], [1])
    assert flow.branch([out, x], []) == [1]
    out += x
    flow.note([out], [out, x], [])
    flow.note_sum(out)
    made = out * 2
    flow.note([made], [out], [2])
    assert flow.branch([made, out], []) == [2]


def test_tensors_are_not_kept_alive() -> None:
    flow = Dataflow()
    x = torch.zeros(1)
    for _ in range(3):
        y = x + 1
        flow.note([y], [x], [])
    del y
    assert len(flow._number) == 1
