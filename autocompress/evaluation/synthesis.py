"""Inputs without data: made so that a model's batch norms see what they saw in training."""

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from autocompress.errors import InvalidInputError, explain
from autocompress.evaluation.precision import arithmetic
from autocompress.graph.inputs import ModelInputs, plain_copy

SMOOTHNESS = 0.003
"""Weight of the differences of neighbouring pixels, which photographs have few of."""


def synthesise(
    model: nn.Module,
    example_inputs: object,
    *,
    images: int = 1024,
    batch_size: int = 64,
    steps: int = 100,
    learning_rate: float = 0.1,
    seed: int = 0,
    device: str = "cpu",
) -> list[tuple[Tensor]]:
    """Make inputs from the statistics that a model's batch norms keep.

    Noise is changed by gradients until the mean and deviation that each batch
    norm sees are those it learned (ZeroQ, Cai et al. 2020, equation 3), with
    neighbouring pixels kept alike (DeepInversion, Yin et al. 2020). The
    batches have no targets: they calibrate, and teach with a `kd_weight` of 1.

    Args:
        model: A trained model with batch norms; not changed.
        example_inputs: Of one forward call, one floating-point tensor; gives
            the shape, and nothing else.
        images: How many, >= 1.
        batch_size: Images that are made together, >= 2.
        steps: Changes of each batch, >= 1.
        learning_rate: Of Adam.
        seed: Draws the noise; the caller's random state is left alone.
        device: Torch device name.

    Returns:
        Batches of one input each, on the CPU.

    Raises:
        InvalidInputError: If the model has no batch norms, or takes other inputs.
    """
    numbers = (("images", images, 1), ("batch_size", batch_size, 2), ("steps", steps, 1))
    for name, count, least in numbers:
        if count < least:
            raise InvalidInputError(
                explain(f"'{name}'", expected=f">= {least}", got=count, remedy=f"write {name}=64")
            )
    given = ModelInputs.of(example_inputs)
    if len(given.tensors) != 1 or not given.tensors[0].is_floating_point():
        raise InvalidInputError(
            explain(
                "'example_inputs'",
                expected="one floating-point tensor",
                got=f"{len(given.tensors)} tensors",
                remedy="give training data",
            )
        )
    frozen = plain_copy(model).to(device).eval().requires_grad_(False)
    norms = [
        module
        for module in frozen.modules()
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.track_running_stats
    ]
    if not norms:
        raise InvalidInputError(
            explain(
                "'model'",
                expected="batch norms with statistics",
                got="none",
                remedy="give training data",
            )
        )
    deviations: list[Tensor] = []
    handles = [norm.register_forward_pre_hook(_watch(deviations, norm.eps)) for norm in norms]
    generator = torch.Generator().manual_seed(seed)
    shape = given.tensors[0].shape[1:]
    made = []
    try:
        for start in range(0, images, batch_size):
            wanted = min(batch_size, images - start)
            together = max(2, wanted)  # one alone has no variance
            drawn = torch.randn(together, *shape, generator=generator)
            noise = drawn.to(device).requires_grad_(True)
            optimiser = torch.optim.Adam([noise], lr=learning_rate)
            for _ in range(steps):
                deviations.clear()
                optimiser.zero_grad()
                with arithmetic(device):
                    _filled(given, noise).run(frozen)
                loss = torch.stack(deviations).mean() + SMOOTHNESS * _roughness(noise)
                torch.autograd.backward(loss)
                optimiser.step()
            made.append((noise.detach()[:wanted].cpu(),))
    finally:
        for handle in handles:
            handle.remove()
    return made


def _filled(inputs: ModelInputs, tensor: Tensor) -> ModelInputs:
    """Return inputs with another tensor in place of their only one."""
    return inputs.map(lambda _: tensor)


def _watch(deviations: list[Tensor], epsilon: float) -> Callable[[nn.Module, Any], None]:
    """Return a hook that notes how far a batch norm's input is from its statistics."""

    def note(norm: nn.Module, args: Any) -> None:
        x = args[0].float()
        axes = [axis for axis in range(x.dim()) if axis != 1]
        mean, variance = x.mean(axes), x.var(axes, unbiased=False)
        learned = norm.get_buffer("running_var") + epsilon
        shift = (mean - norm.get_buffer("running_mean")).square() / learned
        spread = ((variance + epsilon).sqrt() / learned.sqrt() - 1.0).square()
        deviations.append((shift + spread).mean())

    return note


def _roughness(images: Tensor) -> Tensor:
    """Return the mean squared difference of neighbours along the axes behind the channels."""
    terms = [images.diff(dim=axis).square().mean() for axis in range(2, images.dim())]
    return torch.stack(terms).sum() if terms else images.new_zeros(())
