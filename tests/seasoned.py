"""Tiny models as training leaves them: norms have statistics, scales and signs of their own."""

import torch
from torch import nn

import zoo
from autocompress.artifact.saturation import resolve_range
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.quantisation import DEFAULT_OBSERVER, QuantisationConfig
from autocompress.core.target import Target
from autocompress.graph.structure import ModelGraph
from autocompress.graph.tracing import trace
from autocompress.transform.compress import calibrate_grids, compress_model
from autocompress.transform.compressed import CompressedModel

SHAPES = {
    "PlainNet": (3, 16, 16),
    "ResidualNet": (3, 16, 16),
    "OptionANet": (3, 16, 16),
    "InvertedResidualNet": (3, 16, 16),
    "ConcatNet": (3, 8, 8),
    "BranchNet": (3, 8, 8),
    "Mlp": (12,),
    "EveryKind": (3, 8, 8),
}
"""Shape of one example, by the name of the model in the zoo."""


def season(model: nn.Module, inputs: torch.Tensor) -> nn.Module:
    """Give the norms of a model random scales, a third of them negative, and fitting statistics."""
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None
            nn.init.uniform_(module.weight, -0.5, 1.0)
            nn.init.normal_(module.bias, std=0.3)
    model.train()
    with torch.no_grad():
        model(inputs)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.1
    return model.eval()


def seasoned(name: str, examples: int = 8) -> tuple[nn.Module, torch.Tensor]:
    """Make a model of the zoo, and inputs for it, from the current random state."""
    inputs = torch.randn(examples, *SHAPES[name])
    return season(getattr(zoo, name)(), inputs), inputs


HERE = resolve_range(QuantisationConfig(), Target.named("onnxruntime-cpu"))
"""Grids that the integer kernels of this host do not clip."""

WHOLE = QuantisationConfig(reduce_range="off")
"""Grids of all eight bits."""


def uniform(graph: ModelGraph, bits: int, activation_bits: int = 8) -> dict[str, LayerConfig]:
    """Give every layer the same bits."""
    config = LayerConfig(weight_bits=bits, activation_bits=activation_bits)
    return {layer.name: config for layer in graph.layers}


def pruned(graph: ModelGraph, ratio: float) -> dict[str, float]:
    """Give every prunable group the same ratio."""
    return {group.name: ratio for group in graph.groups if group.prunable}


def compressed(
    model: nn.Module,
    inputs: torch.Tensor,
    candidate: Candidate,
    observer: str = DEFAULT_OBSERVER,
    *,
    quantisation: QuantisationConfig = HERE,
) -> CompressedModel:
    """Compress a model, for the runtime that is here, and calibrate it on its inputs."""
    result = compress_model(
        model, trace(model, inputs), candidate, ((inputs[:2],), {}), quantisation=quantisation
    )
    calibrate_grids(result, [inputs], lambda network, batch: network(batch), observer)
    return result
