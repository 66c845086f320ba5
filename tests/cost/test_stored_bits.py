import numpy as np
import pytest
import torch
from torch import nn

from autocompress.core.candidate import LayerConfig
from autocompress.cost.stored_bits import SAMPLE, StoredBits


def _model(outputs: int, inputs: int) -> nn.Module:
    return nn.Sequential(nn.Linear(inputs, outputs))


def test_unquantised_weights_take_all_their_bits() -> None:
    assert StoredBits(_model(8, 8))("0", LayerConfig()) == 32.0


@pytest.mark.parametrize(("bits", "low", "high"), [(2, 1.3, 1.6), (4, 3.3, 3.9), (8, 6.8, 7.9)])
def test_codes_of_trained_weights_are_shorter_than_their_bits(
    bits: int, low: float, high: float
) -> None:
    torch.manual_seed(0)
    model = _model(64, 256)
    nn.init.normal_(model[0].weight)
    assert low < StoredBits(model)("0", LayerConfig(weight_bits=bits)) < high


def test_masked_weights_take_their_places_only() -> None:
    torch.manual_seed(0)
    stored, found = StoredBits(_model(64, 256)), []
    for sparsity in (0.0, 0.5, 0.9, 0.97):
        config = LayerConfig(weight_bits=4, sparsity=sparsity)
        found.append(stored("0", config))
        if sparsity >= 0.5:
            kept = 1.0 - sparsity
            places = -kept * np.log2(kept) - sparsity * np.log2(sparsity)
            assert kept + 0.97 * places <= found[-1] <= 1.1 * (kept * 4.0 + places)
    assert found == sorted(found, reverse=True)


def test_large_layers_are_sampled_and_asked_once() -> None:
    torch.manual_seed(0)
    model = _model(3 * SAMPLE // 1024, 1024)
    stored, config = StoredBits(model), LayerConfig(weight_bits=3)
    sampled = stored("0", config)
    with torch.no_grad():
        model[0].weight.zero_()
    assert stored("0", config) == sampled
    torch.manual_seed(1)
    small = _model(SAMPLE // 1024, 1024)
    assert sampled == pytest.approx(StoredBits(small)("0", config), rel=0.01)
