import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.graph.blocks import drop_blocks
from autocompress.graph.structure import Block
from autocompress.graph.tracing import trace
from zoo import InvertedResidualNet, OptionANet, PlainNet, ResidualNet


def _blocks(model: nn.Module, *shape: int) -> dict[str, Block]:
    return trace(model, torch.zeros(*shape)).block_by_name


def test_option_a_blocks_that_keep_their_shape_can_be_dropped() -> None:
    blocks = _blocks(OptionANet(8, 2), 2, 3, 16, 16)
    droppable = [name for name, block in blocks.items() if block.droppable]
    assert droppable == ["layer1.0", "layer1.1", "layer2.1", "layer3.1"]
    assert blocks["layer1.0"].layers == ("layer1.0.conv1", "layer1.0.conv2")
    assert blocks["layer2.0"].reason == "changes the shape from 8x16x16 to 16x8x8"
    assert list(blocks) == sorted(blocks)


def test_convolutional_shortcuts_and_inverted_residuals() -> None:
    blocks = _blocks(ResidualNet(8, 2), 2, 3, 16, 16)
    assert {n: b.droppable for n, b in blocks.items()} == {
        "layer1.0": True,
        "layer1.1": True,
        "layer2.0": False,
        "layer2.1": True,
    }
    blocks = _blocks(InvertedResidualNet(4), 2, 3, 16, 16)
    assert {n: b.droppable for n, b in blocks.items()} == {"blocks.0": True, "blocks.2": True}
    assert _blocks(PlainNet(), 2, 3, 16, 16) == {}


def test_a_model_without_its_droppable_blocks_runs() -> None:
    model = ResidualNet(8, 2).eval()
    x = torch.randn(2, 3, 16, 16)
    names = [name for name, block in _blocks(model, 2, 3, 16, 16).items() if block.droppable]
    cut = copy.deepcopy(model)
    drop_blocks(cut, names)
    expected = model.layer2[0](functional.relu(model.bn1(model.conv1(x))))
    expected = model.fc(functional.adaptive_avg_pool2d(expected, 1).flatten(1))
    torch.testing.assert_close(cut(x), expected)


class Residual(nn.Module):
    """A linear residual; the shortcut is a module, the add may be one too."""

    def __init__(self, add: nn.Module | None = None) -> None:
        super().__init__()
        self.shortcut = nn.Identity()
        self.fc = nn.Linear(4, 4)
        self.add = add

    def forward(self, x: torch.Tensor, scale: float = 1.0) -> torch.Tensor:
        shortcut, out = self.shortcut(x), scale * self.fc(x)
        if self.add is None:
            out += shortcut
            return out
        return self.add(out, shortcut)


class Add(nn.Module):
    def forward(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        return a + b


@pytest.mark.parametrize("add", [None, Add()])
def test_identity_shortcuts_in_place_adds_and_add_modules(add: nn.Module | None) -> None:
    model = nn.Sequential(Residual(add), nn.Linear(4, 2))
    assert _blocks(model, 2, 4) == {"0": Block(name="0", layers=("0.fc",), droppable=True)}


@pytest.mark.parametrize("norm_first", [False, True])
def test_every_layer_of_an_encoder_can_be_dropped(norm_first: bool) -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 8, batch_first=True, norm_first=norm_first)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    model = nn.Sequential(nn.Linear(4, 8), encoder, nn.Linear(8, 2)).eval()
    blocks = _blocks(model, 2, 5, 4)
    assert {n: b.droppable for n, b in blocks.items()} == {"1.layers.0": True, "1.layers.1": True}
    drop_blocks(model, list(blocks))
    x = torch.randn(2, 5, 4)
    assert torch.equal(model(x), model[2](model[0](x)))


def test_only_the_innermost_block_is_listed() -> None:
    class Nested(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = Residual()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.inner(x)

    blocks = _blocks(nn.Sequential(Nested(), nn.Linear(4, 2)), 2, 4)
    assert list(blocks) == ["0.inner"]
    assert blocks["0.inner"].droppable


def test_the_model_itself_is_no_block() -> None:
    assert _blocks(Residual(), 2, 4) == {}


class Caller(nn.Module):
    """Runs its block in a way that the identity cannot follow, or twice."""

    def __init__(self, how: str) -> None:
        super().__init__()
        self.block, self.how = Residual(), how

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x.relu()  # so that this module does not add its own input
        if self.how == "twice":
            return self.block(self.block(x))
        if self.how == "named":
            return self.block(x=x)
        if self.how == "attribute":
            return self.block(x) * self.block.fc.in_features
        raise AssertionError


@pytest.mark.parametrize(
    ("how", "reason"),
    [
        ("twice", "runs more than once"),
        ("named", "takes its first input by name"),
        ("attribute", "the model does not run without it"),
    ],
)
def test_blocks_that_the_identity_cannot_replace(how: str, reason: str) -> None:
    model = nn.Sequential(Caller(how), Residual(), nn.Linear(4, 2))
    blocks = _blocks(model, 2, 4)
    assert not blocks["0.block"].droppable
    assert reason in blocks["0.block"].reason
    assert blocks["1"].droppable


def test_a_whole_layer_is_dropped_where_its_parts_take_two_tensors() -> None:
    class Output(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc = nn.Linear(4, 4)

        def forward(self, x: torch.Tensor, shortcut: torch.Tensor) -> torch.Tensor:
            return self.fc(x) + shortcut

    class Attention(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.fc, self.output = nn.Linear(4, 4), Output()

        def forward(self, x: torch.Tensor, scale: float) -> tuple[torch.Tensor, None]:
            return self.output(scale * self.fc(x), x), None

    class Layer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.attention = Attention()

        def forward(self, x: torch.Tensor, *, scale: float) -> torch.Tensor:
            return self.attention(x, scale)[0]

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.head = nn.ModuleList([Layer(), Layer()]), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            for layer in self.layers:
                x = layer(x, scale=0.5)
            return self.head(x)

    model = Net()
    blocks = _blocks(model, 2, 4)
    assert {n: b.droppable for n, b in blocks.items()} == {"layers.0": True, "layers.1": True}
    drop_blocks(model, list(blocks))
    assert torch.equal(model(torch.ones(2, 4)), model.head(torch.ones(2, 4)))
