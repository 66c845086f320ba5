from pathlib import Path

import pytest
import torch
from torch import nn

from autocompress.artifact.exact import ExactModel
from autocompress.artifact.export import RuntimeModule
from autocompress.artifact.onnx_file import write_onnx
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.graph.tracing import trace
from autocompress.transform.compressed import CompressedModel
from seasoned import compressed, pruned, seasoned, uniform


def _outputs(
    model: CompressedModel, inputs: torch.Tensor, path: Path
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Compute fresh inputs in fake quantisation, in integers and in the runtime."""
    write_onnx(model, path, ((inputs[:2],), {}))
    fresh = torch.cat([inputs, torch.randn(200, *inputs.shape[1:])])
    with torch.no_grad():
        exact = ExactModel(model, ((inputs[:2],), {}))(fresh)
        return model(fresh), exact, RuntimeModule(path)(fresh)


@pytest.mark.parametrize(
    ("name", "bits", "dropped"),
    [("ResidualNet", 8, ()), ("OptionANet", 3, ("layer1.0",)), ("PlainNet", 2, ())],
)
def test_integers_agree_with_the_runtime_where_fake_quantisation_does_not(
    tmp_path: Path, name: str, bits: int, dropped: tuple[str, ...]
) -> None:
    model, inputs = seasoned(name, examples=32)
    graph = trace(model, inputs)
    candidate = Candidate(
        pruning_ratios=pruned(graph, 0.25), dropped_blocks=dropped, layers=uniform(graph, bits)
    )
    result = compressed(model, inputs, candidate)
    fake, exact, runtime = _outputs(result, inputs, tmp_path / "model.onnx")
    step = 1e-4 * runtime.abs().max()
    apart = ((exact - runtime).abs() > step).any(dim=1).float().mean()
    assert apart < 0.01
    assert ((fake - runtime).abs() > step).any(dim=1).float().mean() > 2 * apart


def test_float_layers_between_integer_ones_are_left_to_torch(tmp_path: Path) -> None:
    model, inputs = seasoned("ResidualNet", examples=32)
    graph = trace(model, inputs)
    layers = uniform(graph, 8)
    layers["layer1.0.conv2"] = LayerConfig(weight_bits=4)
    del layers["layer2.0.conv1"]
    result = compressed(model, inputs, Candidate(layers=layers))
    fake, exact, runtime = _outputs(result, inputs, tmp_path / "model.onnx")
    scale = runtime.abs().mean()
    assert (exact - runtime).abs().mean() <= (fake - runtime).abs().mean() + 1e-6
    assert (exact - runtime).abs().mean() < 0.01 * scale


class _Attention(nn.Module):
    """Two linear layers around attention, tokens normalised."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.qkv, self.out = nn.LayerNorm(12), nn.Linear(12, 36), nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        query, key, value = self.qkv(self.norm(x)).chunk(3, dim=-1)
        mixed = nn.functional.scaled_dot_product_attention(query, key, value)
        return (x + self.out(mixed)).mean(dim=1)


def test_operations_keep_their_numbers_inside_attention(tmp_path: Path) -> None:
    model, inputs = _Attention().eval(), torch.randn(32, 5, 12)
    config = LayerConfig(weight_bits=8, activation_bits=8)
    result = compressed(model, inputs, Candidate(layers={"qkv": config, "out": config}))
    fake, exact, runtime = _outputs(result, inputs, tmp_path / "model.onnx")
    scale = runtime.abs().mean()
    assert (exact - runtime).abs().mean() < 0.005 * scale
    assert (exact - fake).abs().mean() < 0.01 * scale


def test_an_unquantised_model_is_itself() -> None:
    model, inputs = seasoned("ResidualNet")
    result = compressed(model, inputs, Candidate())
    with torch.no_grad():
        assert torch.equal(ExactModel(result, ((inputs,), {}))(inputs), model(inputs))


class _Scaled(nn.Module):
    """Adds a branch that is scaled, which no integer kernel does."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right, self.out = (nn.Conv2d(c, 8, 3) for c in (3, 3, 8))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.out(torch.add(self.left(x), self.right(x), alpha=0.25).relu()).flatten(1)


def test_scaled_additions_are_no_residual_ones(tmp_path: Path) -> None:
    model, inputs = _Scaled().eval(), torch.randn(32, 3, 6, 6)
    config = LayerConfig(weight_bits=8, activation_bits=8)
    layers = dict.fromkeys(("left", "right", "out"), config)
    result = compressed(model, inputs, Candidate(layers=layers))
    _, exact, runtime = _outputs(result, inputs, tmp_path / "model.onnx")
    assert (exact - runtime).abs().mean() < 0.005 * runtime.abs().mean()
