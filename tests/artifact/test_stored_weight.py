import pytest
import torch

from autocompress.artifact.stored_weight import read_weight, weight_entries

LEVELS = torch.arange(-7, 8)


def _weight(sparsity: float) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    codes = torch.randint(-7, 8, (12, 8, 3, 3), generator=generator)
    mask = torch.rand(codes.shape, generator=generator) >= sparsity
    return codes * mask, mask


@pytest.mark.parametrize("sparsity", [0.3, 0.6, 0.97])
def test_sparse_codes_come_back_with_their_mask(sparsity: float) -> None:
    codes, mask = _weight(sparsity)
    entries = weight_entries(codes, LEVELS, mask)
    found, kept = read_weight(entries, codes.shape, LEVELS)
    assert torch.equal(found, codes)
    if kept is not None:
        assert torch.equal(kept, mask)


def test_many_zeros_are_left_out_of_the_file() -> None:
    codes, mask = _weight(0.97)
    assert {"bitmask", "gaps"} & weight_entries(codes, LEVELS, mask).keys()
    assert weight_entries(codes, LEVELS).keys() == {"codes"}


def test_floats_come_back_bit_for_bit() -> None:
    values = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    found, kept = read_weight(weight_entries(values), values.shape, None)
    assert kept is None
    assert torch.equal(found, values)


def test_entries_of_another_shape_are_refused() -> None:
    codes, _ = _weight(0.0)
    with pytest.raises((ValueError, RuntimeError)):
        read_weight(weight_entries(codes, LEVELS), torch.Size([5, 5]), LEVELS)
