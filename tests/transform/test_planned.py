import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.transform.planned import PlannedMode, map_inputs, site_points
from autocompress.transform.record import QuantisationPlan, Site


def test_numbered_tensors_are_replaced_and_the_others_are_not() -> None:
    seen: list[tuple[float, int]] = []

    def on_point(tensor: Tensor, site: int) -> Tensor:
        seen.append((float(tensor), site))
        return tensor + 100

    with PlannedMode({1: 7}, on_point, {}, lambda _, args: args):
        first = torch.tensor(1.0) * 2  # the tensor that is made is operation 0, its double 1
        second = first + 1
    assert seen == [(2.0, 7)]
    assert float(second) == 103.0


def test_weights_are_replaced_where_their_layer_is_computed() -> None:
    layer, x = nn.Linear(3, 2), torch.randn(4, 3, generator=torch.Generator().manual_seed(0))
    other = nn.Linear(3, 2)
    owners = {id(layer.weight): "layer"}

    def zero(name: str, args: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        assert name == "layer"
        return (args[0], torch.zeros_like(args[1]), *args[2:])

    with torch.no_grad(), PlannedMode({}, lambda tensor, _: tensor, owners, zero):
        found, untouched = layer(x), other(x)
    torch.testing.assert_close(found, layer.bias.expand(4, 2))
    torch.testing.assert_close(untouched, functional.linear(x, other.weight, other.bias))


def test_skipped_norms_return_their_input() -> None:
    norm, x = nn.BatchNorm1d(3).eval(), torch.ones(2, 3)
    norm.running_mean.fill_(5.0)
    with torch.no_grad(), PlannedMode({}, lambda t, _: t, {}, lambda _, a: a, frozenset({0})):
        assert norm(x) is x
    with torch.no_grad(), PlannedMode({}, lambda t, _: t, {}, lambda _, a: a):
        assert not torch.equal(norm(x), x)


def test_floating_inputs_are_numbered_downwards_through_any_nesting() -> None:
    inputs = (torch.zeros(1), {"ids": torch.zeros(1, dtype=torch.long), "mask": [torch.zeros(1)]})
    found = map_inputs(inputs, {-2: 3}, lambda tensor, site: tensor + site)
    assert isinstance(found, tuple)
    assert found[0].item() == 0.0
    assert found[1]["ids"] is inputs[1]["ids"]  # type: ignore[call-overload,index]
    assert found[1]["mask"][0].item() == 3.0


def test_every_point_of_a_site_has_its_number() -> None:
    sites = (
        Site(name="a.input", bits=8, points=(-1,)),
        Site(name="b.input", bits=4, points=(2, 5)),
    )
    assert site_points(QuantisationPlan(sites=sites)) == {-1: 0, 2: 1, 5: 1}


def test_what_operations_return_keeps_its_names() -> None:
    with PlannedMode({1: 0}, lambda t, _: t + 1, {}, lambda _, args: args):
        x = torch.ones(2, 3)
        found = x.max(dim=1)
    assert found.values.tolist() == [2.0, 2.0]
    assert found.indices.shape == (2,)


def test_layers_get_their_arguments_by_position() -> None:
    layer, seen = nn.Conv1d(2, 4, 3), list[tuple[object, ...]]()

    def note(_: str, args: tuple[object, ...]) -> tuple[object, ...]:
        seen.append(args)
        return args

    x = torch.randn(1, 2, 8)
    with PlannedMode({}, lambda t, _: t, {id(layer.weight): "layer"}, note):
        functional.conv1d(x, layer.weight, bias=layer.bias, padding=1)
    assert seen[0][2:] == (layer.bias, (1,), (1,), (1,), 1)
