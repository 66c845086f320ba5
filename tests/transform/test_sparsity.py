import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.sparsity import kept_weights
from autocompress.errors import InvalidInputError
from autocompress.graph.tracing import trace
from autocompress.transform.compress import rebuild_model
from autocompress.transform.record import SurgeryRecord
from autocompress.transform.sparsity import keep_mask
from seasoned import compressed, seasoned

HALF = LayerConfig(sparsity=0.5)
TWO_OF_FOUR = LayerConfig(sparsity=0.5, sparsity_pattern="2:4", weight_bits=8, activation_bits=8)


@given(
    shape=st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 4)),
    sparsity=st.floats(0.0, 0.95),
    seed=st.integers(0, 10**6),
)
def test_the_largest_weights_stay(shape: tuple[int, int, int], sparsity: float, seed: int) -> None:
    weight = np.random.default_rng(seed).normal(size=shape)
    mask = keep_mask(torch.from_numpy(weight), sparsity, "unstructured").numpy()
    assert mask.shape == shape
    assert mask.sum() == kept_weights(shape, sparsity, "unstructured")
    gone = np.abs(weight[~mask])
    assert gone.size == 0 or gone.max() <= np.abs(weight[mask]).min()


@given(
    shape=st.tuples(st.integers(1, 4), st.integers(1, 19), st.integers(1, 3)),
    seed=st.integers(0, 10**6),
    pattern=st.sampled_from([(2, 4), (1, 4), (4, 8), (3, 5)]),
)
def test_n_of_every_m_inputs_stay(
    shape: tuple[int, int, int], seed: int, pattern: tuple[int, int]
) -> None:
    (n, m), name = pattern, f"{pattern[0]}:{pattern[1]}"
    weight = np.random.default_rng(seed).normal(size=shape)
    expected = np.ones(shape, dtype=bool)
    for out in range(shape[0]):
        for place in range(shape[2]):
            for start in range(0, shape[1] - m + 1, m):
                sizes = np.abs(weight[out, start : start + m, place])
                for position in np.argsort(sizes)[: m - n]:
                    expected[out, start + position, place] = False
    mask = keep_mask(torch.from_numpy(weight), 1.0 - n / m, name).numpy()
    np.testing.assert_array_equal(mask, expected)
    assert mask.sum() == kept_weights(shape, 1.0 - n / m, name)


@pytest.mark.parametrize("groups", [1, 2])
def test_transposed_convolutions_keep_n_of_every_m_inputs(groups: int) -> None:
    model = nn.Sequential(nn.ConvTranspose2d(8, 6, 2, groups=groups), nn.ReLU()).eval()
    two_of_four = LayerConfig(sparsity=0.5, sparsity_pattern="2:4")
    result = compressed(model, torch.randn(2, 8, 5, 5), Candidate(layers={"0": two_of_four}))
    kept = (result.network[0].weight != 0).reshape(groups, 8 // groups, 6 // groups, 4)
    for group in kept:  # inputs x outputs x places
        assert (group.reshape(-1, 4, 6 // groups, 4).sum(dim=1) == 2).all()
    assert result.record.sparse == {"0": kept.numel() // 2}


def test_the_masked_model_is_the_original_with_zeros() -> None:
    model, inputs = seasoned("ResidualNet")
    layers = {"layer1.0.conv1": HALF, "fc": LayerConfig(sparsity=0.9)}
    result = compressed(model, inputs, Candidate(layers=layers))
    with torch.no_grad():
        for name, config in layers.items():
            weight = model.get_submodule(name).weight
            flat = np.abs(weight.numpy().ravel())
            gone = np.argsort(flat, kind="stable")[: round(config.sparsity * flat.size)]
            weight.view(-1)[torch.from_numpy(gone)] = 0.0
        torch.testing.assert_close(result(inputs), model(inputs))
    assert result.record.sparse == {"fc": 16, "layer1.0.conv1": 288}
    assert SurgeryRecord.from_json(result.record.to_json()) == result.record


def test_masks_are_made_after_the_cut() -> None:
    model, inputs = seasoned("PlainNet")
    candidate = Candidate(pruning_ratios={"conv1": 0.25}, layers={"conv2": TWO_OF_FOUR})
    result = compressed(model, inputs, candidate)
    weight = result.network.conv2.weight
    assert weight.shape[1] == 6  # a group of four, and two that stay whole
    assert result.record.sparse["conv2"] == int(result.mask("conv2").sum()) == 16 * 9 * 4
    assert torch.equal(weight != 0, result.mask("conv2"))


def test_gradients_of_masked_weights_are_cleared() -> None:
    model, inputs = seasoned("Mlp")
    result = compressed(model, inputs, Candidate(layers={"fc2": HALF}))
    result(inputs).square().sum().backward()
    before = result.network.fc2.weight.grad.clone()
    result.mask_gradients()
    expected = before * result.mask("fc2")
    assert not torch.equal(before, expected)
    assert torch.equal(result.network.fc2.weight.grad, expected)


def test_a_rebuilt_model_has_room_for_masks_and_moves_with_them() -> None:
    model, inputs = seasoned("Mlp")
    result = compressed(model, inputs, Candidate(layers={"fc2": HALF}))
    rebuilt = rebuild_model(model, result.record)
    rebuilt.load_state_dict(result.state_dict())
    assert torch.equal(rebuilt.mask("fc2"), result.mask("fc2"))


def test_only_layers_with_weights_of_their_own_can_be_sparse() -> None:
    model, inputs = seasoned("Mlp")
    model.fc3 = torch.nn.utils.parametrizations.weight_norm(model.fc3)
    reason = trace(model, inputs).layer("fc3").reason
    assert reason
    with pytest.raises(InvalidInputError, match=reason):
        compressed(model, inputs, Candidate(layers={"fc3": HALF}))
