"""Groups and subjects of pruning criteria, and plain loops to check their scores with."""

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.graph.structure import ChannelGroup, GroupMember, ModelGraph
from autocompress.graph.tracing import trace
from autocompress.transform.criteria import CRITERIA, Evidence, Subject, gather_evidence

Array = np.ndarray


class Mixed(nn.Module):
    """Dense, depthwise and transposed convolutions, then a linear layer; input `n x 3 x 6 x 6`."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 6, 3, padding=1)
        self.norm = nn.BatchNorm2d(6)
        self.depthwise = nn.Conv2d(6, 6, 3, groups=6, bias=False)
        self.up = nn.ConvTranspose2d(6, 5, 2, stride=2)
        self.fc = nn.Linear(5 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        x = functional.relu(self.up(self.depthwise(x)))
        return self.fc(x.flatten(1))


def mixed() -> tuple[nn.Module, ModelGraph, list[tuple[Tensor, Tensor]]]:
    """Make the model, its structure, and two labelled batches of three."""
    model = Mixed()
    nn.init.normal_(model.norm.weight)
    nn.init.normal_(model.norm.bias, std=0.3)
    batches = [(torch.randn(3, 3, 6, 6), torch.randint(4, (3,))) for _ in range(2)]
    model.eval()
    return model, trace(model, batches[0][0]), batches


def run(model: nn.Module, batch: tuple[Tensor, Tensor]) -> Tensor:
    return model(batch[0])


def loss(outputs: Tensor, batch: tuple[Tensor, Tensor]) -> Tensor:
    return functional.cross_entropy(outputs, batch[1])


def observed(seed: int = 0) -> tuple[nn.Module, ModelGraph, list[tuple[Tensor, Tensor]], Evidence]:
    """Make the mixed model and observe it on its batches."""
    model, graph, batches = mixed()
    return model, graph, batches, gather_evidence(model, graph, batches, run, loss, seed=seed)


def make_group(channels: int, *members: tuple[str, str]) -> ChannelGroup:
    """Make a group whose members have one position per channel."""
    indices = tuple((index,) for index in range(channels))
    return ChannelGroup(
        name=members[0][0],
        channels=channels,
        members=tuple(GroupMember(module=m, axis=a, indices=indices) for m, a in members),  # type: ignore[arg-type]
        prunable=True,
    )


def scores_of(
    criterion: str,
    model: nn.Module,
    group: ChannelGroup,
    evidence: Evidence | None = None,
    seed: int = 0,
) -> Array:
    """Score a group with a criterion."""
    subject = Subject(
        modules=dict(model.named_modules()),
        group=group,
        evidence=evidence if evidence is not None else Evidence(),
        seed=seed,
    )
    scores = CRITERIA[criterion].score(subject)
    assert scores.shape == (group.channels,)
    assert scores.dtype == torch.float64
    assert not scores.requires_grad
    return scores.numpy()


def filters_by_hand(model: nn.Module, name: str) -> list[Array]:
    """List the weights of each filter of a layer of the mixed model."""
    layer = model.get_submodule(name)
    weight = layer.weight.detach().double().numpy()
    if name == "up":
        return [weight[:, index].ravel() for index in range(weight.shape[1])]
    return [weight[index].ravel() for index in range(weight.shape[0])]


def summed_by_hand(group: ChannelGroup, values: Callable[[str], list[float]]) -> list[float]:
    """Add up, channel by channel, what the filters of each producing layer are worth."""
    layers = ("conv", "depthwise", "up", "fc")
    totals = [0.0] * group.channels
    for member in group.members:
        if member.axis == "out" and member.module in layers:
            worth = values(member.module)
            for channel, positions in enumerate(member.indices):
                totals[channel] += sum(worth[position] for position in positions)
    return totals


def readers_by_hand(layer: nn.Module, weight: Array) -> list[Array]:
    """List, input by input, the entries of an array like the weight of a layer that read it."""
    if isinstance(layer, nn.ConvTranspose2d):
        return [weight[index].ravel() for index in range(weight.shape[0])]
    return [weight[:, index].ravel() for index in range(weight.shape[1])]


def gradients_by_hand(
    model: nn.Module, batches: list[tuple[Tensor, Tensor]], name: str
) -> list[list[Array]]:
    """List, for each batch, gradient times weight of what reads each input of one layer."""
    found, layer = [], model.get_submodule(name)
    for batch in batches:
        model.zero_grad()
        loss(run(model, batch), batch).backward()
        product = (layer.weight.grad * layer.weight).detach().double().numpy()
        found.append(readers_by_hand(layer, product))
    model.zero_grad()
    return found


def reading(group: ChannelGroup) -> list[GroupMember]:
    """List the members of a group that read its channels."""
    return [member for member in group.members if member.axis == "in"]
