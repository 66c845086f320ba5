from dataclasses import replace
from pathlib import Path

import pytest
import torch
import yaml
from pydantic import ValidationError
from torch import nn

import zoo
from autocompress.core.target import Target
from autocompress.errors import InvalidInputError, MissingFileError, WrongTypeError
from autocompress.graph.tracing import trace
from autocompress.space.preset import SearchSpace, preset_folder, preset_names
from toy_graphs import residual_graph

TARGET = Target.named("onnxruntime-cpu")


@pytest.mark.parametrize("name", preset_names())
def test_every_preset_loads_by_name_and_by_path_alike(name):
    by_name = SearchSpace.load(name)
    assert by_name.name == name
    assert by_name.description
    assert SearchSpace.load(preset_folder() / f"{name}.yaml") == by_name
    assert SearchSpace.load(by_name) is by_name


def test_the_presets_are_documented():
    text = (preset_folder() / "README.md").read_text(encoding="utf-8")
    assert all(f"`{name}`" in text for name in preset_names())


def test_the_readmes_example_is_a_search_space(tmp_path: Path):
    text = (preset_folder() / "README.md").read_text(encoding="utf-8")
    example = text.split("```yaml")[1].split("```")[0]
    path = tmp_path / "mine.yaml"
    path.write_text(example, encoding="utf-8")
    assert SearchSpace.load(str(path)).name == "mine"


def test_a_mapping_is_read_like_a_file():
    space = SearchSpace.load({"pruning": {"ratios": [0, 0.5]}, "blocks": {"drop": False}})
    assert space.pruning.ratios == (0.0, 0.5)
    assert not space.blocks.drop


def test_a_space_cannot_be_changed():
    space = SearchSpace.load("cnn")
    with pytest.raises(ValidationError):
        space.name = "other"  # type: ignore[misc]


@pytest.mark.parametrize(
    ("content", "parts"),
    [
        ({"prunning": {}}, ["'prunning'", "did you mean 'pruning'"]),
        ({"pruning": {"ratio": [0.5]}}, ["'pruning'", "did you mean 'ratios'"]),
        (
            {"distillation": {"temperature": {"lo": 1, "high": 2}}},
            ["'distillation.temperature'", "did you mean 'low'"],
        ),
        ({"pruning": {"ratios": [1.0]}}, ["pruning.ratios.0", "less than 1", "got 1.0"]),
        ({"pruning": {"ratios": 0.5}}, ["pruning.ratios", "a list", "got 0.5"]),
        ({"pruning": {"ratios": [True]}}, ["pruning.ratios.0", "got True"]),
        ({"pruning": {"round_to": "8"}}, ["pruning.round_to", "integer", "got '8'"]),
        ({"pruning": {"criteria": ["l3"]}}, ["pruning.criteria.0", "'l1'", "'l3'"]),
        ({"pruning": {"criteria": []}}, ["pruning.criteria", "at least one entry"]),
        ({"quantisation": {"weight_bits": [9]}}, ["weight_bits.0", "1 to 8, or 32", "got 9"]),
        ({"quantisation": {"weight_bits": [0]}}, ["weight_bits.0", "1 to 8, or 32", "got 0"]),
        ({"quantisation": {"weight_bits": [True]}}, ["weight_bits.0", "got True"]),
        ({"quantisation": {"activation_bits": [1]}}, ["activation_bits.0", "2 to 8, or 32"]),
        ({"blocks": {"drop": "yes"}}, ["blocks.drop", "got 'yes'"]),
        ({"blocks": 3}, ["'blocks'", "a mapping", "got 3"]),
        ({"schema_version": 2}, ["schema_version", "expected 1", "got 2"]),
        (
            {"distillation": {"temperature": {"low": 3, "high": 1}}},
            ["distillation.temperature", "low <= high"],
        ),
        (
            {"distillation": {"temperature": {"low": 0, "high": 1, "log": True}}},
            ["distillation.temperature", "low > 0"],
        ),
        ({"distillation": {"kd_weight": {"low": 0, "high": 2}}}, ["distillation", "[0, 1]"]),
        ({"distillation": {"kd_weight": {"low": 0}}}, ["distillation.kd_weight.high", "none"]),
    ],
)
def test_bad_content_is_refused_in_one_sentence(tmp_path: Path, content, parts):
    path = tmp_path / "bad.yaml"
    path.write_text(yaml.safe_dump(content), encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        SearchSpace.load(path)
    message = str(caught.value)
    assert "\n" not in message
    assert all(part in message for part in [str(path), *parts]), message


@pytest.mark.parametrize("text", ["pruning: [", "a: b: c", "- 1\n- 2\n", "", "\x00"])
def test_what_is_no_mapping_is_refused_in_one_sentence(tmp_path: Path, text):
    path = tmp_path / "bad.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(InvalidInputError) as caught:
        SearchSpace.load(path)
    assert "\n" not in str(caught.value)
    assert str(path) in str(caught.value)


def test_an_unknown_source_is_refused_with_a_remedy(tmp_path: Path):
    with pytest.raises(InvalidInputError, match="did you mean 'cnn'"):
        SearchSpace.load("cn")
    with pytest.raises(MissingFileError, match="nothing there"):
        SearchSpace.load(tmp_path / "absent.yaml")
    with pytest.raises(MissingFileError):
        SearchSpace.load("absent.yaml")
    with pytest.raises(WrongTypeError, match="got int"):
        SearchSpace.load(3)  # type: ignore[arg-type]


def test_binding_keeps_what_can_vary():
    space = SearchSpace.load("cnn").bind_graph(residual_graph(3, 32))
    assert set(space.pruning_choices) == {f"blocks.{i}.conv1" for i in range(3)}
    assert space.pruning_choices["blocks.0.conv1"] == (0.0, 0.25, 0.5, 0.75)
    assert space.blocks == ("blocks.1", "blocks.2")
    assert space.layers[0] == "conv1"
    assert "fc" not in space.layers
    assert space.layer_precisions[-1] == (32, 32)


def test_globs_narrow_what_can_vary():
    space = SearchSpace.load(
        {
            "pruning": {"exclude": ["blocks.1.*"]},
            "blocks": {"include": ["blocks.2"]},
            "quantisation": {"include": ["Conv2d"], "exclude": ["conv1"]},
        }
    ).bind_graph(residual_graph(3))
    assert set(space.pruning_choices) == {"blocks.0.conv1", "blocks.2.conv1"}
    assert space.blocks == ("blocks.2",)
    assert "conv1" not in space.layers
    assert "blocks.0.conv1" in space.layers


def test_the_target_and_the_costs_decide_the_bits():
    cnn, graph = SearchSpace.load("cnn"), residual_graph()
    latency = cnn.bind_graph(graph, TARGET, ["latency_ms"])
    assert latency.layer_precisions == ((8, 8), (32, 32))
    size = cnn.bind_graph(graph, TARGET, ["latency_ms", "size_bytes"])
    assert {w for w, _ in size.layer_precisions} == {2, 3, 4, 5, 6, 8, 32}
    assert {a for _, a in size.layer_precisions} == {8, 32}


def test_the_unmodified_model_belongs_to_every_space():
    space = SearchSpace.load(
        {"pruning": {"ratios": [0.5]}, "quantisation": {"weight_bits": [8], "activation_bits": [8]}}
    ).bind_graph(residual_graph())
    unmodified = space.uniform(32, 32, 0.0)
    assert not unmodified.pruning_ratios
    assert not unmodified.layers


def test_a_space_in_which_nothing_varies_is_refused():
    empty = SearchSpace.load(
        {"pruning": {"ratios": []}, "blocks": {"drop": False}, "quantisation": {"weight_bits": []}}
    )
    with pytest.raises(InvalidInputError, match="none in this model"):
        empty.bind_graph(residual_graph())


def test_binding_traces_the_model_and_leaves_it_alone():
    model = zoo.ResidualNet()
    state = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    inputs = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    space = SearchSpace.load("cnn").bind(model, inputs, TARGET)
    assert model.training
    assert all(torch.equal(state[name], tensor) for name, tensor in model.state_dict().items())
    assert set(space.blocks) <= {block.name for block in space.graph.blocks if block.droppable}
    assert space.pruning_choices.keys() <= {g.name for g in space.graph.groups if g.prunable}
    assert space.pruning_choices
    assert {activation for _, activation in space.layer_precisions} == {8, 32}
    sample = space.sample(3)
    assert space.decode(space.encode(sample)) == sample


def test_the_mlp_preset_suits_linear_layers():
    inputs = torch.randn(2, 12, generator=torch.Generator().manual_seed(0))
    space = SearchSpace.load("mlp").bind(zoo.Mlp(), inputs)
    assert set(space.pruning_choices) == {"fc1", "fc2"}


@pytest.mark.parametrize(("unit", "step"), [(None, 16), (8, 8)])
def test_channels_move_in_the_unit_of_the_target_unless_the_space_has_one(
    unit: int | None, step: int
):
    graph = residual_graph(2, 32)
    space = SearchSpace.load({"name": "x", "pruning": {"ratios": [0.25, 0.5], "round_to": unit}})
    bound = space.bind_graph(graph, replace(TARGET, round_to=16))
    assert bound.pruning_choices
    for name, ratios in bound.pruning_choices.items():
        channels = graph.group(name).channels
        if channels >= 32:
            assert {round(channels * (1.0 - ratio)) % step for ratio in ratios} == {0}
    narrowest = min(round(32 * (1 - r)) for rs in bound.pruning_choices.values() for r in rs)
    assert narrowest == 16


def test_a_channel_of_several_outputs_counts_as_many() -> None:
    layers = nn.Conv2d(16, 64, 1), nn.GroupNorm(16, 64), nn.ReLU(), nn.Conv2d(64, 3, 1)
    graph = trace(nn.Sequential(*layers), torch.zeros(2, 16, 4, 4))
    assert (graph.group("0").channels, graph.group("0").width) == (16, 4)
    space = SearchSpace.load({"pruning": {"ratios": [0.1, 0.5, 0.8], "round_to": 8}})
    assert space.group_choices(graph) == {"0": (0.0, 0.125, 0.5, 0.75)}


def test_the_transformer_preset_cuts_heads_widths_and_layers():
    space = SearchSpace.load("transformer")
    bound = space.bind(zoo.VisionTransformer(48, 2, 6), torch.zeros(2, 3, 16, 16), TARGET)
    names = [f"layers.{layer}.{part}" for layer in (0, 1) for part in ("attn.qkv", "fc1")]
    assert sorted(bound.pruning_choices) == sorted(names)
    assert bound.blocks == ("layers.0", "layers.1")
    assert {"layers.0.attn.qkv", "layers.0.attn.proj", "layers.1.fc2", "head"} <= set(bound.layers)
    assert (8, 8) in bound.layer_precisions


def test_fused_attention_stays_in_floating_point_and_its_heads_can_go():
    layer = nn.TransformerEncoderLayer(16, 4, 64, batch_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = nn.Sequential(nn.Linear(6, 16), encoder, nn.Linear(16, 3))
    graph = trace(model, torch.zeros(2, 5, 6))
    bound = SearchSpace.load("transformer").bind_graph(graph, TARGET)
    assert {"1.layers.0.self_attn", "1.layers.0.linear1"} <= set(bound.pruning_choices)
    assert bound.blocks == ("1.layers.0", "1.layers.1")
    assert "1.layers.0.linear1" in bound.layers
    for name in ("1.layers.0.self_attn", "1.layers.0.self_attn.out_proj"):
        assert name not in bound.layers
        assert "stays in floating point" in graph.layer(name).reason
