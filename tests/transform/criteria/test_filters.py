from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from autocompress.transform.criteria.filters import filter_key, filter_rows, input_rows

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


def test_every_module_names_the_weight_that_produces_an_axis() -> None:
    attention, embedding = nn.MultiheadAttention(4, 2), nn.Embedding(7, 4)
    keys = {
        (module, axis): filter_key(module, axis)
        for module in (attention, embedding, nn.Conv1d(3, 4, 1), nn.BatchNorm1d(4), nn.PReLU(4))
        for axis in ("out", "in", "weight:1", ".num_heads")
    }
    assert [key for key in keys.values() if key] == ["in_proj_weight", "weight", "weight"]
    assert filter_rows(embedding, embedding.weight.detach()).shape == (4, 7)
    assert keys[attention, "out"] == "in_proj_weight"
    assert keys[embedding, "weight:1"] == "weight"


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(4, 5),
        lambda: nn.Conv1d(4, 6, 2),
        lambda: nn.Conv2d(4, 6, 1, groups=2),
        lambda: nn.ConvTranspose2d(4, 6, 2),
        lambda: nn.ConvTranspose2d(4, 6, 2, groups=2),
    ],
)
def test_without_the_weights_that_read_it_an_input_changes_nothing(
    make: Callable[[], nn.Module],
) -> None:
    layer = make()
    shape = (1, 4) if isinstance(layer, nn.Linear) else (1, 4, 3, 3)[: layer.weight.dim()]
    weight = layer.weight.detach()
    places = input_rows(layer, torch.arange(weight.numel()).reshape(weight.shape))[2].long()
    x, other = torch.randn(shape), torch.randn(shape)
    other[:, [0, 1, 3]] = x[:, [0, 1, 3]]
    with torch.no_grad():
        assert not torch.allclose(layer(x), layer(other))
        layer.weight.view(-1)[places] = 0.0
        torch.testing.assert_close(layer(x), layer(other))
        assert int((layer.weight == 0).sum()) == len(places)
