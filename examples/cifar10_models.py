"""The CIFAR ResNets of He et al. (2016), with option A shortcuts, and a small MobileNetV2."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class BasicBlock(nn.Module):
    """Two 3x3 convolutions; a wider output zero-pads a strided shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.stride, self.padding = stride, (outputs - inputs) // 2

    def forward(self, x: Tensor) -> Tensor:
        """Map n x c x h x w images to n x outputs x h/stride x w/stride."""
        y = F.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        if self.padding:
            x = x[:, :, :: self.stride, :: self.stride]
            x = F.pad(x, (0, 0, 0, 0, self.padding, self.padding))
        return F.relu(y + x)


class CifarResNet(nn.Module):
    """A ResNet of 6n+2 layers for 32x32 images, of 16, 32 and 64 channels unless told."""

    def __init__(self, blocks: int, classes: int = 10, width: int = 16) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = _stage(width, width, blocks, 1)
        self.layer2 = _stage(width, 2 * width, blocks, 2)
        self.layer3 = _stage(2 * width, 4 * width, blocks, 2)
        self.linear = nn.Linear(4 * width, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map n x 3 x 32 x 32 images to n x classes logits."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(F.adaptive_avg_pool2d(x, 1).flatten(1))


def _stage(inputs: int, outputs: int, blocks: int, stride: int) -> nn.Sequential:
    rest = [BasicBlock(outputs, outputs, 1) for _ in range(blocks - 1)]
    return nn.Sequential(BasicBlock(inputs, outputs, stride), *rest)


def make_model(depth: int = 20) -> nn.Module:
    """Build a CIFAR ResNet of 20, 32, 44 or 56 layers."""
    torch.manual_seed(0)
    return CifarResNet((depth - 2) // 6)


class InvertedResidual(nn.Module):
    """Widen, filter each channel, narrow; added to the input where shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        layers: list[nn.Module] = []
        if expansion != 1:
            layers += [nn.Conv2d(inputs, hidden, 1, bias=False), nn.BatchNorm2d(hidden), nn.ReLU6()]
        depthwise = nn.Conv2d(hidden, hidden, 3, stride, 1, groups=hidden, bias=False)
        layers += [depthwise, nn.BatchNorm2d(hidden), nn.ReLU6()]
        layers += [nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs)]
        self.conv = nn.Sequential(*layers)
        self.skip = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        """Map n x inputs x h x w to n x outputs x h/stride x w/stride."""
        return x + self.conv(x) if self.skip else self.conv(x)


STAGES = (
    *((1, 16, 1, 1), (6, 24, 2, 1), (6, 32, 3, 2), (6, 64, 4, 2)),
    *((6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1)),
)
"""Expansion, channels, blocks and stride of the stages of `MobileNet`."""


class MobileNet(nn.Module):
    """A MobileNetV2 (Sandler et al. 2018) with the strides that 32x32 images bear.

    Another width than 1 multiplies all channels, in steps of 8.
    """

    def __init__(self, classes: int = 10, width: float = 1.0) -> None:
        super().__init__()
        channels, last = _scaled(32, width), _scaled(1280, width)
        stem = nn.Conv2d(3, channels, 3, 1, 1, bias=False)
        layers: list[nn.Module] = [stem, nn.BatchNorm2d(channels), nn.ReLU6()]
        for expansion, outputs, blocks, stride in STAGES:
            for block in range(blocks):
                first = stride if block == 0 else 1
                scaled = _scaled(outputs, width)
                layers.append(InvertedResidual(channels, scaled, first, expansion))
                channels = scaled
        layers += [nn.Conv2d(channels, last, 1, bias=False), nn.BatchNorm2d(last), nn.ReLU6()]
        self.features = nn.Sequential(*layers)
        self.linear = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        """Map n x 3 x 32 x 32 images to n x classes logits."""
        return self.linear(self.features(x).mean((2, 3)))


def _scaled(channels: int, width: float) -> int:
    return max(8, round(channels * width / 8) * 8)
