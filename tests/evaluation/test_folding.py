import pytest
import torch
from torch import Tensor, nn

from autocompress.evaluation.folding import folded
from seasoned import seasoned


def _norms(model: nn.Module) -> int:
    return sum(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("name", ["ResidualNet", "PlainNet"])
def test_a_folded_copy_answers_the_same_without_batch_norms(name: str) -> None:
    model, inputs = seasoned(name, 6)
    expected = model(inputs)
    copied = folded(model, lambda each: each(inputs))
    assert _norms(model) > 0 == _norms(copied)
    torch.testing.assert_close(copied(inputs), expected, rtol=1e-4, atol=1e-4)


class _Shared(nn.Module):
    """A convolution whose output two paths read, so that nothing may be folded into it."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)
        nn.init.uniform_(self.norm.weight, 2.0, 3.0)

    def forward(self, images: Tensor) -> Tensor:
        found = self.conv(images)
        return found + self.norm(found)


class _Twice(nn.Module):
    """A convolution that runs twice, before two batch norms."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.norms = nn.ModuleList([nn.BatchNorm2d(3), nn.BatchNorm2d(3)])

    def forward(self, images: Tensor) -> Tensor:
        for norm in self.norms:
            images = norm(self.conv(images))
        return images


@pytest.mark.parametrize("model", [_Shared(), _Twice(), nn.Sequential(nn.Linear(5, 2))])
def test_a_model_that_cannot_be_folded_stays_itself(model: nn.Module) -> None:
    model.eval()
    shape = (2, 5) if isinstance(model, nn.Sequential) else (2, 3, 5, 5)
    inputs = torch.rand(*shape, generator=torch.Generator().manual_seed(0))
    assert folded(model, lambda each: each(inputs)) is model
