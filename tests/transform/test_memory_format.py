import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.tracing import trace
from autocompress.transform.memory_format import keep_sound, sound_channels_last
from autocompress.transform.surgery import cut_model, plan_cuts


def _without_avx512(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")


@pytest.mark.parametrize(
    ("layer", "sound"),
    [
        (nn.Conv2d(7, 12, 1, stride=2), False),
        (nn.Conv2d(8, 12, 1, stride=2), True),
        (nn.Conv2d(8, 12, 1, stride=2, groups=2), False),
        (nn.Conv2d(4, 12, 1), True),
        (nn.Conv2d(4, 12, 3, stride=2), True),
        (nn.Linear(4, 2), True),
    ],
)
def test_narrow_strided_pointwise_convolutions_are_not_sound_without_avx512(
    layer: nn.Module, sound: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = nn.Sequential(layer)
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX512")
    assert sound_channels_last(network)
    _without_avx512(monkeypatch)
    assert sound_channels_last(network) == sound


def test_axes_go_back_to_the_usual_order(monkeypatch: pytest.MonkeyPatch) -> None:
    _without_avx512(monkeypatch)
    layers = [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 8, 1, stride=2)]
    network = nn.Sequential(*layers).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    assert keep_sound(network) is network
    assert all(layer.weight.is_contiguous() for layer in layers)


def test_what_pruning_makes_narrow_is_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    layers = [nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Conv2d(16, 8, 1, stride=2), nn.ReLU()]
    model = nn.Sequential(*layers, nn.Flatten(), nn.Linear(72, 2)).eval()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    graph = trace(model, ModelInputs.of(torch.rand(2, 3, 8, 8)))
    narrow = Candidate(pruning_ratios={graph.groups[0].name: 0.75}).canonical()
    _without_avx512(monkeypatch)
    kept = cut_model(model, (), ())
    cut = cut_model(model, (), plan_cuts(model, graph, narrow))
    first, cut_first = kept.get_submodule("0").weight, cut.get_submodule("0").weight
    assert isinstance(first, torch.Tensor)
    assert isinstance(cut_first, torch.Tensor)
    assert not first.is_contiguous()
    assert cut_first.is_contiguous()
