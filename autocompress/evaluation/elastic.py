"""Weights that candidates of all sizes share, trained so that each works without training."""

import copy
import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from autocompress.core.candidate import Candidate
from autocompress.core.files import write_atomic
from autocompress.core.recipe import RATES, Recipe
from autocompress.errors import TrainingError, explain
from autocompress.evaluation.answers import own_epoch_seed
from autocompress.evaluation.averaging import weights_of
from autocompress.evaluation.batches import size
from autocompress.evaluation.distillation import distillation_loss
from autocompress.evaluation.feed import Feed
from autocompress.evaluation.finetune import begin_steps, seeded
from autocompress.evaluation.optimisation import rate_factor
from autocompress.evaluation.precision import arithmetic
from autocompress.evaluation.task import Task, has_targets
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.surgery import cut_model
from autocompress.transform.weights import WeightLayout

RANDOM = 2
"""Random candidates of each step, beside the largest and the smallest."""

STEP, GRID = "step:", "grid:"
"""What the names of shared steps begin with in a file, and those of shared grids."""


class SharedWeights:
    """The weights of an original, of which candidates use a part.

    A candidate takes the channels that its surgery keeps. Each bit choice has
    one learned step for each output of a layer, and one for each activation tensor.

    Args:
        model: The original; copied.

    Attributes:
        network: The copy.
        steps: Shared steps by layer or tensor, and bits; full size.
        grids: What `CompressedModel.learned_grids` returns, by tensor and bits.
    """

    def __init__(self, model: nn.Module) -> None:
        self.network = copy.deepcopy(model)
        self.steps: dict[str, Tensor] = {}
        self.grids: dict[str, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.network.parameters()).device

    def member(self, student: CompressedModel) -> "Member":
        """Say which of the weights are a student's."""
        indexed = copy.deepcopy(self.network)
        for module in indexed.modules():
            for name, parameter in list(module.named_parameters(recurse=False)):
                numbers = nn.Parameter(_numbered(parameter), requires_grad=False)
                module.register_parameter(name, numbers)
            for name, buffer in list(module.named_buffers(recurse=False)):
                setattr(module, name, _numbered(buffer))
        record = student.record
        cut = cut_model(indexed, record.dropped_blocks, record.cuts, record.branches)
        places = {name: t.long().to(self.device) for name, t in weights_of(cut).items()}
        return Member(self, student, places)

    def inherit(self, student: CompressedModel) -> None:
        """Give a freshly cut student its part of the weights and steps."""
        self.member(student).pull()

    def save(self, path: Path) -> None:
        """Write weights, steps and grids."""
        tensors = weights_of(self.network)
        for start, found in ((STEP, self.steps), (GRID, self.grids)):
            tensors |= {f"{start}{k}": t for k, t in found.items()}
        plain = {k: t.detach().cpu().contiguous().clone() for k, t in tensors.items()}
        write_atomic(path, lambda temporary: save_file(plain, temporary))

    @classmethod
    def load(cls, path: Path, model: nn.Module) -> "SharedWeights":
        """Read what `save` wrote of the same original."""
        shared, tensors = cls(model), load_file(path)
        with torch.no_grad():
            for name, tensor in weights_of(shared.network).items():
                tensor.copy_(tensors.pop(name))
        for name, tensor in tensors.items():
            if name.startswith(STEP):
                shared.steps[name.removeprefix(STEP)] = tensor.to(shared.device)
            else:
                shared.grids[name.removeprefix(GRID)] = tensor
        return shared


class Member:
    """One candidate that uses shared weights.

    Args:
        shared: The weights.
        student: The candidate's model.
        places: For each of its tensors, the positions in the flattened shared one.
    """

    def __init__(
        self, shared: SharedWeights, student: CompressedModel, places: dict[str, Tensor]
    ) -> None:
        self.shared, self.student, self.places = shared, student, places
        self._sites = {f"tensor:{s.points[0]}:{s.bits}": s.name for s, _ in student.sites()}

    def pull(self) -> None:
        """Give the student the present weights, and the steps that are shared."""
        full = weights_of(self.shared.network)
        with torch.no_grad():
            for name, tensor in weights_of(self.student.network).items():
                if name in full:  # a zero in place of a branch is nobody's weight
                    tensor.copy_(full[name].flatten()[self.places[name]].reshape(tensor.shape))
            for layer in self.student.record.sparse:
                weight = self.student.network.get_submodule(layer).get_parameter("weight")
                weight.masked_fill_(~self.student.mask(layer), 0.0)
        steps = self._shared_steps()
        known = {
            own: self.shared.steps[key][rows].reshape(shape)
            for own, (key, rows, shape) in steps.items()
            if key in self.shared.steps
        }
        grids = {
            own: self.shared.grids[key]
            for own, (key, _, _) in steps.items()
            if key in self.shared.grids
        }
        self.student.set_steps(known, grids)

    def push(self) -> None:
        """Add the student's gradients to those of the shared weights and steps."""
        self.student.mask_gradients()
        full = dict(self.shared.network.named_parameters())
        for name, parameter in self.student.network.named_parameters():
            if parameter.grad is not None:
                _add(full[name], self.places[name], parameter.grad)
                parameter.grad = None
        for own, (key, rows, _) in self._shared_steps().items():
            gradient = self.student.steps[own].grad if own in self.student.steps else None
            if gradient is not None:
                _add(self.shared.steps[key], rows, gradient)
                self.student.steps[own].grad = None

    def begin_steps(self, task: Task, seed: int, device: str) -> None:
        """Learn steps of the student's bits, and share those that nobody has shared yet."""
        begin_steps(self.student, task, seed, device)
        grids = self.student.learned_grids()
        for own, (key, rows, _) in self._shared_steps().items():
            if own in self.student.steps and key not in self.shared.steps:
                step = self.student.steps[own].detach().flatten()
                count = 1 if own.startswith("tensor:") else self._outputs(key)
                whole = torch.full((count,), float(step.mean()), device=step.device)
                whole[rows] = step
                self.shared.steps[key] = whole.requires_grad_(True)
                if own in grids:
                    self.shared.grids[key] = grids[own]

    def _shared_steps(self) -> dict[str, tuple[str, Tensor, tuple[int, ...]]]:
        """Return, by the student's name of a step: its shared name, its places, its shape."""
        found: dict[str, tuple[str, Tensor, tuple[int, ...]]] = {}
        record = self.student.record
        first = torch.zeros(1, dtype=torch.long, device=self.shared.device)
        for layer, bits in record.quantised.items():
            module = self.student.network.get_submodule(layer)
            layout = WeightLayout.of(module)
            if record.candidate.layer(layer).group_size or layout.transposed:
                continue  # their scales follow more than the outputs
            key = f"{layer}:{bits}:0".replace(".", "/")
            columns = self.shared.network.get_submodule(layer).get_parameter("weight")[0].numel()
            rows = layout.rows(self.places[f"{layer}.weight"])[:, 0] // columns
            found[key] = (key, rows, (len(rows), 1))
        for own, name in self._sites.items():
            found[own] = (f"{name}:{own.rpartition(':')[2]}", first, ())
        return found

    def _outputs(self, key: str) -> int:
        layer = key.split(":")[0].replace("/", ".")
        return len(self.shared.network.get_submodule(layer).get_parameter("weight"))


@dataclass(frozen=True, kw_only=True, slots=True)
class ElasticConfig:
    """How shared weights are trained.

    Attributes:
        images: Training images to see; each goes through several candidates.
        recipe: How weights are updated; its optimiser is SGD in any case, at
            the default rate of SGD if the recipe is for another one.
        seconds: Wall time after which the schedule is cut short; None for none.
    """

    images: int
    recipe: Recipe
    seconds: float | None = None


def train_elastic(
    model: nn.Module,
    task: Task,
    cut: Callable[[Candidate], CompressedModel],
    smallest: Candidate,
    pool: Sequence[Candidate],
    config: ElasticConfig,
    *,
    seed: int,
    device: str = "cpu",
    on_step: Callable[[float], None] | None = None,
) -> SharedWeights:
    """Train the weights of all candidates at once.

    In each step the largest learns from the labels (or from the original
    as it was, where there are none), and the smallest and two
    random candidates from its present outputs: the sandwich rule with in-place
    distillation (Yu and Huang 2019; Yu et al. 2020). Batch norms see the
    statistics of their batch; a candidate's own are recalibrated before it is used.

    Args:
        model: The original; not changed.
        task: Supplies `train` and the loss.
        cut: Cuts a copy of the original to a candidate.
        smallest: The smallest candidate.
        pool: Where the random ones are drawn from.
        config: Length and recipe.
        seed: Draws batches and candidates; the caller's random state is left alone.
        device: Torch device name.
        on_step: Called with the share done.

    Returns:
        The trained weights.

    Raises:
        TrainingError: If the gradient stops being finite.
    """
    shared, recipe = SharedWeights(model), config.recipe
    peak = recipe.peak if recipe.optimiser == "sgd" else RATES["sgd"]
    members: dict[Candidate, Member] = {}
    rng = np.random.default_rng(seed)
    weights = [p for p in shared.network.parameters() if p.requires_grad]
    velocity: dict[int, Tensor] = {}
    seen, started = 0, time.monotonic()
    with seeded(seed, device):
        for batch in Feed(task.train, device, partial(own_epoch_seed, seed)):
            progress = seen / config.images
            if config.seconds is not None:
                progress = max(progress, (time.monotonic() - started) / config.seconds)
            if progress >= 1.0:
                break
            shared.network.train()
            with arithmetic(device, low_precision=recipe.low_precision):
                outputs = task.run(shared.network, batch)
                if has_targets(batch):
                    loss = task.loss(outputs, batch)
                else:
                    with torch.no_grad():
                        target = task.run(model, batch)
                    loss = distillation_loss(outputs, target, 1.0, task.form(outputs, batch))
            torch.autograd.backward(loss)
            chosen = rng.choice(len(pool), size=min(RANDOM, len(pool)), replace=False)
            for candidate in (smallest, *(pool[index] for index in chosen)):
                if candidate not in members:
                    members[candidate] = shared.member(cut(candidate))
                    members[candidate].pull()
                    members[candidate].begin_steps(task, seed, device)
                member = members[candidate]
                member.pull()
                _train_mode(member.student)
                with arithmetic(device, low_precision=recipe.low_precision):
                    taught = task.run(member.student, batch)
                    form = task.form(taught, batch)
                    loss = distillation_loss(taught, outputs.detach(), 1.0, form)
                torch.autograd.backward(loss)
                member.push()
            rate = peak * rate_factor(recipe, progress)
            _step([*weights, *shared.steps.values()], velocity, recipe, rate)
            seen += size(batch)
            if on_step is not None:
                on_step(min(1.0, max(progress, seen / config.images)))
    shared.network.eval()
    return shared


def _train_mode(student: CompressedModel) -> None:
    student.train()
    student.quantise_weights = any(bits < 8 for bits in student.record.quantised.values())
    student.quantise_activations = False


def _add(whole: Tensor, places: Tensor, gradient: Tensor) -> None:
    """Add a gradient to that of the tensor that it is a part of."""
    if whole.grad is None:
        whole.grad = torch.zeros_like(whole)
    added = torch.zeros(whole.numel(), dtype=whole.dtype, device=whole.device)
    added.index_add_(0, places.flatten(), gradient.flatten().to(added.dtype))
    whole.grad += added.reshape(whole.shape)


def _numbered(tensor: Tensor) -> Tensor:
    """Return the places of a tensor's elements, in its shape."""
    return torch.arange(tensor.numel(), dtype=torch.float64).reshape(tensor.shape)


def _step(
    tensors: Sequence[Tensor], velocity: dict[int, Tensor], recipe: Recipe, rate: float
) -> None:
    """Make a step of SGD with Nesterov momentum; steps of new bits join as they come."""
    learning = [t for t in tensors if t.grad is not None]
    norm = float(nn.utils.clip_grad_norm_(learning, recipe.clip_norm))
    if not math.isfinite(norm):
        raise TrainingError(
            explain(
                "training of elastic weights",
                expected="finite gradients",
                got=f"gradients of norm {norm:g}",
                remedy="lower the learning rate, or check the training data",
            )
        )
    with torch.no_grad():
        for tensor in tensors:
            gradient = tensor.grad
            if gradient is None:
                continue
            if tensor.dim() > 1:
                gradient = gradient + recipe.weight_decay * tensor
            moved = velocity.setdefault(id(tensor), torch.zeros_like(tensor))
            moved.mul_(recipe.momentum).add_(gradient)
            tensor.sub_(rate * (gradient + recipe.momentum * moved))
            tensor.grad = None
