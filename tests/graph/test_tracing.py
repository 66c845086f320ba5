import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError, TraceError, WrongTypeError
from autocompress.graph.tracing import fingerprint, trace
from autocompress.graph.widths import pruned_widths
from zoo import InvertedResidualNet, Mlp, OptionANet, PlainNet, ResidualNet


def test_layers_are_described_in_order_of_execution() -> None:
    graph = trace(PlainNet(8), torch.zeros(2, 3, 16, 16))
    assert [layer.name for layer in graph.layers] == ["conv1", "conv2", "conv3", "fc"]
    conv = graph.layer("conv2")
    assert conv.type == "Conv2d"
    assert conv.input_shape == (8, 16, 16)
    assert conv.output_shape == (16, 8, 8)
    assert conv.weight_shape == (16, 8, 3, 3)
    assert (conv.kernel_size, conv.stride, conv.groups) == ((3, 3), (2, 2), 1)
    assert conv.macs == 16 * 8 * 8 * 8 * 9
    assert conv.parameters == 16 * 8 * 9
    assert conv.quantisable
    fc = graph.layer("fc")
    assert (fc.kernel_size, fc.stride, fc.groups) == ((), (), 1)
    assert fc.parameters == 170
    assert graph.parameters == sum(p.numel() for p in PlainNet(8).parameters())


def test_macs_of_resnet_20_equal_the_published_count() -> None:
    graph = trace(OptionANet(16, 3), torch.zeros(2, 3, 32, 32))
    stages = 7 * 16 * 16 * 9 * 1024 - 16 * 16 * 9 * 1024  # six 3x3 convolutions at 32x32
    stages += (16 * 32 + 5 * 32 * 32) * 9 * 256 + (32 * 64 + 5 * 64 * 64) * 9 * 64
    assert sum(layer.macs for layer in graph.layers) == 3 * 16 * 9 * 1024 + stages + 640
    assert graph.parameters == 269_722


@pytest.mark.parametrize(
    ("model", "x"),
    [
        (ResidualNet(4, 1), torch.ones(3, 3, 16, 16)),
        (InvertedResidualNet(4).double(), torch.ones(2, 3, 16, 16, dtype=torch.float64)),
        (nn.Sequential(nn.Dropout(), nn.Linear(3, 4), nn.Linear(4, 2)), torch.ones(2, 3)),
    ],
)
def test_the_model_and_the_random_state_are_untouched(model: nn.Module, x: torch.Tensor) -> None:
    model.train()
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("bias" not in name)
    before = copy.deepcopy(model.state_dict())
    given, random_state = x.clone(), torch.get_rng_state()
    trace(model, x)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert torch.equal(x, given)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], value) for key, value in before.items())
    assert all(after[key].dtype == value.dtype for key, value in before.items())
    for module in model.modules():
        assert module.training
        assert not module._forward_hooks
        assert not module._forward_pre_hooks
    for name, parameter in model.named_parameters():
        assert parameter.requires_grad == ("bias" not in name)
        assert parameter.grad is None


def test_tracing_twice_gives_equal_graphs() -> None:
    model, x = ResidualNet(8, 2), torch.ones(2, 3, 16, 16)
    first, second = trace(model, x), trace(model, x)
    assert first == second
    assert hash(first) == hash(second)


def test_all_forms_of_inputs_and_gradient_modes_agree() -> None:
    class TwoInputs(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.fc = nn.Embedding(5, 4), nn.Linear(4, 4)
            self.head = nn.Linear(4, 2)

        def forward(self, x: torch.Tensor, ids: torch.Tensor) -> torch.Tensor:
            return self.head(functional.relu(self.fc(x)) + self.embed(ids))

    model = TwoInputs()
    x, ids = torch.ones(2, 4), torch.tensor([0, 3])
    graph = trace(model, (x, ids))
    assert trace(model, {"ids": ids, "x": x}) == graph
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert trace(model, (x, ids)) == graph
    assert ("embed", "weight:1") in {(m.module, m.axis) for m in graph.group("fc").members}


def test_one_example_is_enough() -> None:
    graph = trace(PlainNet(8), torch.zeros(1, 3, 16, 16))
    assert graph == trace(PlainNet(8), torch.zeros(4, 3, 16, 16))


def test_shapes_along_sequences_count_every_position() -> None:
    graph = trace(Mlp(6, 8, 3), torch.zeros(2, 5, 6))
    assert graph.layer("fc1").input_shape == (5, 6)
    assert graph.layer("fc1").macs == 5 * 48


def test_layers_that_cannot_be_quantised_say_why() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.up = nn.ConvTranspose2d(3, 3, 2)
            self.table = nn.Embedding(5, 3, max_norm=1.0)
            self.again = nn.Conv2d(3, 3, 1)
            self.first, self.tied = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
            self.tied.weight = self.first.weight
            self.normed = nn.utils.parametrizations.weight_norm(nn.Conv2d(3, 3, 1))
            self.unused = nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = x + self.table(torch.zeros(1, dtype=torch.long)).reshape(1, 3, 1, 1)
            return self.normed(self.tied(self.first(self.again(self.again(self.up(x))))))

    graph = trace(Net(), torch.zeros(2, 3, 4, 4))
    assert {layer.name: layer.reason for layer in graph.layers} == {
        "table": "computed weights",
        "up": "",
        "again": "shared weights",
        "first": "shared weights",
        "tied": "shared weights",
        "normed": "computed weights",
    }
    assert [layer.name for layer in graph.layers if layer.quantisable] == ["up"]
    assert graph.layer("again").macs == 2 * 9 * 25


def test_an_embedding_is_a_layer_that_computes_nothing() -> None:
    model = nn.Sequential(nn.Embedding(20, 6), nn.Flatten(), nn.Linear(24, 3))
    graph = trace(model, torch.zeros(2, 4, dtype=torch.long))
    table = graph.layer("0")
    assert (table.type, table.quantisable, table.macs) == ("Embedding", True, 0)
    assert (table.input_shape, table.output_shape) == ((4,), (4, 6))
    assert (table.weight_shape, table.parameters, table.kernel_size) == ((20, 6), 120, ())
    widths = pruned_widths(graph, Candidate())["0"]
    assert (widths.in_channels, widths.out_channels) == (20, 6)


def test_a_value_that_is_no_model_is_refused() -> None:
    with pytest.raises(WrongTypeError, match=r"torch\.nn\.Module"):
        trace({"conv1.weight": torch.zeros(1)}, torch.zeros(1, 3))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("model", "x", "words"),
    [
        (PlainNet(), torch.zeros(2, 4, 16, 16), "forward pass on the example inputs"),
        (nn.Sequential(nn.ReLU()), torch.zeros(2, 3), "at least one convolution or linear layer"),
    ],
)
def test_models_that_cannot_be_traced(model: nn.Module, x: torch.Tensor, words: str) -> None:
    with pytest.raises(TraceError, match=words) as caught:
        trace(model, x)
    assert "\n" not in str(caught.value)


def test_unusable_inputs_are_refused() -> None:
    with pytest.raises(WrongTypeError, match="example_inputs"):
        trace(PlainNet(), "batch")
    with pytest.raises(InvalidInputError, match="example_inputs"):
        trace(PlainNet(), ())


def test_the_fingerprint_sees_shapes_and_names_but_no_values() -> None:
    first, second = PlainNet(8), PlainNet(8)
    assert not torch.equal(first.fc.weight, second.fc.weight)
    assert fingerprint(first) == fingerprint(second)
    assert fingerprint(first) != fingerprint(PlainNet(9))
    assert fingerprint(nn.Sequential(nn.ReLU())) != fingerprint(nn.Sequential(nn.GELU()))
    assert trace(first, torch.zeros(2, 3, 16, 16)).fingerprint == fingerprint(first)


class _Standardised(nn.Conv2d):
    """A convolution that computes its weight from its parameter."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.weight - self.weight.mean(dim=(1, 2, 3), keepdim=True)
        return functional.conv2d(x, weight, self.bias, self.stride, self.padding)


class _Tied(nn.Module):
    """Multiplies with the table of an embedding; `table` is read by a layer's function alone."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding, self.table = nn.Embedding(9, 4), nn.Embedding(9, 4)
        self.fc = nn.Linear(4, 4)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = self.fc(self.embedding(ids) + self.table(ids))
        return x @ self.embedding.weight.t() + functional.linear(x, self.table.weight)


def test_weights_that_something_else_is_made_of_are_not_quantised() -> None:
    layers = _Standardised(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(64, 2)
    model = nn.Sequential(*layers)
    graph = trace(model, torch.randn(2, 3, 8, 8))
    assert {layer.name: layer.reason for layer in graph.layers} == {
        "0": "computed weights",
        "1": "",
        "3": "",
    }
    found = {layer.name: layer.reason for layer in trace(_Tied(), torch.zeros(2, 3).long()).layers}
    assert found == {"embedding": "computed weights", "table": "", "fc": ""}


class _Metadata(nn.Module):
    """Reads the types and shapes of weights, never their values."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        start = self.a.weight.new_zeros(len(x), 4) + torch.zeros_like(self.b.weight).sum()
        x = x.to(self.a.weight).type_as(self.b.weight)
        return self.b(self.a(x + start))


def test_weights_of_which_only_the_form_is_read_are_quantised() -> None:
    graph = trace(_Metadata(), torch.randn(2, 4))
    assert {layer.name: layer.reason for layer in graph.layers} == {"a": "", "b": ""}


def test_a_model_that_returns_no_tensor_is_refused() -> None:
    class Silent(nn.Linear):
        def forward(self, x: torch.Tensor) -> list[float]:
            return super().forward(x).flatten().tolist()

    with pytest.raises(TraceError, match=r"output of Silent.*got list"):
        trace(Silent(2, 2), torch.zeros(2, 2))


def test_an_axis_as_long_as_the_batch_is_not_cut() -> None:
    class Attending(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.h = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            shares = (x @ x.transpose(1, 2) + mask).softmax(-1)
            return self.h(functional.relu(shares @ self.a(x)))

    graph = trace(Attending(), (torch.randn(4, 4, 3), torch.zeros(4, 4)))
    assert graph.group("a").prunable, graph.group("a").reason


def test_states_inside_of_tuples_are_cut_with_the_examples() -> None:
    class Cell(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.x, self.h, self.head = nn.Linear(3, 8), nn.Linear(6, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor, state: tuple[torch.Tensor]) -> torch.Tensor:
            return self.head(torch.relu(self.x(x) + self.h(state[0])))

    graph = trace(Cell(), (torch.randn(5, 3), (torch.randn(5, 6),)))
    assert graph.group("x").prunable, graph.group("x").reason


@pytest.mark.parametrize("examples", [1, 2, 3])
def test_operations_that_depend_on_the_batch_are_not_quantised(examples: int) -> None:
    class Looping(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f, self.h = nn.Conv2d(3, 4, 1), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.f(x)
            return self.h(torch.stack([(one * one.amax()).mean((1, 2)) for one in y]))

    graph = trace(Looping(), torch.randn(examples, 3, 4, 4))
    assert not any(layer.quantisable for layer in graph.layers)
    assert graph.layer("h").reason == (
        "the model runs other operations for another number of examples"
    )
