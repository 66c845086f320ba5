import copy

import pytest
import torch

import zoo
from autocompress.errors import InvalidInputError, WrongTypeError
from autocompress.evaluation.original import frozen_copy, weights_digest


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
