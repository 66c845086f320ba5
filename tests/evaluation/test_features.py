import pytest
import torch
from torch import nn

import zoo
from autocompress.evaluation.features import FeatureTap, aligned, feature_points


class Stages(nn.Module):
    """Three stages of falling resolution, then a classifier; input n x 3 x 8 x 8."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Sequential(nn.Conv2d(3, 4, 3, 1, 1), nn.ReLU())
        self.two = nn.Sequential(nn.Conv2d(4, 6, 3, 2, 1), nn.ReLU())
        self.linear = nn.Linear(6 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.linear(self.two(self.one(x)).flatten(1))


def test_images_are_compared_at_the_end_of_each_resolution() -> None:
    model, x = Stages().eval(), torch.randn(2, 3, 8, 8)
    points = feature_points(model, model, lambda network: network(x))
    assert points == {"one": True, "two": True}


def test_features_without_resolution_are_compared_at_equal_steps() -> None:
    model, x = zoo.Mlp(12, 16, 4).eval(), torch.randn(2, 12)
    points = feature_points(model, model, lambda network: network(x))
    assert points
    assert "fc3" not in points
    assert len(points) <= 3


def test_only_shared_modules_are_points() -> None:
    model, x = Stages().eval(), torch.randn(2, 3, 8, 8)
    other = Stages()
    other.one = nn.Conv2d(3, 4, 3, 1, 1)
    other.renamed, other.two = other.two, None  # type: ignore[assignment]
    assert feature_points(model, other, lambda network: network(x)) == {"one": True}


class ChannelsLast(nn.Module):
    """Convolutions of two resolutions; between them layers on n x height x width x channels."""

    def __init__(self) -> None:
        super().__init__()
        self.one, self.two = nn.Conv2d(3, 4, 3, 1, 1), nn.Conv2d(4, 6, 3, 2, 1)
        self.widen, self.act, self.narrow = nn.Linear(4, 9), nn.GELU(), nn.Linear(9, 4)
        self.head = nn.Linear(6 * 16, 5)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        rows = self.one(x).permute(0, 2, 3, 1)
        x = self.narrow(self.act(self.widen(rows))).permute(0, 3, 1, 2)
        return self.head(self.two(x).flatten(1))


def test_layers_with_channels_last_are_no_resolution_of_their_own() -> None:
    model, x = ChannelsLast().eval(), torch.randn(2, 3, 8, 8)
    points = feature_points(model, model, lambda network: network(x))
    assert points == {"one": True, "two": True}


def test_tokens_count_where_one_convolution_makes_them() -> None:
    model, x = zoo.VisionTransformer().eval(), torch.randn(2, 3, 16, 16)
    points = feature_points(model, model, lambda network: network(x))
    assert len(points) == 3
    assert set(points.values()) == {False}
    assert not any("patch" in name for name in points)


def test_channels_of_one_resolution_come_first() -> None:
    model = nn.Sequential(nn.Conv1d(4, 4, 3, 1, 1), nn.ReLU(), nn.Flatten(), nn.Linear(36, 2))
    points = feature_points(model.eval(), model, lambda network: network(torch.randn(2, 4, 9)))
    assert points == {"0": True, "1": True}


def test_a_tap_keeps_outputs_until_it_is_closed() -> None:
    model, x = Stages().eval(), torch.randn(2, 3, 8, 8)
    tap = FeatureTap(model, ("one",))
    model(x)
    torch.testing.assert_close(tap.features["one"], model.one(x))
    tap.close()
    kept = tap.features["one"]
    model(2 * x)
    assert tap.features["one"] is kept


@pytest.mark.parametrize(
    ("student", "teacher", "first", "shapes"),
    [
        ((2, 5), (2, 7), False, ((2, 1, 5), (2, 1, 7))),
        ((2, 9, 5), (2, 9, 7), False, ((2, 9, 5), (2, 9, 7))),
        ((2, 5, 9), (2, 7, 9), True, ((2, 9, 5), (2, 9, 7))),
        ((2, 5, 3, 4), (2, 7, 3, 4), True, ((2, 12, 5), (2, 12, 7))),
        ((2, 3, 4, 5), (2, 3, 4, 7), False, ((2, 12, 5), (2, 12, 7))),
    ],
)
def test_features_become_examples_positions_channels(
    student: tuple[int, ...],
    teacher: tuple[int, ...],
    first: bool,
    shapes: tuple[tuple[int, ...], ...],
) -> None:
    found = aligned(torch.randn(student), torch.randn(teacher), channels_first=first)
    assert tuple(tuple(f.shape) for f in found) == shapes
