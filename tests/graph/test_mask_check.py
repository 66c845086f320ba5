import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import pytest
import torch
from torch import nn
from torch.nn import functional

from autocompress.graph.inputs import ModelInputs, plain_copy
from autocompress.graph.mask_check import check_groups, mask_positions, perturbed, randomise
from autocompress.graph.slicing import prune_groups, removed_positions
from autocompress.graph.structure import ChannelGroup, ModelGraph
from autocompress.graph.tracing import trace
from zoo import (
    ConcatNet,
    GroupedNet,
    InvertedResidualNet,
    Mlp,
    OptionANet,
    PlainNet,
    ResidualNet,
)

MODELS = [
    (PlainNet, (3, 16, 16)),
    (ResidualNet, (3, 16, 16)),
    (InvertedResidualNet, (3, 16, 16)),
    (ConcatNet, (3, 8, 8)),
    (Mlp, (12,)),
    (OptionANet, (3, 16, 16)),
    (GroupedNet, (3, 8, 8)),
]


def _traced(model: nn.Module, *shape: int) -> ModelGraph:
    return trace(model, torch.randn(2, *shape))


def _recheck(
    model: nn.Module, shape: tuple[int, ...], groups: list[ChannelGroup]
) -> dict[str, ChannelGroup]:
    inputs = ModelInputs.of(torch.randn(2, *shape, generator=torch.Generator().manual_seed(0)))
    return {group.name: group for group in check_groups(plain_copy(model), inputs, groups)}


@pytest.mark.parametrize(("make", "shape"), MODELS)
def test_pruned_equals_masked_at_other_draws(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = make()
    graph = _traced(model, *shape)
    generator = torch.Generator().manual_seed(7)
    reference, x = plain_copy(model), torch.randn(3, *shape, generator=generator)
    randomise(reference, ModelInputs.of(x), generator)
    for group in graph.groups:
        if not group.prunable:
            assert group.reason == "output layer"
            continue
        channels = torch.randperm(group.channels, generator=generator)[: group.channels // 2]
        removals = [(group, channels.tolist())]
        masked, pruned = copy.deepcopy(reference), copy.deepcopy(reference)
        mask_positions(masked, removed_positions(removals))
        prune_groups(pruned, removals)
        with torch.no_grad():
            expected, got = masked(x), pruned(x)
        assert (got - expected).abs().max() <= 1e-4 * expected.abs().max()
        assert (reference(x) - expected).abs().max() > 1e-3 * expected.abs().max()


@pytest.mark.parametrize(("make", "shape"), MODELS)
def test_a_planted_index_shift_is_found(
    make: Callable[[], nn.Module], shape: tuple[int, ...]
) -> None:
    model = make()
    graph = _traced(model, *shape)
    for position, group in enumerate(graph.groups):
        for number, member in enumerate(group.members if group.prunable else ()):
            if member.axis.startswith("."):  # a count has no order
                continue
            shifted = replace(member, indices=member.indices[1:] + member.indices[:1])
            members = (*group.members[:number], shifted, *group.members[number + 1 :])
            groups = list(graph.groups)
            groups[position] = replace(group, members=members)
            checked = _recheck(model, shape, groups)
            assert not checked[group.name].prunable, (group.name, member.module)
            assert "mask check" in checked[group.name].reason
            others = [g for g in graph.groups if g.name != group.name]
            assert all(checked[g.name].prunable == g.prunable for g in others)


def test_padding_without_its_shift_is_found() -> None:
    model = OptionANet(8, 1)
    graph = _traced(model, 3, 16, 16)
    group = graph.group("conv1")
    flat = tuple(
        replace(m, indices=tuple((c,) for c in range(8))) if m.module.startswith("layer2") else m
        for m in group.members
    )
    checked = _recheck(model, (3, 16, 16), [replace(group, members=flat)])["conv1"]
    assert checked.reason.startswith("failed the mask check (differs by")


@pytest.mark.parametrize(
    "norm", [lambda: nn.GroupNorm(1, 8), lambda: nn.LayerNorm([8, 6, 6]), nn.Sigmoid]
)
def test_what_mixes_channels_or_moves_zero_is_refused(norm: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(
        *(nn.Conv2d(3, 8, 3), norm(), nn.Conv2d(8, 4, 3), nn.ReLU(), nn.Conv2d(4, 2, 1))
    )
    groups = _traced(model, 3, 8, 8).group_by_name
    assert not groups["0"].prunable
    assert groups["0"].reason
    assert groups["2"].prunable


@pytest.mark.parametrize(
    "between",
    [
        lambda: nn.InstanceNorm2d(8, affine=True),
        lambda: nn.PReLU(8),
        nn.PReLU,
        lambda: nn.BatchNorm2d(8, affine=False),
        nn.GELU,
        lambda: nn.GroupNorm(4, 8),
        lambda: nn.GroupNorm(8, 8),
    ],
)
def test_what_keeps_channels_apart_passes(between: Callable[[], nn.Module]) -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), between(), nn.Conv2d(8, 4, 3))
    groups = _traced(model, 3, 8, 8).group_by_name
    assert groups["0"].prunable, groups["0"].reason


def test_a_fixed_shape_in_the_forward_pass_is_refused() -> None:
    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.fc1 = nn.Conv2d(3, 4, 1), nn.Linear(64, 8)
            self.fc2 = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.fc2(functional.relu(self.fc1(self.conv(x).view(-1, 64))))

    groups = _traced(Net(), 3, 4, 4).group_by_name
    assert not groups["conv"].prunable
    assert groups["fc1"].prunable


def test_channel_shuffling_takes_equal_numbers_from_each_part() -> None:
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.head = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.conv(x)
            n, c, h, w = x.shape
            return self.head(x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w))

    group = _traced(Shuffle(), 3, 4, 4).group("conv")
    assert group.prunable
    assert group.members[0].indices == ((0, 4), (1, 5), (2, 6), (3, 7))


def test_randomising_makes_every_channel_alive() -> None:
    model = PlainNet(8).eval()
    nn.init.zeros_(model.bn1.weight)
    weight = model.conv1.weight.detach().clone()
    x = torch.randn(4, 3, 16, 16)
    randomise(model, ModelInputs.of(x), torch.Generator().manual_seed(0))
    with torch.no_grad():
        out = functional.relu(model.bn1(model.conv1(x)))
    spread = out.transpose(0, 1).flatten(1).std(1)
    assert ((spread > 0.1) & (spread < 2)).all()
    assert len(set(spread.tolist())) == 8
    assert torch.equal(model.conv1.weight, weight)
    assert not model.bn1._forward_pre_hooks


def test_scales_of_nearly_zero_hide_nothing() -> None:
    model = ResidualNet(8, 2)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.zeros_(module.weight)
    graph = trace(model, torch.randn(2, 3, 16, 16))
    group = graph.group("layer1.0.conv1")
    member = group.members[-1]
    shifted = replace(member, indices=member.indices[1:] + member.indices[:1])
    planted = replace(group, members=(*group.members[:-1], shifted))
    assert not _recheck(model, (3, 16, 16), [planted])[group.name].prunable


def test_perturbed_inputs_stay_acceptable() -> None:
    ids = torch.tensor([[1, 2, 3], [4, 5, 6]])
    x = torch.full((2, 3), 5.0)
    moved = perturbed(ModelInputs.of((x, ids)), torch.Generator().manual_seed(0))
    noisy, shuffled = moved.tensors
    assert noisy.shape == shuffled.shape == (8, 3)
    assert len(set(noisy.flatten().tolist())) == 24
    assert sorted(shuffled.flatten().tolist()) == sorted([1, 2, 3, 4, 5, 6] * 4)
    assert not torch.equal(shuffled, ids.repeat(4, 1))
    assert torch.equal(x, torch.full((2, 3), 5.0))


class _Gate(nn.Module):
    """Multiplies all channels with one of them, by its number."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.number = number
        self.conv, self.fc = nn.Conv2d(3, 16, 3), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(x)
        x = x * torch.sigmoid(x[:, self.number : self.number + 1])
        return self.fc(x.mean(dim=(2, 3)))


@pytest.mark.parametrize("number", range(16))
def test_a_channel_that_is_read_by_its_number_keeps_its_group_whole(number: int) -> None:
    group, _ = _traced(_Gate(number), 3, 8, 8).groups
    assert not group.prunable
    assert "mask check" in group.reason or "does not run" in group.reason


@dataclass
class _Output:
    logits: torch.Tensor


class _Wrapped(nn.Module):
    """Returns an object instead of a tensor."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: torch.Tensor) -> _Output:
        return _Output(self.net(x))


def test_outputs_inside_of_objects_are_compared() -> None:
    groups = _traced(_Wrapped(_Gate(3)), 3, 8, 8).group_by_name
    assert not groups["net.conv"].prunable
    assert groups["net.fc"].reason == "output layer"


def test_without_numbers_to_compare_nothing_is_pruned() -> None:
    class Labels(nn.Sequential):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).argmax(1)

    group = _traced(Labels(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3)), 4).group("0")
    assert "no numbers to compare" in group.reason


@pytest.mark.parametrize("zeros", [0.0, 1.0])
def test_a_head_of_zeros_hides_nothing(zeros: float) -> None:
    model = _Gate(3)
    nn.init.zeros_(model.fc.weight)
    nn.init.constant_(model.fc.bias, zeros)
    assert not _traced(model, 3, 8, 8).group("conv").prunable


@pytest.mark.parametrize("shape", [(), (8, 1, 1)])
def test_branches_that_begin_at_nothing_are_tested(shape: tuple[int, ...]) -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 8, 1)
            self.gamma = nn.Parameter(torch.zeros(shape))
            self.head = nn.Conv2d(8, 2, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            y = self.conv(x)
            return self.head(x + self.gamma * y * torch.sigmoid(y[:, 3:4]))

    assert not _traced(Gated(), 3, 4, 4).group("stem").prunable


def test_what_is_compared_in_training_must_run_without_channels() -> None:
    class Helped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.h = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)
            self.aux = nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = functional.relu(self.a(x))
            out = self.h(functional.relu(self.b(x)))
            return out + self.aux(x) if self.training else out

    groups = _traced(Helped(), 4).group_by_name
    assert groups["a"].reason.startswith("the model cannot be trained without them (")
    assert groups["b"].prunable


def test_infinite_entries_stay_and_the_others_move() -> None:
    mask = torch.zeros(2, 3)
    mask[0, 1] = float("-inf")
    (moved,) = perturbed(ModelInputs.of(mask), torch.Generator().manual_seed(0)).tensors
    assert torch.equal(moved.isinf(), mask.repeat(4, 1).isinf())
    assert not moved.isnan().any()
    assert moved[1:2].unique().numel() == 3


def test_boolean_masks_keep_how_much_each_row_shows() -> None:
    causal = torch.ones(6, 6, dtype=torch.bool).tril()
    for seed in range(10):
        generator = torch.Generator().manual_seed(seed)
        (moved,) = perturbed(ModelInputs.of(causal), generator, repeats=1).tensors
        assert moved.sum(-1).tolist() == [1, 2, 3, 4, 5, 6]
        assert not torch.equal(moved, causal)
    single = ModelInputs.of((torch.ones(2, 3), torch.tensor(True)))
    assert bool(perturbed(single, torch.Generator().manual_seed(0)).tensors[1])


def test_attention_with_a_boolean_mask_refuses_nothing() -> None:
    class Causal(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.h = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            x = self.b(functional.relu(self.a(x)))
            scores = (x @ x.transpose(1, 2)).masked_fill(~mask, float("-inf"))
            return self.h(functional.relu(scores.softmax(-1) @ x))

    torch.manual_seed(0)
    mask = torch.eye(5, dtype=torch.bool).expand(2, 5, 5)
    group = trace(Causal(), (torch.randn(2, 5, 4), mask)).group("a")
    assert group.prunable, group.reason


def test_a_mask_that_is_added_refuses_nothing() -> None:
    class Masked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.score, self.h = nn.Linear(4, 8), nn.Linear(8, 1), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
            x = functional.relu(self.a(x))
            share = (self.score(x) + mask[..., None]).softmax(1)
            return self.h((share * x).sum(1))

    mask = torch.zeros(2, 5)
    mask[1, 3:] = float("-inf")
    group = trace(Masked(), (torch.randn(2, 5, 4), mask)).group("a")
    assert group.prunable, group.reason


def test_what_samples_in_evaluation_keeps_its_groups() -> None:
    class Sampling(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.mean, self.wide = nn.Linear(4, 8), nn.Linear(8, 3), nn.Linear(8, 3)
            self.b, self.h = nn.Linear(3, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = functional.relu(self.a(x))
            mean, wide = self.mean(x), self.wide(x).exp()
            z = mean + wide * torch.randn_like(wide)
            return self.h(functional.relu(self.b(z)))

    groups = _traced(Sampling(), 4).group_by_name
    assert groups["a"].prunable, groups["a"].reason
    assert groups["b"].prunable, groups["b"].reason
    assert not groups["mean"].prunable


@pytest.mark.parametrize("name", ["new_zeros", "zeros_like"])
def test_tensors_of_the_same_form_refuse_nothing(name: str) -> None:
    class Former(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.h = nn.Linear(4, 8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.a(x)
            low = x.new_zeros(x.shape) if name == "new_zeros" else torch.zeros_like(x)
            return self.h(torch.maximum(x, low))

    group = _traced(Former(), 4).group("a")
    assert group.prunable, group.reason


def test_batch_norms_that_take_named_inputs_are_calibrated() -> None:
    class Named(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.bn, self.h = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.h(functional.relu(self.bn(input=self.a(x))))

    assert _traced(Named(), 4).group("a").prunable
