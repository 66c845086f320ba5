"""Architectures of the zoo test: from installed packages, small, with random weights."""

import importlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

import zoo


@dataclass(frozen=True, kw_only=True)
class Architecture:
    """One entry of the zoo.

    Attributes:
        name: How the table calls it.
        package: What it comes from.
        make: Builds it with random weights.
        shape: Shape of one example.
        tokens: Size of the vocabulary, if the examples are token numbers.
    """

    name: str
    package: str
    make: Callable[[], nn.Module]
    shape: tuple[int, ...]
    tokens: int = 0

    def inputs(self, batch: int) -> torch.Tensor:
        """Random examples, the same every time."""
        generator = torch.Generator().manual_seed(batch)
        if self.tokens:
            return torch.randint(3, self.tokens, (batch, *self.shape), generator=generator)
        return torch.randn(batch, *self.shape, generator=generator)


class Head(nn.Module):
    """A network of the transformers library that returns one tensor."""

    def __init__(self, network: nn.Module, output: str) -> None:
        super().__init__()
        self.network, self.output = network, output

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return getattr(self.network(inputs), self.output)


def _pytorchcv(name: str, module: str, shape: tuple[int, ...], **options: object) -> Architecture:
    def make() -> nn.Module:
        models = importlib.import_module(f"pytorchcv.models.{module}")
        model = getattr(models, name)(**options)
        for path, pool in list(model.named_modules()):
            if "final" in path and isinstance(pool, nn.AvgPool2d):  # made for larger images
                model.set_submodule(path, nn.AdaptiveAvgPool2d(1))
        return model

    return Architecture(name=name, package="pytorchcv", make=make, shape=shape)


_CIFAR = [
    *(("resnet20_cifar10", "resnet_cifar"), ("preresnet20_cifar10", "preresnet_cifar")),
    *(("seresnet20_cifar10", "seresnet_cifar"), ("sepreresnet20_cifar10", "sepreresnet_cifar")),
    *(("densenet40_k12_cifar10", "densenet_cifar"), ("nin_cifar10", "nin_cifar")),
    *(("resnext20_32x2d_cifar10", "resnext_cifar"), ("diaresnet20_cifar10", "diaresnet_cifar")),
    *(("rir_cifar10", "rir_cifar"), ("pyramidnet110_a48_cifar10", "pyramidnet_cifar")),
    *(("wrn20_10_1bit_cifar10", "wrn1bit_cifar"), ("ror3_56_cifar10", "ror_cifar")),
    ("shakeshakeresnet20_2x16d_cifar10", "shakeshakeresnet_cifar"),
    ("xdensenet40_2_k24_bc_cifar10", "xdensenet_cifar"),
]
_IMAGENET = [
    *(("resnet10", "resnet"), ("preresnet10", "preresnet"), ("resneta10", "resneta")),
    *(("seresnet10", "seresnet"), ("resnext14_16x4d", "resnext"), ("resnesta18", "resnesta")),
    *(("cbam_resnet18", "cbamresnet"), ("bam_resnet18", "bamresnet")),
    *(("squeezenet_v1_1", "squeezenet"), ("squeezeresnet_v1_1", "squeezenet")),
    *(("mobilenet_wd4", "mobilenet"), ("fdmobilenet_wd4", "fdmobilenet")),
    *(("mobilenetv2_wd4", "mobilenetv2"), ("mobilenetv3_small_wd2", "mobilenetv3")),
    *(("efficientnet_b0", "efficientnet"), ("mnasnet_small", "mnasnet"), ("fbnet_cb", "fbnet")),
    *(("ghostnet", "ghostnet"), ("shufflenet_g3_wd4", "shufflenet")),
    *(("shufflenetv2_wd2", "shufflenetv2"), ("igcv3_wd4", "igcv3")),
    *(("menet108_8x1_g3", "menet"), ("darknet_tiny", "darknet"), ("hardnet39ds", "hardnet")),
    *(("peleenet", "peleenet"), ("regnetx002", "regnet"), ("regnety002", "regnet")),
    *(("densenet121", "densenet"), ("vovnet27s", "vovnet"), ("sqnxt23_w1", "squeezenext")),
    *(("mixnet_s", "mixnet"), ("diracnet18v2", "diracnetv2"), ("selecsls42", "selecsls")),
    *(("hrnet_w18_small_v1", "hrnet"), ("condensenet74_c4_g4", "condensenet")),
    *(("dla46c", "dla"), ("bninception", "bninception")),
]


def _transformer(
    kind: str, model: str, output: str, shape: tuple[int, ...], tokens: int = 0, **options: object
) -> Architecture:
    def make() -> nn.Module:
        library = importlib.import_module("transformers")
        config = getattr(library, f"{kind}Config")(**options)
        return Head(getattr(library, f"{kind}{model}")(config), output)

    return Architecture(
        name=f"{kind}{model}", package="transformers", make=make, shape=shape, tokens=tokens
    )


_VISION = {
    "image_size": 32,
    "patch_size": 8,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
}
_TEXT = {
    "vocab_size": 50,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 64,
    "max_position_embeddings": 40,
}
_IMAGE, _WORDS = (3, 32, 32), (12,)

_TRANSFORMERS = [
    *(
        _transformer(kind, "ForImageClassification", "logits", _IMAGE, **_VISION)
        for kind in ("ViT", "DeiT", "Beit", "Dinov2")
    ),
    _transformer(
        *("Swin", "ForImageClassification", "logits", _IMAGE),
        **{"image_size": 32, "patch_size": 2, "embed_dim": 16, "depths": [2, 2]},
        **{"num_heads": [2, 4], "window_size": 4},
    ),
    _transformer(
        *("ConvNext", "ForImageClassification", "logits", _IMAGE),
        **{"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 2, 1]},
    ),
    _transformer(
        *("Segformer", "ForImageClassification", "logits", (3, 64, 64)),
        **{"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
        **{"num_attention_heads": [1, 2, 4, 4]},
    ),
    _transformer(
        *("ResNet", "ForImageClassification", "logits", _IMAGE),
        **{"embedding_size": 8, "hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]},
    ),
    *(
        _transformer(kind, "ForSequenceClassification", "logits", _WORDS, 50, **_TEXT)
        for kind in ("Bert", "Electra", "Roberta", "MobileBert", "Albert")
    ),
    _transformer(
        *("DistilBert", "ForSequenceClassification", "logits", _WORDS, 50),
        **{"vocab_size": 50, "dim": 32, "n_layers": 2, "n_heads": 4, "hidden_dim": 64},
    ),
]


def _encoder() -> nn.Module:
    layer = nn.TransformerEncoderLayer(16, 4, 32, batch_first=True)
    return nn.Sequential(
        nn.Linear(6, 16),
        nn.TransformerEncoder(layer, 2, enable_nested_tensor=False),
        nn.Flatten(),
        nn.Linear(80, 3),
    )


def _own(name: str, make: Callable[[], nn.Module], *shape: int) -> Architecture:
    return Architecture(name=name, package="own", make=make, shape=shape)


ARCHITECTURES = [
    _own("PlainNet", zoo.PlainNet, 3, 16, 16),
    _own("ResidualNet", zoo.ResidualNet, 3, 16, 16),
    _own("OptionANet", lambda: zoo.OptionANet(8, 2), 3, 16, 16),
    _own("InvertedResidualNet", zoo.InvertedResidualNet, 3, 16, 16),
    _own("ConcatNet", zoo.ConcatNet, 3, 8, 8),
    _own("BranchNet", zoo.BranchNet, 3, 8, 8),
    _own("GroupedNet", zoo.GroupedNet, 3, 8, 8),
    _own("VisionTransformer", zoo.VisionTransformer, 3, 16, 16),
    _own("TransformerEncoder", _encoder, 5, 6),
    _own("Mlp", zoo.Mlp, 12),
    *(_pytorchcv(name, module, (3, 32, 32), num_classes=10) for name, module in _CIFAR),
    *(_pytorchcv(name, module, (3, 64, 64), num_classes=10) for name, module in _IMAGENET),
    *_TRANSFORMERS,
]
