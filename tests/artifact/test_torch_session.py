import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autocompress.artifact.runtime import InputNode
from autocompress.artifact.torch_session import TorchSession
from autocompress.core.target import Target

TARGET = Target.named("torch-cpu")


class Lookup(nn.Module):
    """Takes tokens and a mask; returns a mapping with something besides tensors."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(10, 4)

    def forward(self, tokens: Tensor, mask: Tensor) -> dict[str, object]:
        values = self.table(tokens) * mask.unsqueeze(-1)
        return {"sum": values.sum(1), "kind": "words", "tokens": tokens}


NODES = [
    InputNode(name="tokens", type="tensor(int64)", shape=("batch", 3)),
    InputNode(name="mask", type="tensor(float)", shape=("batch", 3)),
]
FEED = {
    "mask": np.array([[1.0, 1.0, 0.0]], np.float32),
    "tokens": np.array([[1, 2, 3]]),
}


def test_inputs_go_by_name_and_outputs_are_the_tensors_among_them() -> None:
    model = Lookup().eval()
    session = TorchSession(model, NODES, TARGET)
    total, tokens = session.run(None, FEED)
    expected = model.table.weight[1:3].sum(0, keepdim=True)
    np.testing.assert_allclose(total, expected.detach().numpy(), rtol=1e-6)
    np.testing.assert_array_equal(tokens, FEED["tokens"])


def test_a_bound_call_records_no_gradients() -> None:
    outputs = TorchSession(Lookup().eval(), NODES, TARGET).bind(FEED)()
    assert isinstance(outputs, dict)
    assert not outputs["sum"].requires_grad


def test_a_program_tells_its_inputs_with_their_types() -> None:
    batch = torch.export.Dim("batch")
    values = torch.tensor(FEED["tokens"]).repeat(2, 1), torch.tensor(FEED["mask"]).repeat(2, 1)
    shapes = {"tokens": {0: batch}, "mask": {0: batch}}
    program = torch.export.export(Lookup().eval(), values, dynamic_shapes=shapes)
    session = TorchSession.of_program(program, TARGET)
    found = {node.name: (node.type, tuple(node.shape)) for node in session.get_inputs()}
    assert found == {
        "tokens": ("tensor(int64)", ("batch", 3)),
        "mask": ("tensor(float)", ("batch", 3)),
    }
    assert session.run(None, FEED)[0].shape == (1, 4)


def test_a_session_computes_with_the_threads_of_its_target() -> None:
    seen: list[int] = []

    class Nosy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            seen.append(torch.get_num_threads())
            return x

    before = torch.get_num_threads()
    node = InputNode(name="x", type="tensor(float)", shape=("batch",))
    target = Target.named("torch-cpu", threads=before + 1)
    TorchSession(Nosy(), [node], target).run(None, {"x": np.zeros(1, np.float32)})
    assert (seen, torch.get_num_threads()) == ([before + 1], before)


@pytest.mark.parametrize("dtype", [torch.int16, torch.uint16, torch.bfloat16])
def test_less_common_types_are_told_by_their_names(dtype: torch.dtype) -> None:
    inputs = torch.ones(2, 3, dtype=dtype)
    program = torch.export.export(nn.Identity(), (inputs,))
    (node,) = TorchSession.of_program(program, TARGET).get_inputs()
    assert node.type == f"tensor({str(dtype).removeprefix('torch.')})"
