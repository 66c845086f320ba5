import pytest
import torch
from torch import nn

from autocompress.errors import TraceError
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.recording import Recording, call_macs, record
from autocompress.graph.structure import Operation
from zoo import ConcatNet, EncoderLayer, ResidualNet


def _record(model: nn.Module, *shape: int) -> Recording:
    return record(model.eval(), ModelInputs.of(torch.zeros(*shape)))


def test_operations_have_scope_and_shape() -> None:
    recording = _record(ResidualNet(4, 1), 2, 3, 16, 16)
    assert recording.operations == [
        Operation(kind="add", scope="layer1.0", shape=(4, 16, 16)),
        Operation(kind="add", scope="layer2.0", shape=(8, 8, 8)),
    ]
    recording = _record(ConcatNet(4), 2, 3, 8, 8)
    assert recording.operations == [Operation(kind="cat", scope="", shape=(12, 8, 8))]


class Adds(nn.Module):
    """Adds in every spelling, and some that are no residual adds."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x * 2
        z = x + y
        z += y
        z = torch.add(z, y)
        z = z.add(other=y)
        z.add_(y)
        z = torch.add(input=z, other=y)
        z = z + 1.0  # a constant
        z = z + y[:, :1]  # broadcast
        weights = torch.ones(3, 4) + torch.ones(3, 4)  # no batch axis
        return z + weights.sum()


def test_only_adds_of_equal_batched_tensors_count() -> None:
    recording = _record(Adds(), 2, 5)
    assert recording.operations == [Operation(kind="add", scope="", shape=(5,))] * 6


def test_hooks_are_removed_even_after_a_failure() -> None:
    model = nn.Sequential(nn.Linear(3, 2))
    with pytest.raises(TraceError, match="forward pass on the example inputs"):
        _record(model, 2, 4)
    for module in model.modules():
        assert not module._forward_hooks
        assert not module._forward_pre_hooks


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (nn.Conv2d(4, 6, 3, stride=2, padding=1), (2, 4, 8, 8), 6 * 4 * 4 * 4 * 9),
        (nn.Conv2d(4, 8, (3, 1), groups=2), (2, 4, 8, 8), 8 * 6 * 8 * 2 * 3),
        (nn.Conv2d(4, 4, 3, groups=4, padding=1), (2, 4, 8, 8), 4 * 8 * 8 * 9),
        (nn.Conv1d(3, 5, 3), (2, 3, 10), 5 * 8 * 3 * 3),
        (nn.Conv3d(2, 3, 2), (2, 2, 4, 4, 4), 3 * 27 * 2 * 8),
        (nn.ConvTranspose2d(4, 6, 2, stride=2), (2, 4, 8, 8), 4 * 8 * 8 * 6 * 4),
        (nn.Linear(5, 7), (2, 5), 35),
        (nn.Linear(5, 7), (2, 3, 5), 3 * 35),
    ],
)
def test_macs_equal_hand_counts(layer: nn.Module, shape: tuple[int, ...], expected: int) -> None:
    recording = _record(layer, *shape)
    assert call_macs(recording.calls[0], recording.batch_size) == expected


def test_a_call_is_marked_where_its_own_input_is_added() -> None:
    recording = _record(ResidualNet(4, 2), 2, 3, 16, 16)
    assert [call.name for call in recording.calls if call.adds_input] == [
        *("layer1", "layer1.0", "layer1.1", "layer2.1")
    ]
    assert [call.name for call in recording.calls if call.joins] == ["layer2.0"]
    assert recording.runs("layer1.0.conv1") == 1


def test_branches_name_the_modules_that_make_them() -> None:
    recording = _record(ResidualNet(4, 1), 2, 3, 16, 16)
    names = [[call.name for call in branch.calls] for branch in recording.branches]
    assert names == [["layer1.0.conv1", "layer1.0.conv2"]]
    assert [branch.scope for branch in recording.branches] == ["layer1.0"]
    recording = _record(EncoderLayer(6, 2), 2, 5, 6)
    names = [[call.name for call in branch.calls] for branch in recording.branches]
    assert names == [["attn"], ["fc1", "fc2"]]
    assert [operation.branch for operation in recording.operations] == ["attn", ""]
