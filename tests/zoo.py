"""Tiny models that cover the architectures the package meets."""

import torch
from torch import nn
from torch.nn import functional


def conv_bn(
    in_channels: int, out_channels: int, *, kernel: int = 3, stride: int = 1, groups: int = 1
) -> nn.Sequential:
    """A convolution and its batch norm; submodules "0" and "1"."""
    return nn.Sequential(
        nn.Conv2d(
            in_channels, out_channels, kernel, stride, kernel // 2, groups=groups, bias=False
        ),
        nn.BatchNorm2d(out_channels),
    )


class PlainNet(nn.Module):
    """Three convolutions with batch norm, then a classifier; input `n x 3 x 16 x 16`."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, 2 * width, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(2 * width)
        self.conv3 = nn.Conv2d(2 * width, 2 * width, 3, stride=2, padding=1)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = functional.relu(self.bn2(self.conv2(x)))
        x = functional.relu(self.conv3(x))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class ResidualBlock(nn.Module):
    """Two convolutions around a shortcut: the identity, or a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        changes = stride != 1 or in_channels != out_channels
        self.shortcut = (
            conv_bn(in_channels, out_channels, kernel=1, stride=stride)
            if changes
            else nn.Sequential()
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        return functional.relu(out + self.shortcut(x))


class ResidualNet(nn.Module):
    """Two stages of residual blocks; input `n x 3 x 16 x 16`."""

    def __init__(self, width: int = 8, blocks: int = 2, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.layer1 = self._stage(width, width, blocks, stride=1)
        self.layer2 = self._stage(width, 2 * width, blocks, stride=2)
        self.fc = nn.Linear(2 * width, classes)

    @staticmethod
    def _stage(in_channels: int, out_channels: int, blocks: int, *, stride: int) -> nn.Sequential:
        first = ResidualBlock(in_channels, out_channels, stride)
        return nn.Sequential(
            first, *(ResidualBlock(out_channels, out_channels) for _ in range(blocks - 1))
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer2(self.layer1(x))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class OptionABlock(nn.Module):
    """A CIFAR ResNet block; a changing shortcut is strided and padded with zeros."""

    def __init__(self, in_channels: int, out_channels: int, stride: int = 1) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.stride = stride
        self.padding = (out_channels - in_channels) // 2

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.stride != 1 or self.padding:
            x = functional.pad(
                x[:, :, :: self.stride, :: self.stride],
                (0, 0, 0, 0, self.padding, self.padding),
            )
        return functional.relu(out + x)


class OptionANet(nn.Module):
    """The CIFAR ResNet of He et al. 2015, depth `6 * blocks + 2`; input `n x 3 x s x s`."""

    def __init__(self, width: int = 8, blocks: int = 1, classes: int = 10) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, width, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        widths = (width, width, 2 * width, 4 * width)
        for stage in (1, 2, 3):
            layers = [OptionABlock(widths[stage - 1], widths[stage], 1 if stage == 1 else 2)]
            layers += [OptionABlock(widths[stage], widths[stage]) for _ in range(blocks - 1)]
            setattr(self, f"layer{stage}", nn.Sequential(*layers))
        self.fc = nn.Linear(4 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class InvertedResidual(nn.Module):
    """Expand, depthwise, project, as in MobileNetV2."""

    def __init__(
        self, in_channels: int, out_channels: int, *, expand: int = 2, stride: int = 1
    ) -> None:
        super().__init__()
        hidden = expand * in_channels
        self.expand = conv_bn(in_channels, hidden, kernel=1)
        self.depthwise = conv_bn(hidden, hidden, stride=stride, groups=hidden)
        self.project = conv_bn(hidden, out_channels, kernel=1)
        self.residual = stride == 1 and in_channels == out_channels

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = functional.relu6(self.expand(x))
        out = functional.relu6(self.depthwise(out))
        out = self.project(out)
        return x + out if self.residual else out


class InvertedResidualNet(nn.Module):
    """A small MobileNetV2; input `n x 3 x 16 x 16`."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.stem = conv_bn(3, width)
        self.blocks = nn.Sequential(
            InvertedResidual(width, width),
            InvertedResidual(width, 2 * width, stride=2),
            InvertedResidual(2 * width, 2 * width),
        )
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.blocks(functional.relu6(self.stem(x)))
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class ConcatNet(nn.Module):
    """Two branches that are concatenated, and a flattened classifier; input `n x 3 x 8 x 8`."""

    def __init__(self, width: int = 8, classes: int = 10) -> None:
        super().__init__()
        self.left = conv_bn(3, width)
        self.right = conv_bn(3, 2 * width, kernel=1)
        self.merge = nn.Conv2d(3 * width, width, 3, stride=2, padding=1)
        self.fc = nn.Linear(width * 16, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(torch.cat([self.left(x), self.right(x)], dim=1))
        return self.fc(functional.relu(self.merge(x)).flatten(1))


class Mlp(nn.Module):
    """Two hidden layers; input `n x features`."""

    def __init__(self, features: int = 12, hidden: int = 16, classes: int = 4) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, hidden)
        self.fc2 = nn.Linear(hidden, hidden)
        self.fc3 = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.fc3(functional.relu(self.fc2(functional.relu(self.fc1(x)))))


class SqueezeExcite(nn.Module):
    """Weigh channels by what two 1x1 convolutions make of their means."""

    def __init__(self, channels: int, hidden: int) -> None:
        super().__init__()
        self.reduce = nn.Conv2d(channels, hidden, 1)
        self.expand = nn.Conv2d(hidden, channels, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        means = functional.adaptive_avg_pool2d(x, 1)
        return x * torch.sigmoid(self.expand(functional.silu(self.reduce(means))))


class GroupedNet(nn.Module):
    """Grouped convolutions: few groups with a shuffle, and many; input `n x 3 x 8 x 8`."""

    def __init__(self, width: int = 16, classes: int = 5) -> None:
        super().__init__()
        self.stem = conv_bn(3, width)
        self.few = conv_bn(width, width, groups=2)
        self.middle = conv_bn(width, width, kernel=1)
        self.many = conv_bn(width, 2 * width, groups=width // 2)
        self.excite = SqueezeExcite(2 * width, 4)
        self.fc = nn.Linear(2 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.few(functional.relu(self.stem(x))))
        n, c, h, w = x.shape
        x = x.view(n, 2, c // 2, h, w).transpose(1, 2).reshape(n, c, h, w)
        x = self.many(functional.relu(self.middle(x)))
        return self.fc(
            functional.adaptive_avg_pool2d(self.excite(functional.relu(x)), 1).flatten(1)
        )


class FusedAttention(nn.Module):
    """Self-attention with one projection for queries, keys and values, as timm writes it."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads, self.head_dim = num_heads, dim // num_heads
        self.qkv, self.proj = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        n, t, _ = x.shape
        qkv = self.qkv(x).reshape(n, t, 3, self.num_heads, self.head_dim)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = functional.scaled_dot_product_attention(q, k, v)
        return self.proj(mixed.transpose(1, 2).flatten(2))


class EncoderLayer(nn.Module):
    """Attention and a feed-forward network, each behind a norm and beside a shortcut."""

    def __init__(self, dim: int, num_heads: int) -> None:
        super().__init__()
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.attn = FusedAttention(dim, num_heads)
        self.fc1, self.fc2 = nn.Linear(dim, 2 * dim), nn.Linear(2 * dim, dim)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(self.norm1(x))
        return x + self.fc2(functional.gelu(self.fc1(self.norm2(x))))


class VisionTransformer(nn.Module):
    """A small ViT with a class token; input `n x 3 x 16 x 16`."""

    def __init__(self, dim: int = 24, layers: int = 2, heads: int = 3, classes: int = 5) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, dim, 4, 4)
        self.token = nn.Parameter(torch.randn(1, 1, dim))
        self.positions = nn.Parameter(torch.randn(1, 17, dim))
        self.layers = nn.Sequential(*(EncoderLayer(dim, heads) for _ in range(layers)))
        self.norm, self.head = nn.LayerNorm(dim), nn.Linear(dim, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.patches(x).flatten(2).transpose(1, 2)
        x = torch.cat([self.token.expand(x.shape[0], -1, -1), x], 1) + self.positions
        return self.head(self.norm(self.layers(x))[:, 0])


class BranchNet(nn.Module):
    """Residual sums of branches in the model's own forward pass; input `n x 3 x 8 x 8`."""

    def __init__(self, width: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.stem = conv_bn(3, width)
        self.first = nn.Sequential(
            conv_bn(width, 2 * width, kernel=1), nn.ReLU(), conv_bn(2 * width, width, kernel=1)
        )
        self.second = nn.Sequential(
            nn.BatchNorm2d(width), nn.ReLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.fc = nn.Linear(width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.stem(x))
        x = functional.relu(x + self.first(x))
        x = self.second(x) + x
        return self.fc(functional.adaptive_avg_pool2d(x, 1).flatten(1))


class EveryKind(nn.Module):
    """One layer of each kind, and attention; input `n x 3 x 8 x 8`."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.volume = nn.Conv3d(8, 8, (1, 2, 2), stride=(1, 2, 2))
        self.up = nn.ConvTranspose2d(8, 8, 2, stride=2, groups=2)
        self.line = nn.Conv1d(8, 12, 4, stride=4)
        self.positions = nn.Embedding(16, 12)
        self.qkv, self.out, self.fc = nn.Linear(12, 36), nn.Linear(12, 12), nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = functional.relu(self.norm(self.conv(x)))
        x = functional.relu(self.volume(x.unsqueeze(2)).squeeze(2))
        x = self.line(self.up(x).flatten(2)).transpose(1, 2)
        x = x + self.positions(torch.arange(16, device=x.device))
        q, k, v = self.qkv(x).chunk(3, dim=-1)
        x = x + self.out(functional.scaled_dot_product_attention(q, k, v))
        return self.fc(x.mean(dim=1))
