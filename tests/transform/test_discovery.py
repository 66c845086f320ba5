import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.core.candidate import LayerConfig
from autocompress.core.quantisation import QuantisationConfig
from autocompress.graph.operations import weight_owners
from autocompress.transform.discovery import discover_plan
from autocompress.transform.record import QuantisationPlan
from seasoned import SHAPES, seasoned

W8A8 = LayerConfig(weight_bits=8, activation_bits=8)


def _plan(
    model: nn.Module, inputs: torch.Tensor, layers: dict[str, LayerConfig]
) -> QuantisationPlan:
    return discover_plan(model.eval(), ((inputs,), {}), layers)


def _names(plan: QuantisationPlan) -> list[str]:
    return [site.name for site in plan.sites]


def _everything(model: nn.Module, **bits: int) -> dict[str, LayerConfig]:
    """Quantise every layer, some with other activation bits (dots written as underscores)."""
    configs = dict.fromkeys(weight_owners(model).values(), W8A8)
    for name in configs:
        key = name.replace(".", "_")
        if key in bits:
            configs[name] = LayerConfig(weight_bits=8, activation_bits=bits[key])
    return configs


@pytest.mark.parametrize("name", SHAPES)
def test_there_are_no_sites_where_nothing_is_quantised(name: str) -> None:
    model, inputs = seasoned(name)
    assert _plan(model, inputs, {}).sites == ()
    weights_only = {layer: LayerConfig(weight_bits=4) for layer in weight_owners(model).values()}
    assert _plan(model, inputs, weights_only).sites == ()


def test_a_chain_has_one_site_for_each_layer_and_its_pool() -> None:
    model, inputs = seasoned("PlainNet")
    plan = _plan(model, inputs, _everything(model))
    layers = [f"{name}.input" for name in ("conv1", "conv2", "conv3", "fc")]
    assert [name for name in _names(plan) if name.endswith(".input")] == layers
    assert len(plan.sites) == 5  # the fifth is what the pool reads
    assert plan.sites[0].points == (-1,)
    assert sorted(plan.inputs) == ["conv1", "conv2", "conv3", "fc"]
    assert len(set(plan.inputs.values())) == 4
    assert {layer: norm for layer, (norm, _) in plan.folds.items()} == {
        "conv1": "bn1",
        "conv2": "bn2",
    }


def test_residual_adds_take_both_operands_at_eight_bits() -> None:
    model, inputs = seasoned("ResidualNet")
    low = {"layer1_0_conv1": 4, "layer1_0_conv2": 4, "layer1_1_conv2": 4}
    plan = _plan(model, inputs, _everything(model, **low))
    sites = plan.sites
    # One of the inputs of the first block's add is its trunk, which its convolution reads at 4.
    assert sites[plan.inputs["layer1.0.conv1"]].bits == 8
    assert sites[plan.inputs["layer1.0.conv2"]].bits == 4
    assert sites[plan.inputs["layer1.1.conv2"]].bits == 4
    adds = [site for site in sites if site.name.startswith("add")]
    # Of the eight operands of four adds, three are trunks that convolutions read as well.
    assert len(adds) == 5
    assert {site.bits for site in adds} == {8}


def test_every_tensor_is_one_site_at_the_largest_bits_of_its_consumers() -> None:
    model, inputs = seasoned("ResidualNet")
    plan = _plan(model, inputs, _everything(model, layer2_0_conv1=4, layer2_0_shortcut_0=6))
    shared = plan.inputs["layer2.0.conv1"]
    assert plan.inputs["layer2.0.shortcut.0"] == shared
    assert plan.sites[shared].bits == 6
    points = [point for site in plan.sites for point in site.points]
    assert len(points) == len(set(points))
    assert len(_names(plan)) == len(set(_names(plan)))


def test_both_inputs_of_a_concatenation_are_sites() -> None:
    model, inputs = seasoned("ConcatNet")
    plan = _plan(model, inputs, _everything(model))
    assert len([name for name in _names(plan) if name.startswith("cat")]) == 2


def test_float_layers_keep_adds_and_pools_float() -> None:
    model, inputs = seasoned("ResidualNet")
    layers = _everything(model)
    for name in ("layer1.0.conv2", "layer1.1.conv2", "layer2.0.conv2", "layer2.1.conv2"):
        del layers[name]
    assert not [name for name in _names(_plan(model, inputs, layers)) if name.startswith("add")]


class _Views(nn.Module):
    """A tensor that is pooled, padded, sliced and reshaped before layers read it."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3)
        self.second = nn.Conv2d(4, 4, 3)
        self.left = nn.Linear(2 * 9, 2)
        self.right = nn.Linear(2 * 9, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.pad(functional.max_pool2d(self.first(x), 2), (1, 1, 1, 1))
        left, right = self.second(x).chunk(2, dim=1)
        return self.left(left.flatten(1)) + self.right(right.reshape(len(right), -1))


def test_views_share_the_grid_of_their_tensor() -> None:
    model, inputs = _Views(), torch.randn(2, 3, 8, 8)
    plan = _plan(model, inputs, _everything(model, left=4, right=6))
    assert plan.inputs["left"] == plan.inputs["right"]
    assert plan.sites[plan.inputs["left"]].bits == 6
    assert len(plan.sites[plan.inputs["left"]].points) == 3  # the output, and both its views
    assert len(plan.sites[plan.inputs["second"]].points) == 2  # the output, and it padded


class _FloatHead(nn.Module):
    """Inputs that are pooled, added and concatenated before any layer."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(6, 2, 3)
        self.fc = nn.Linear(2, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.avg_pool2d(x, 2)
        x = self.conv(torch.cat([x + x.flip(3), x], dim=1))
        return self.fc(x.mean(dim=(2, 3)))


def test_what_no_quantised_layer_has_made_stays_float() -> None:
    model, inputs = _FloatHead(), torch.randn(2, 3, 8, 8)
    assert _plan(model, inputs, {}).sites == ()
    assert _names(_plan(model, inputs, {"fc": W8A8})) == ["fc.input"]
    assert _names(_plan(model, inputs, {"conv": W8A8})) == ["conv.input", "conv.output"]


class _Folds(nn.Module):
    """Norms after one convolution alone, after one that is read twice, and by keyword."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)
        self.norm_a, self.norm_b = nn.BatchNorm2d(3), nn.BatchNorm2d(3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.norm_a(self.a(x))
        y = self.b(x)
        x = self.norm_b(y) + y
        return functional.conv2d(x, weight=self.c.weight)


def test_only_a_norm_that_follows_a_layer_alone_is_folded() -> None:
    model, inputs = _Folds(), torch.randn(2, 3, 4, 4)
    plan = _plan(model, inputs, _everything(model))
    assert {layer: norm for layer, (norm, _) in plan.folds.items()} == {"a": "norm_a"}
    assert "c" in plan.inputs  # whose weight is given by keyword


@pytest.mark.parametrize("name", ["ResidualNet", "ConcatNet"])
def test_operands_of_joins_share_a_grid_where_that_is_asked_for(name: str) -> None:
    model, inputs = seasoned(name)
    layers = _everything(model)
    apart = discover_plan(model, ((inputs,), {}), layers)
    shared = discover_plan(model, ((inputs,), {}), layers, QuantisationConfig(share_joins=True))
    points = {point for site in apart.sites for point in site.points}
    assert {point for site in shared.sites for point in site.points} == points
    assert sorted(shared.inputs) == sorted(apart.inputs)
    joins = [s for s in apart.sites if s.name.startswith(("add", "cat"))]
    for site in joins:  # each lies, with another one, in one of the shared sites
        (united,) = (s for s in shared.sites if set(site.points) <= set(s.points))
        assert set(united.points) > set(site.points)


def test_joins_take_the_bits_that_are_asked_for() -> None:
    model, inputs = seasoned("ResidualNet")
    low = {name: LayerConfig(weight_bits=4, activation_bits=4) for name in _everything(model)}
    narrow = discover_plan(model, ((inputs,), {}), low, QuantisationConfig(join_bits=4))
    assert {site.bits for site in narrow.sites} == {4}
    usual = discover_plan(model, ((inputs,), {}), low)
    assert {site.bits for site in usual.sites} == {4, 8}


class _Curved(nn.Module):
    """Convolutions before operations that have no integer kernel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm = nn.Conv2d(3, 4, 1, bias=False), nn.BatchNorm2d(4)
        self.second, self.third = nn.Conv2d(4, 4, 1), nn.Conv2d(4, 4, 1)
        self.fc, self.last = nn.Linear(4, 4), nn.Conv2d(4, 2, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.silu(self.norm(self.first(x)))
        x = torch.sin(functional.relu(self.second(x)).transpose(2, 3))
        x = x * torch.sigmoid(self.fc(self.third(x).mean((2, 3))))[..., None, None]
        return self.last(x).flatten(1)


def test_convolutions_end_in_a_rounding_before_anything_but_the_output() -> None:
    model, inputs = _Curved().eval(), torch.randn(2, 3, 4, 4)
    names = ("first", "second", "third", "fc", "last")

    def sites(**others: LayerConfig) -> set[str]:
        layers = dict.fromkeys(names, W8A8) | others
        return {site.name for site in discover_plan(model, ((inputs,), {}), layers).sites}

    entries = {f"{name}.input" for name in names}
    assert sites() == entries | {"first.output", "second.output", "third.output"}
    assert "third.output" not in sites(third=LayerConfig(weight_bits=8))
    plan = discover_plan(model, ((inputs,), {}), dict.fromkeys(names, W8A8))
    silu = next(site for site in plan.sites if site.name == "first.output")
    assert silu.points == (plan.folds["first"][1],)


class _OtherAxes(nn.Module):
    """Norms along axes that are not those of a layer's outputs, and after one that is returned."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.tokens, self.rows = nn.Embedding(5, 4), nn.Linear(4, 4), nn.Linear(4, 4)
        self.up, self.seen = nn.ConvTranspose1d(4, 4, 2, stride=2), nn.Conv1d(4, 4, 1)
        self.norms = nn.ModuleList(nn.BatchNorm1d(4) for _ in range(5))

    def forward(self, ids: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        x = self.norms[0](self.table(ids))
        x = self.norms[1](self.tokens(x))
        x = self.norms[2](self.up(x))
        seen = self.seen(x)
        x = self.norms[3](seen).mean(dim=2)
        return self.norms[4](self.rows(x)), seen


def test_only_norms_along_the_outputs_of_a_layer_are_folded() -> None:
    model, ids = _OtherAxes().eval(), torch.randint(5, (2, 4))
    layers = dict.fromkeys(("table", "tokens", "up", "seen", "rows"), W8A8)
    plan = discover_plan(model, ((ids,), {}), layers)
    assert {layer: norm for layer, (norm, _) in plan.folds.items()} == {
        "up": "norms.2",
        "rows": "norms.4",
    }
