from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autocompress.transform.criteria.filters import filter_rows

Case = tuple[Callable[[], nn.Module], Callable[[Tensor, int], Tensor]]

CASES: dict[str, Case] = {
    "linear": (lambda: nn.Linear(3, 5), lambda w, o: w[o]),
    "conv1d": (lambda: nn.Conv1d(3, 5, 2), lambda w, o: w[o]),
    "depthwise": (lambda: nn.Conv2d(4, 4, 3, groups=4), lambda w, o: w[o]),
    "transposed": (lambda: nn.ConvTranspose2d(3, 5, 2), lambda w, o: w[:, o]),
    "transposed depthwise": (
        lambda: nn.ConvTranspose2d(4, 4, 2, groups=4),
        lambda w, o: w[o],
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_a_row_is_what_produces_one_output(name: str) -> None:
    make, by_hand = CASES[name]
    layer = make()
    weight = layer.weight.detach()
    rows = filter_rows(layer, weight)
    assert len(rows) == len(layer.bias)
    for output in range(len(rows)):
        assert torch.equal(rows[output], by_hand(weight, output).flatten())


@pytest.mark.parametrize("name", CASES)
def test_without_its_row_an_output_is_its_bias(name: str) -> None:
    layer = CASES[name][0]()
    weight = layer.weight.detach()
    places = filter_rows(layer, torch.arange(weight.numel()).reshape(weight.shape))[2].long()
    with torch.no_grad():
        emptied = weight.flatten().clone()
        emptied[places] = 0.0
        layer.weight.copy_(emptied.reshape(weight.shape))
        channels = layer.in_features if isinstance(layer, nn.Linear) else layer.in_channels
        outputs = layer(torch.randn(2, channels, *[4] * (weight.dim() - 2)))
    assert (outputs[:, 2] == layer.bias[2]).all()
    assert (outputs[:, 1] != layer.bias[1]).any()
