from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import onnx
import pytest
import torch
from onnx import TensorProto, numpy_helper
from torch import Tensor, nn

import autocompress as ac
from autocompress.artifact import onnx_file
from autocompress.artifact.export import (
    Artifact,
    RuntimeModule,
    check_outputs,
    export_artifact,
    feed_of,
)
from autocompress.artifact.packed import read_packed, write_packed
from autocompress.artifact.runtime import open_session
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.target import Target
from autocompress.errors import ExportError, InvalidInputError, WrongTypeError
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from autocompress.transform.compressed import CompressedModel
from seasoned import compressed, pruned, season, seasoned, uniform
from zoo import EveryKind

Optimised = Callable[[Path], Counter[str]]

TARGET = Target.named("onnxruntime-cpu")


def _compressed(
    name: str, bits: int, dropped: tuple[str, ...] = (), activation_bits: int = 8
) -> tuple[CompressedModel, torch.Tensor]:
    model, inputs = seasoned(name, examples=32)
    graph = trace(model, inputs)
    candidate = Candidate(
        pruning_ratios=pruned(graph, 0.25),
        dropped_blocks=dropped,
        layers=uniform(graph, bits, activation_bits),
    )
    return compressed(model, inputs, candidate), inputs


@pytest.mark.parametrize(
    ("name", "bits", "dropped"),
    [
        ("ResidualNet", 8, ("layer1.1",)),
        ("OptionANet", 4, ("layer1.0",)),
        ("InvertedResidualNet", 8, ("blocks.0",)),
        ("ConcatNet", 4, ()),
        ("BranchNet", 8, ("second",)),
        ("Mlp", 8, ()),
    ],
)
def test_the_runtime_computes_what_torch_does(
    tmp_path: Path, name: str, bits: int, dropped: tuple[str, ...]
) -> None:
    result, inputs = _compressed(name, bits, dropped)
    artifact = export_artifact(result, tmp_path / "model.onnx", ((inputs[:2],), {}), target=TARGET)
    fresh = torch.cat([inputs, torch.randn(64, *inputs.shape[1:])])
    with torch.no_grad():
        expected = result(fresh)
        got = RuntimeModule(artifact.path)(fresh)
    # Sums round differently, so single codes flip; each moves an output by a step of its grid.
    classifier = list(result.record.quantised)[-1] if name == "Mlp" else "fc"
    step = result.quantisers[result.record.plan.inputs[classifier]].scale
    largest = result.network.get_submodule(classifier).weight.detach().abs().max()
    assert (got - expected).abs().max() <= 12 * step * largest
    assert (got - expected).abs().mean() <= 0.01 * expected.abs().mean()
    agreement = (got.argmax(dim=1) == expected.argmax(dim=1)).float().mean()
    assert agreement >= 0.97
    assert artifact.size_bytes == artifact.packed_path.stat().st_size
    assert artifact.onnx_bytes == artifact.path.stat().st_size
    assert artifact.packed_path == tmp_path / "weights.packed"


def test_every_kind_of_layer_and_format_runs_as_it_does_in_torch(tmp_path: Path) -> None:
    formats: dict[str, dict[str, Any]] = {
        "conv": {"weight_bits": 3, "weight_format": "codebook"},
        "volume": {"weight_bits": 4},
        "up": {"weight_bits": 4, "group_size": 2},
        "line": {"weight_bits": 2},
        "positions": {"weight_bits": 4},
        "qkv": {"weight_bits": 5, "sparsity": 0.5, "sparsity_pattern": "2:4"},
        "out": {"weight_bits": 1},
        "fc": {"weight_bits": 4, "group_size": 4},
    }
    layers = {name: LayerConfig(activation_bits=8, **kinds) for name, kinds in formats.items()}
    model, inputs = seasoned("EveryKind", examples=32)
    result = compressed(model, inputs, Candidate(layers=layers))
    artifact = export_artifact(result, tmp_path / "model.onnx", ((inputs[:2],), {}), target=TARGET)
    fresh = torch.randn(200, *inputs.shape[1:])
    rebuilt = read_packed(artifact.packed_path, EveryKind())
    with torch.no_grad():
        expected = result(fresh)
        assert torch.equal(rebuilt(fresh), expected)
    got = RuntimeModule(artifact.path)(fresh)
    assert (got - expected).abs().mean() <= 0.01 * expected.abs().mean()
    assert (got.argmax(dim=1) == expected.argmax(dim=1)).float().mean() >= 0.97


def test_models_in_one_folder_keep_their_own_weights(tmp_path: Path) -> None:
    models = {name: _compressed("Mlp", bits, ()) for name, bits in (("a", 8), ("b", 4))}
    for name, (model, inputs) in models.items():
        export_artifact(model, tmp_path / f"{name}.onnx", ((inputs[:2],), {}), target=TARGET)
    for name, (model, inputs) in models.items():
        rebuilt = read_packed(tmp_path / f"{name}.packed", seasoned("Mlp")[0])
        assert torch.equal(rebuilt(inputs), model(inputs)), name


def test_convolutions_run_in_integers_whatever_reads_them(
    tmp_path: Path, optimised: Optimised
) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.SiLU(), nn.Conv2d(8, 8, 3))
    inputs = torch.randn(8, 3, 6, 6)
    model = season(nn.Sequential(*model, nn.Hardswish(), nn.Flatten(), nn.Linear(32, 4)), inputs)
    layers = uniform(trace(model, inputs), 8)
    result = compressed(model, inputs, Candidate(layers=layers))
    artifact = export_artifact(result, tmp_path / "model.onnx", ((inputs,), {}), target=TARGET)
    kinds = optimised(artifact.path)
    assert (kinds["QLinearConv"], kinds["QGemm"], kinds["Conv"]) == (2, 1, 0)


def test_a_channel_that_is_almost_off_does_not_make_floats_of_its_layer(
    tmp_path: Path, optimised: Optimised
) -> None:
    model, inputs = seasoned("ResidualNet")
    with torch.no_grad():
        model.get_submodule("layer1.0.bn1").weight[3] = 1e-9
        model.get_submodule("layer1.0.bn1").bias[3] = 0.5
        model.get_submodule("layer1.0.conv2").weight[2] = 0.0
    graph = trace(model, inputs)
    result = compressed(model, inputs, Candidate(layers=uniform(graph, 8)))
    artifact = export_artifact(result, tmp_path / "model.onnx", ((inputs,), {}), target=TARGET)
    kinds = optimised(artifact.path)
    assert kinds["QLinearConv"] == sum(layer.type == "Conv2d" for layer in graph.layers)
    assert kinds["Conv"] == 0
    with torch.no_grad():
        expected = result(inputs)
    got = RuntimeModule(artifact.path)(inputs)
    assert (got - expected).abs().mean() <= 0.02 * expected.abs().mean()


def test_the_runtime_fuses_convolutions_and_residual_adds_to_integers(
    tmp_path: Path, optimised: Optimised
) -> None:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    result = compressed(model, inputs, Candidate(layers=uniform(graph, 8)))
    artifact = export_artifact(result, tmp_path / "model.onnx", ((inputs,), {}), target=TARGET)
    kinds = optimised(artifact.path)
    convolutions = sum(layer.type == "Conv2d" for layer in graph.layers)
    assert kinds["QLinearConv"] == convolutions
    assert kinds["QLinearAdd"] == 4
    assert kinds["Conv"] == kinds["Add"] == 0


def test_narrow_activations_are_for_the_packed_file_only(tmp_path: Path) -> None:
    result, inputs = _compressed("PlainNet", 4, activation_bits=4)
    path = tmp_path / "model.onnx"
    with pytest.raises(
        ExportError, match="activation bits among \\[8, 32\\], got 4 bits at 'conv1"
    ):
        export_artifact(result, path, ((inputs,), {}), target=TARGET)
    assert list(tmp_path.iterdir()) == []
    write_packed(result, tmp_path / "weights.packed")
    rebuilt = read_packed(tmp_path / "weights.packed", seasoned("PlainNet")[0])
    with torch.no_grad():
        torch.testing.assert_close(rebuilt(inputs), result(inputs), rtol=0, atol=0)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[CompressedModel, Artifact]:
    torch.manual_seed(0)
    result, inputs = _compressed("Mlp", 8)
    path = tmp_path_factory.mktemp("exported") / "model.onnx"
    return result, export_artifact(result, path, ((inputs[:2],), {}), target=TARGET)


def test_a_file_that_computes_something_else_is_caught(
    tmp_path: Path, exported: tuple[CompressedModel, Artifact]
) -> None:
    result, artifact = exported
    inputs = torch.randn(16, 12)
    assert check_outputs(result, artifact.path, ((inputs,), {})) < 1e-6
    document = onnx.load(artifact.path)
    for entry in document.graph.initializer:
        if entry.data_type == TensorProto.INT8:  # weights, mirrored
            planted = numpy_helper.to_array(entry)[..., ::-1].copy()
            entry.CopyFrom(numpy_helper.from_array(planted, entry.name))
    wrong = tmp_path / "wrong.onnx"
    onnx.save(document, wrong)
    with pytest.raises(ExportError, match="mean difference") as caught:
        check_outputs(result, wrong, ((inputs,), {}))
    assert str(wrong) in str(caught.value)


def test_weights_that_are_too_large_for_a_file_lie_beside_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, inputs = nn.Sequential(nn.Linear(12, 99), nn.Linear(99, 4)).eval(), torch.randn(5, 12)
    result = ac.compress(model, Candidate(), inputs)
    path, example = tmp_path / "model.onnx", ((inputs[:2],), {})
    whole = export_artifact(result, path, example, target=TARGET)
    expected = RuntimeModule(path)(inputs)
    monkeypatch.setattr(onnx_file, "MOST_BYTES", 100)
    parted = export_artifact(result, path, example, target=TARGET)
    names = {"model.onnx", "model.onnx.data", "weights.packed"}
    assert {entry.name for entry in tmp_path.iterdir()} == names
    assert path.stat().st_size < parted.onnx_bytes
    assert abs(parted.onnx_bytes - whole.onnx_bytes) < 0.5 * whole.onnx_bytes
    moved = tmp_path.rename(tmp_path.with_name("moved"))
    assert torch.equal(RuntimeModule(moved / "model.onnx")(inputs), expected)
    monkeypatch.undo()
    again = export_artifact(result, moved / "model.onnx", example, target=TARGET)
    assert again.onnx_bytes == whole.onnx_bytes
    assert {entry.name for entry in moved.iterdir()} == {"model.onnx", "weights.packed"}


def test_keywords_that_no_input_has_are_refused_where_their_order_would_tell(
    exported: tuple[CompressedModel, Artifact], tmp_path: Path
) -> None:
    class Difference(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, a: Tensor, b: Tensor) -> Tensor:
            return self.fc(a) - b

    model, (a, b) = Difference().eval(), torch.randn(2, 3, 4)
    result = ac.compress(model, Candidate(), {"a": a, "b": b})
    path = tmp_path / "model.onnx"
    export_artifact(result, path, ((a, b), {}), target=TARGET)
    runtime = RuntimeModule(path)
    with pytest.raises(InvalidInputError, match=r"input_0, input_1.*got b, a"):
        runtime(b=b, a=a)
    torch.testing.assert_close(runtime(a, b), model(a, b))
    inputs = torch.randn(5, 12)
    alone = RuntimeModule(exported[1].path)
    assert torch.equal(alone(anything=inputs), alone(inputs))  # a single one is no riddle


def test_only_compressed_models_are_exported(tmp_path: Path) -> None:
    with pytest.raises(WrongTypeError, match="got Linear"):
        export_artifact(nn.Linear(2, 2), tmp_path / "m.onnx", ((), {}), target=TARGET)  # type: ignore[arg-type]


def test_a_runtime_module_is_called_like_the_model(
    exported: tuple[CompressedModel, Artifact],
) -> None:
    result, artifact = exported
    inputs = torch.randn(5, 12)
    session = open_session(artifact.path, threads=1)
    assert [array.shape for array in feed_of(session, [inputs, "mode"]).values()] == [(5, 12)]
    outputs = RuntimeModule(artifact.path, threads=2).eval()(inputs)
    assert outputs.dtype == torch.float32
    with torch.no_grad():
        assert (outputs - result(inputs)).abs().max() < 0.05


def test_a_runtime_module_gives_outputs_the_structure_of_the_model(
    exported: tuple[CompressedModel, Artifact],
) -> None:
    _, artifact = exported
    inputs = torch.randn(3, 12)
    plain = RuntimeModule(artifact.path)(inputs)
    for like in ((plain, None), {"loss": None, "logits": plain}, [plain]):
        outputs = RuntimeModule(artifact.path, like=like)(inputs)
        assert type(outputs) is type(like)
        first = outputs["logits"] if isinstance(outputs, dict) else outputs[0]
        torch.testing.assert_close(first, plain)


def test_the_file_of_a_simulated_target_is_checked_here(tmp_path: Path) -> None:
    result, inputs = _compressed("Mlp", 8)
    target = Target.named("bit-fusion")
    artifact = export_artifact(result, tmp_path / "model.onnx", ((inputs[:2],), {}), target=target)
    with torch.no_grad():
        torch.testing.assert_close(
            RuntimeModule(artifact.path)(inputs), result(inputs), atol=0.05, rtol=0.05
        )


class _TwoHeads(nn.Module):
    """Returns a mapping, as models of segmentation do."""

    def __init__(self, second: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(4, 3), nn.Linear(4, 2)
        nn.init.constant_(self.first.weight, 0.5)
        nn.init.constant_(self.second.weight, second)
        nn.init.zeros_(self.first.bias)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        out = self.first(x)
        return {"out": 100.0 * out, "classes": out.argmax(dim=1), "aux": self.second(x)}


def test_all_outputs_are_compared_each_on_its_own_scale(tmp_path: Path) -> None:
    inputs, path = torch.rand(8, 4), tmp_path / "model.onnx"
    model, other = (
        compressed(_TwoHeads(second).eval(), inputs, Candidate()) for second in (0.01, 0.02)
    )
    call = ((inputs,), {})
    export_artifact(model, path, call, target=TARGET)
    assert check_outputs(model, path, call) < 1e-5
    with pytest.raises(ExportError, match=r"mean difference of 50\.0%"):
        check_outputs(other, path, call)
    single = nn.Sequential(nn.Linear(4, 3)).eval()
    with pytest.raises(ExportError, match="outputs of shapes"):
        check_outputs(compressed(single, inputs, Candidate()), path, call)


class _Whole(nn.Module):
    """Returns no floating-point numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x).argmax(dim=1)


def test_a_model_without_floating_outputs_is_refused(tmp_path: Path) -> None:
    inputs = torch.rand(8, 4)
    model = compressed(nn.Sequential(nn.Linear(4, 3)).eval(), inputs, Candidate())
    model.network = _Whole()
    with pytest.raises(WrongTypeError, match="model output"):
        check_outputs(model, tmp_path / "model.onnx", ((inputs,), {}))


class _Keyed(nn.Module):
    """Tells its keyword arguments apart."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, 4)

    def forward(self, x: torch.Tensor, *, up: torch.Tensor, down: torch.Tensor) -> torch.Tensor:
        return self.layer(x) + up - down


@pytest.mark.parametrize("runtime", ["onnxruntime-cpu", "torch-cpu"])
def test_keywords_are_fed_by_name_in_whatever_order_they_come(tmp_path: Path, runtime: str) -> None:
    model, target = _Keyed().eval(), Target.named(runtime)
    x, up, down = torch.randn(2, 3), torch.randn(2, 4), torch.randn(2, 4)
    inputs = ((x,), {"up": up, "down": down})
    graph = trace(model, {"x": x, "up": up, "down": down})
    result = compress_model(model, graph, Candidate(), inputs)
    artifact = export_artifact(result, tmp_path / target.file_name, inputs, target=target)
    run = RuntimeModule(artifact.path, target=target)
    with torch.no_grad():
        expected = model(x, up=up, down=down)
    torch.testing.assert_close(run(x, down=down, up=up), expected)
    torch.testing.assert_close(run(down=down, up=up, x=x), expected)  # no input has that name
    torch.testing.assert_close(run(x, up, down), expected)
    with pytest.raises(InvalidInputError, match=r"3 tensors .*got 2"):
        run(x, up=up)
    with pytest.raises(InvalidInputError, match="bfloat16"):
        run(x.bfloat16(), up=up, down=down)
