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


def test_the_model_itself_is_no_block_but_its_branches_are() -> None:
    """Zero has no axes, so that nothing can be added to it in place."""
    assert {n: b.droppable for n, b in _blocks(Residual(Add()), 2, 4).items()} == {"fc": True}
    block = _blocks(Residual(), 2, 4)["fc"]
    assert not block.droppable
    assert "the model does not run without it" in block.reason


class Branches(nn.Module):
    """Residual sums in the forward pass of the model itself; input `n x 6 x 4`."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.head = nn.Linear(4, 8), nn.Linear(8, 3)
        self.first = nn.Sequential(nn.LayerNorm(8), nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.norm, self.second, self.third = nn.LayerNorm(8), nn.Linear(8, 8), nn.Linear(8, 8)
        self.up, self.down = nn.Linear(8, 16), nn.Linear(16, 8)
        self.scale = nn.Parameter(torch.full((8,), 0.5))
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        x = self.first(x) + x
        y = self.norm(x)
        x = (
            x
            + functional.dropout(self.second(y), training=self.training)
            + self.scale * self.third(y)
        )
        x = x + self.down(self.up(x).relu())
        x = x + self.attention(x, x, x)[0]
        return self.head(x.mean(dim=1))


def test_branches_of_sums_in_the_forward_pass_of_the_model() -> None:
    blocks = _blocks(Branches(), 2, 6, 4)
    assert {name: block.reason for name, block in blocks.items()} == {
        "first": "",
        "second": "",
        "third": "",
        "down": "its branch is several modules (up, down)",
        "attention": "returns other than one tensor",
    }
    assert all(block.is_branch for block in blocks.values())
    assert blocks["first"].layers == ("first.1", "first.3")


def test_zero_in_place_of_branches_leaves_the_sums_as_they_were() -> None:
    model, x = Branches().eval(), torch.randn(2, 6, 4)
    expected = copy.deepcopy(model)
    for layer in (expected.first[3], expected.second, expected.third):
        nn.init.zeros_(layer.weight)
        nn.init.zeros_(layer.bias)
    keys = [key for key in model.state_dict() if not key.startswith(("first", "second", "third"))]
    names = ["first", "second", "third"]
    drop_blocks(model, names, names)
    torch.testing.assert_close(model(x), expected(x))
    assert list(model.state_dict()) == keys


class Stack(nn.Module):
    """Layers as pairs of branches, all added in one forward pass."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        pairs = [nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)]) for _ in range(depth)]
        self.layers = nn.ModuleList(pairs)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for first, second in self.layers:
            x = first(x) + x
            x = second(x) + x
        return x


def test_a_stack_of_branches_is_not_dropped_as_one() -> None:
    deep, shallow = (nn.Sequential(Stack(depth), nn.Linear(4, 2)) for depth in (2, 1))
    assert list(_blocks(deep, 2, 4)) == [f"0.layers.{i}.{j}" for i in (0, 1) for j in (0, 1)]
    blocks = _blocks(shallow, 2, 4)
    assert {name: block.is_branch for name, block in blocks.items()} == {"0": False}


def test_sums_that_are_not_residual_have_no_branch() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.head = nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.head(self.a(x) + self.b(x))

    assert _blocks(Two(), 2, 4) == {}


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


class DropPath(nn.Module):
    """Stochastic depth, as it is usually written."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if not self.training:
            return x
        shape = (x.shape[0],) + (1,) * (x.ndim - 1)
        return x * x.new_empty(shape).bernoulli_(0.8) / 0.8


class Deep(nn.Module):
    """Branches that are dropped at random in training; `picky` needs a second axis there."""

    def __init__(self, picky: bool = False) -> None:
        super().__init__()
        self.stem, self.branch, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 3)
        self.drop, self.picky = DropPath(), picky

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        y = self.branch(x)
        if self.picky and self.training:
            y = y[:, :8]
        x = x + self.drop(y)
        return self.head(x)


def test_branches_under_stochastic_depth_can_be_dropped_and_trained() -> None:
    model = Deep()
    assert _blocks(model, 2, 4)["branch"].droppable
    drop_blocks(model, ["branch"], ["branch"])
    x = torch.randn(2, 4)
    torch.testing.assert_close(model.train()(x), model.head(model.stem(x)))


def test_a_branch_without_which_a_model_cannot_be_trained_stays() -> None:
    block = _blocks(Deep(picky=True), 2, 4)["branch"]
    assert not block.droppable
    assert "the model cannot be trained without it (IndexError" in block.reason


def test_zeros_keep_the_type_of_sums_under_autocast() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Identity())
    drop_blocks(model, ["1"], ["1"])
    model.train()
    x = torch.randn(2, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        x = model[0](x)
        assert (x + model[1](x)).dtype == torch.bfloat16
    assert model[1](x).shape == (1,)
    assert model.eval()[1](x).shape == ()
    assert not model[1].state_dict()
