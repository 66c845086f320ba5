"""Prove channel groups: a pruned model must equal the masked one."""

import copy
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from autocompress.core.seeds import derive_seed
from autocompress.graph.inputs import ModelInputs, one_line, tensors_of, training_failure
from autocompress.graph.recording import LAYER_TYPES
from autocompress.graph.slicing import prune_groups, removed_positions
from autocompress.graph.structure import ChannelGroup

TOLERANCE = 1e-4
"""Largest difference between pruned and masked, relative to the output scale."""

QUARTERS = 4
"""Parts of a group that are removed in turn."""

REPEATS = 4
"""Variants of each example: enough for no channel to be dead on all of them."""

Removal = tuple[ChannelGroup, tuple[int, ...]]


def check_groups(
    model: nn.Module, inputs: ModelInputs, groups: Sequence[ChannelGroup], *, seed: int = 0
) -> tuple[ChannelGroup, ...]:
    """Keep prunable only those groups whose pruning equals masking.

    About a quarter of the channels of every prunable group is removed from
    one copy of the model and masked in another: the weights and biases that
    produce them are zeroed, consumers are left alone. So are the other
    quarters, one after the other, since a model may read one channel by its
    number. Normalisation is randomised and the inputs are perturbed first, so
    that channels differ from each other and from zero. What trains as a whole
    must run in training mode, too. Groups are judged together and, if that
    fails, by bisection; those that pass also pass together.

    Args:
        model: A private float32 copy on the CPU in evaluation mode; left as it is.
        inputs: What it is called with.
        groups: The groups of the model.
        seed: Seeds channels, statistics and inputs.

    Returns:
        The groups, those that fail with `prunable=False` and the reason, which
        is what was in doubt about them, if anything was.
    """
    generator = torch.Generator().manual_seed(derive_seed(seed, -1, "mask check"))
    probe, inputs = copy.deepcopy(model), _variants(model, inputs, generator)
    randomise(probe, inputs, generator)
    bench = _Bench(probe, inputs)
    parts = {g.name: _parts(g, generator) for g in groups if g.prunable}
    for turn in range(QUARTERS):
        left = [g for g in groups if turn < len(parts.get(g.name, ()))]
        bench.accept([], [(g, parts[g.name][turn]) for g in left if g.name not in bench.reasons])
    return tuple(_judged(group, bench.reasons) for group in groups)


def _variants(model: nn.Module, inputs: ModelInputs, generator: torch.Generator) -> ModelInputs:
    """Perturb inputs, and repeat the examples if the model takes more of them."""
    repeated = perturbed(inputs, generator)
    try:
        repeated.run_alike(model)
    except Exception:  # an axis of another meaning is as long as the batch
        return perturbed(inputs, generator, repeats=1)
    return repeated


def _judged(group: ChannelGroup, failures: Mapping[str, str]) -> ChannelGroup:
    if not group.prunable:
        return group
    failure = failures.get(group.name, "")
    return replace(group, prunable=not failure, reason=failure and (group.reason or failure))


class _Bench:
    """A model and inputs on which removals are judged; collects who failed and why."""

    def __init__(self, model: nn.Module, inputs: ModelInputs) -> None:
        self.model, self.inputs = model, inputs
        self.reasons: dict[str, str] = {}
        self.trains = not training_failure(copy.deepcopy(model), inputs)

    def accept(self, passed: list[Removal], candidates: list[Removal]) -> list[Removal]:
        """Extend what passes together by as many candidates as possible."""
        if not candidates:
            return passed
        reason = self._failure(passed + candidates)
        if not reason:
            return passed + candidates
        if len(candidates) == 1:
            self.reasons[candidates[0][0].name] = reason
            return passed
        half = len(candidates) // 2
        return self.accept(self.accept(passed, candidates[:half]), candidates[half:])

    def _failure(self, removals: Sequence[Removal]) -> str:
        """Compare pruned with masked; return what is wrong, or ""."""
        masked, pruned = copy.deepcopy(self.model), copy.deepcopy(self.model)
        mask_positions(masked, removed_positions(removals))
        expected = self._outputs(masked)
        try:
            prune_groups(pruned, removals)
            got = self._outputs(pruned)
        except Exception as error:
            return f"the pruned model does not run ({one_line(error)})"
        if [t.shape for t in got] != [t.shape for t in expected]:
            return "pruning changes the shape of the model's output"
        failure = _difference(got, expected)
        if self.trains and not failure and (raised := training_failure(pruned, self.inputs)):
            return f"the model cannot be trained without them ({raised})"
        return failure

    def _outputs(self, model: nn.Module) -> list[Tensor]:
        tensors = self.inputs.run_alike(model)
        return [tensor for tensor in tensors if tensor.is_floating_point() and tensor.numel()]


def _difference(got: Sequence[Tensor], expected: Sequence[Tensor]) -> str:
    """Say how the outputs of a pruned model differ from those of a masked one; "" if not."""
    if not expected:
        return "the model returns no numbers to compare, only integers or nothing"
    if not any(tensor.any() for tensor in expected):
        return "the model returns zeros only, so that nothing can be compared"
    for ours, theirs in zip(got, expected, strict=True):
        difference = (ours - theirs).abs().max().item()
        scale = theirs.abs().max().item()
        if not difference <= TOLERANCE * scale:  # catches NaN too
            return (
                f"failed the mask check (differs by {difference:.2g} on outputs of scale "
                f"{scale:.2g})"
            )
    return ""


def mask_positions(model: nn.Module, positions: Mapping[tuple[str, str], Sequence[int]]) -> None:
    """Zero what produces channels, in place; consumers are left alone.

    Rows of weights and biases become zero, and so do the scale, shift and
    running mean of a normalisation, whose output is then zero there.

    Args:
        model: The model.
        positions: Channels by (module, axis), as `removed_positions` returns them.
    """
    modules = dict(model.named_modules())
    for (name, axis), taken in positions.items():
        key, _, dim = axis.partition(":")
        if dim and not isinstance(modules[name], LAYER_TYPES):  # whose own weights are masked
            _zero(getattr(modules[name], key), int(dim), taken)
        elif axis == "out" and not isinstance(modules[name], nn.PReLU):  # keeps zeros at zero
            _mask(modules[name], taken)


def _mask(module: nn.Module, positions: Sequence[int]) -> None:
    on_second = (
        isinstance(module, nn.modules.conv._ConvNd) and module.transposed and module.groups == 1
    )
    for key in ("weight", "in_proj_weight", "bias", "in_proj_bias", "running_mean"):
        tensor = getattr(module, key, None)
        if isinstance(tensor, Tensor):
            _zero(tensor, int(on_second and key == "weight"), positions)


def _zero(tensor: Tensor, dim: int, positions: Sequence[int]) -> None:
    with torch.no_grad():
        tensor.index_fill_(dim, torch.tensor(positions), 0.0)


def randomise(model: nn.Module, inputs: ModelInputs, generator: torch.Generator) -> None:
    """Make every channel of a model matter and differ from its neighbours, in place.

    Freshly made normalisations are the identity, and trained ones may scale a
    branch by nearly zero; either would hide a wrong index, and so would a
    layer that begins as zero. Running statistics become those of the inputs,
    jittered; scales and shifts become random, and so do weights of zeros.

    Args:
        model: The model; its layers keep their weights.
        inputs: What it is called with.
        generator: Where the numbers come from.
    """

    def calibrate(
        module: nn.Module, args: tuple[Tensor, ...], kwargs: Mapping[str, Tensor]
    ) -> None:
        if not isinstance(module.running_mean, Tensor):
            return
        values = next(tensors_of((args, kwargs))).transpose(0, 1).flatten(1)
        deviation, mean = torch.std_mean(values, dim=1, correction=0)
        deviation = deviation.clamp_min(1e-3)
        module.running_mean = mean + 0.25 * deviation * _normal(mean, generator)
        module.running_var = deviation**2 * _uniform(mean, generator)

    hooks = []
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            hooks.append(module.register_forward_pre_hook(calibrate, with_kwargs=True))
        if isinstance(module, LAYER_TYPES):
            _fill_zeros(module, generator)
        else:
            _randomise_scales(module, generator)
    inputs.run_alike(model)
    for hook in hooks:
        hook.remove()


def _fill_zeros(layer: nn.Module, generator: torch.Generator) -> None:
    """Give a layer random weights, in place, if it has nothing but zeros."""
    weight = layer._parameters.get("weight")
    if weight is not None and not weight.any():
        weight.data.copy_(_normal(weight, generator) * (len(weight) / weight.numel()) ** 0.5)


def _randomise_scales(module: nn.Module, generator: torch.Generator) -> None:
    """Make a module's own scales and shifts, one number or one per channel, random in place."""
    for name, parameter in module.named_parameters(recurse=False):
        axes = sum(size != 1 for size in parameter.shape)
        if axes <= 1 and parameter.is_floating_point():
            shift = 0.25 * _normal(parameter, generator)
            parameter.data.copy_(shift if name == "bias" else 1 + shift)


def perturbed(
    inputs: ModelInputs, generator: torch.Generator, *, repeats: int = REPEATS
) -> ModelInputs:
    """Return several variants of the examples, different but plausible.

    Floats get Gaussian noise at their own scale, but infinite ones, as of
    masks that are added, stay; integers are permuted, so that every value
    stays one that the model accepts. So are booleans, but along their last axis
    alone: of a mask, each row still shows as many positions.

    Args:
        inputs: The example inputs.
        generator: Where the numbers come from.
        repeats: Variants of each example.
    """

    def change(tensor: Tensor) -> Tensor:
        if tensor.is_floating_point():
            finite = tensor.isfinite()
            spread = tensor[finite].std(correction=0).item() if finite.any() else 0.0
            noise = (spread or 1.0) * _normal(tensor, generator)
            return tensor + noise.where(finite, 0.0)
        if tensor.dtype == torch.bool and tensor.dim() > 0:
            drawn = torch.rand(tensor.shape, generator=generator)
            return tensor.gather(-1, drawn.argsort(-1).to(tensor.device))
        order = torch.randperm(tensor.numel(), generator=generator)
        return tensor.flatten()[order].reshape(tensor.shape)

    return inputs.repeated(repeats).map(change)


def _parts(group: ChannelGroup, generator: torch.Generator) -> list[tuple[int, ...]]:
    """Divide a group's channels at random, in quarters or, of fewer, one by one."""
    order = torch.randperm(group.channels, generator=generator).tolist()
    return [tuple(sorted(order[n::QUARTERS])) for n in range(min(QUARTERS, len(order)))]


def _normal(like: Tensor, generator: torch.Generator) -> Tensor:
    return torch.randn(like.shape, generator=generator)


def _uniform(like: Tensor, generator: torch.Generator) -> Tensor:
    return 0.5 + torch.rand(like.shape, generator=generator)
