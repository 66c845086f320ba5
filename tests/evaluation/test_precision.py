import pytest
import torch

from autocompress.evaluation.precision import arithmetic, bfloat16_is_fast


def test_low_precision_is_used_where_the_device_is_fast_at_it() -> None:
    product = torch.ones(2, 2)
    with arithmetic("cpu"):
        expected = torch.bfloat16 if bfloat16_is_fast("cpu") else torch.float32
        assert (product @ product).dtype == expected
    assert (product @ product).dtype == torch.float32


def test_float32_is_kept_where_it_is_asked_for() -> None:
    product = torch.ones(2, 2)
    with arithmetic("cpu", low_precision=False):
        assert (product @ product).dtype == torch.float32


@pytest.mark.parametrize("fast", [True, False])
def test_the_device_decides(fast: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.ops.mkldnn, "_is_mkldnn_bf16_supported", lambda: fast)
    assert bfloat16_is_fast("cpu") is fast
    with arithmetic("cpu"):
        assert torch.is_autocast_enabled("cpu") is fast


def test_bfloat16_that_is_emulated_is_not_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    def supported(including_emulation: bool = True) -> bool:
        return including_emulation

    monkeypatch.setattr(torch.cuda, "is_bf16_supported", supported)
    assert not bfloat16_is_fast("cuda")
