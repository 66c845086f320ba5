import copy

import pytest
import torch
from torch import nn

import zoo
from autocompress.errors import InvalidInputError, WrongTypeError
from autocompress.evaluation.original import frozen_copy, weights_digest
from autocompress.graph.inputs import ModelInputs


def test_the_copy_is_in_eval_mode_and_the_model_is_untouched() -> None:
    model = zoo.ResidualNet().half().train()
    before = copy.deepcopy(model.state_dict())
    frozen = frozen_copy(model, "cpu")
    assert not frozen.training
    assert model.training
    assert {p.dtype for p in frozen.parameters()} == {torch.float32}
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[name])
        assert tensor.data_ptr() != frozen.state_dict()[name].data_ptr()


def test_images_run_channels_last() -> None:
    weights = [p for p in frozen_copy(zoo.ResidualNet(), "cpu").parameters() if p.dim() == 4]
    assert all(w.is_contiguous(memory_format=torch.channels_last) for w in weights)


def test_what_is_no_model_and_a_device_that_is_not_there_are_refused() -> None:
    with pytest.raises(WrongTypeError, match=r"torch\.nn\.Module"):
        frozen_copy("resnet", "cpu")  # type: ignore[arg-type]
    with pytest.raises(InvalidInputError, match="device"):
        frozen_copy(zoo.Mlp(), "tpu")


def test_one_changed_weight_changes_the_digest() -> None:
    torch.manual_seed(0)
    model = zoo.Mlp()
    before = weights_digest(model)
    assert weights_digest(copy.deepcopy(model)) == before
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6
    assert weights_digest(model) != before


class Viewing(nn.Module):
    """Flattens features by `view`, which channels-last ones refuse."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.linear = nn.Linear(144, 10)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        features: torch.Tensor = self.conv(x)
        logits: torch.Tensor = self.linear(features.view(len(x), -1))
        return logits


def test_what_cannot_run_channels_last_does_not() -> None:
    images = torch.rand(2, 3, 8, 8)
    inputs = ModelInputs.of(images)
    frozen = frozen_copy(Viewing(), "cpu", inputs)
    assert frozen(images).shape == (2, 10)
    assert frozen.conv.weight.is_contiguous()
    residual = frozen_copy(zoo.ResidualNet(), "cpu", inputs)
    assert residual.conv1.weight.is_contiguous(memory_format=torch.channels_last)


def test_tables_of_integers_among_the_parameters_have_no_gradients() -> None:
    model = nn.Linear(3, 3)
    model.table = nn.Parameter(torch.arange(3), requires_grad=False)
    copied = frozen_copy(model.requires_grad_(False), "cpu")
    assert copied.weight.requires_grad
    assert not copied.table.requires_grad
