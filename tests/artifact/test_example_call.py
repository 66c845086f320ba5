import torch

from autocompress.artifact.example_call import ExampleCall, refilled, tensors_of


def test_tensors_are_inputs_and_the_rest_is_fixed() -> None:
    images, first, second, mask = (torch.randn(3, size) for size in range(1, 5))
    call = ExampleCall.of(((images, None, (first, 0.5, second)), {"flag": True, "mask": mask}))
    assert call.names == ["input_0", "input_2_0", "input_2_2", "mask"]
    assert [tuple(tensor.shape) for tensor in call.tensors] == [(2, size) for size in range(1, 5)]
    assert len(call.dynamic_shapes) == 4
    (got, nothing, (one, number, two)), kwargs = call.filled([images, first, second, mask])
    assert got is images
    assert (nothing, number, kwargs["flag"]) == (None, 0.5, True)
    assert one is first
    assert two is second
    assert kwargs["mask"] is mask


def test_both_examples_are_the_first_and_a_number_stays_one() -> None:
    call = ExampleCall.of(((torch.tensor([[1.0], [2.0]]), torch.tensor(3.0)), {}))
    assert [tensor.tolist() for tensor in call.tensors] == [[[1.0], [1.0]], 3.0]
    assert call.dynamic_shapes[1] is None


def test_a_structure_takes_other_tensors() -> None:
    like = {"loss": None, "states": (torch.zeros(1), torch.zeros(2)), "kind": "words"}
    assert [len(tensor) for tensor in tensors_of(like)] == [1, 2]
    found = refilled(like, [torch.ones(1), torch.ones(2)])
    assert (found["loss"], found["kind"]) == (None, "words")
    assert [tensor.sum().item() for tensor in found["states"]] == [1.0, 2.0]


def test_no_two_inputs_have_one_name() -> None:
    one = torch.ones(2)
    call = ExampleCall(args=(one,), kwargs={"input_0": one, "x": [one, one], "x_0": one})
    assert call.names == ["input_0", "input_0_", "x_0", "x_1", "x_0_"]
