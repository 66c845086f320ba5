"""The networks of the evidence, torch alone: contenders build them in their own environments."""

import itertools
import sys
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).parents[2]))

from cifar10_models import CifarResNet, MobileNet
from vision_transformer import make_small_transformer

WORDS, LENGTH, FEATURES, CLASSES = 128, 24, 40, 8
"""Vocabulary and length of a sentence; columns of a table and its classes."""


class TextLayer(nn.Module):
    """Self-attention and a feed-forward network, normalised last as in BERT."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key = nn.Linear(width, width), nn.Linear(width, width)
        self.value, self.project = nn.Linear(width, width), nn.Linear(width, width)
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)

    def forward(self, x: Tensor) -> Tensor:
        """Keep the shape, n x tokens x width."""
        n, tokens, width = x.shape
        parts = (layer(x).reshape(n, tokens, self.heads, -1) for layer in self._projections())
        mixed = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in parts))
        x = self.norm1(x + self.project(mixed.transpose(1, 2).reshape(n, tokens, width)))
        return self.norm2(x + self.fc2(F.gelu(self.fc1(x))))

    def _projections(self) -> tuple[nn.Module, ...]:
        return self.query, self.key, self.value


class TextEncoder(nn.Module):
    """A BERT-like encoder (Devlin et al. 2019) that classifies sentences by their first token."""

    def __init__(self, width: int = 96, depth: int = 4, heads: int = 4) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, width)
        self.positions = nn.Parameter(0.02 * torch.randn(1, LENGTH, width))
        self.norm = nn.LayerNorm(width)
        self.layers = nn.Sequential(*(TextLayer(width, heads) for _ in range(depth)))
        self.head = nn.Linear(width, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """Map n x LENGTH token numbers to n x 2 logits."""
        return self.head(self.layers(self.norm(self.words(tokens) + self.positions))[:, 0])


def make_network(name: str) -> nn.Module:
    """Build a network with seeded random weights; resnetDEPTHxWIDTH names any ResNet."""
    torch.manual_seed(0)
    if name.startswith("resnet"):
        depth, _, width = name.removeprefix("resnet").partition("x")
        return CifarResNet((int(depth) - 2) // 6, width=int(width or 16))
    if name == "mobilenet":
        return MobileNet(width=0.35)
    if name == "vit":
        return make_small_transformer()
    if name == "text":
        return TextEncoder()
    if name == "tabular":
        widths = (FEATURES, 256, 256, 128)
        layers = [m for a, b in itertools.pairwise(widths) for m in _layer(a, b)]
        return nn.Sequential(*layers, nn.Linear(widths[-1], CLASSES))
    raise ValueError(f"no network is called {name}")


def _layer(inputs: int, outputs: int) -> tuple[nn.Module, nn.Module]:
    return nn.Linear(inputs, outputs), nn.ReLU()
