import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from autocompress.errors import InvalidInputError
from autocompress.graph.tracing import trace
from autocompress.transform.criteria import Evidence, gather_evidence
from autocompress.transform.criteria.evidence import ENTRIES, ENTRIES_PER_EXAMPLE
from subjects import loss, mixed, observed, run


def test_what_is_observed_has_a_value_per_channel() -> None:
    _, _, _, evidence = observed()
    assert {name: tuple(v.shape) for name, v in evidence.saliency.items()} == {
        "up": (2, 6),
        "fc": (2, 320),
    }
    assert {name: tuple(v.shape) for name, v in evidence.curvature.items()} == {
        "up": (6,),
        "fc": (320,),
    }
    assert {name: tuple(v.shape) for name, v in evidence.zeros.items()} == {
        "up": (6,),
        "fc": (320,),
    }
    assert evidence.contributions["up"].shape == (2 * 3 * ENTRIES_PER_EXAMPLE, 6)
    assert evidence.contributions["fc"].shape == (2 * 3 * ENTRIES_PER_EXAMPLE, 320)


def test_contributions_are_parts_of_entries_of_the_output() -> None:
    model, graph, batches = mixed()
    evidence = gather_evidence(model, graph, batches[:1], run)
    seen: list[Tensor] = []
    hook = model.up.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    with torch.no_grad():
        run(model, batches[0])
    hook.remove()
    inputs = seen[0]
    parts = []  # channel by channel, the output that it alone gives
    for channel in range(6):
        alone = torch.zeros_like(inputs)
        alone[:, channel] = inputs[:, channel]
        with torch.no_grad():
            parts.append((model.up(alone) - model.up.bias.reshape(1, -1, 1, 1)).flatten(1))
    table = torch.stack(parts, dim=2)  # examples x entries x channels
    for number, row in enumerate(evidence.contributions["up"]):
        differences = (table[number % 3] - row).abs().amax(dim=1)
        assert differences.min() < 1e-5 * table.abs().max()


def test_entries_are_limited_and_seeded() -> None:
    model, graph, _ = mixed()
    batch = (torch.randn(ENTRIES + 7, 3, 6, 6), torch.zeros(ENTRIES + 7, dtype=torch.long))
    first = gather_evidence(model, graph, [batch], run, seed=1).contributions["up"]
    again = gather_evidence(model, graph, [batch], run, seed=1).contributions["up"]
    other = gather_evidence(model, graph, [batch], run, seed=2).contributions["up"]
    assert first.shape == (ENTRIES, 6)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


def test_without_a_loss_there_is_nothing_of_labels() -> None:
    model, graph, batches = mixed()
    evidence = gather_evidence(model, graph, batches, run)
    assert not evidence.saliency
    assert not evidence.curvature
    assert evidence.zeros
    assert Evidence().saliency == {}


@pytest.mark.parametrize("training", [False, True])
def test_the_model_is_left_alone(training: bool) -> None:
    model, graph, batches = mixed()
    model.train(training).requires_grad_(False)
    before, random_state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    gather_evidence(model, graph, batches, run, loss)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not any(parameter.requires_grad for parameter in model.parameters())
    assert not any(m._forward_pre_hooks or m._forward_hooks for m in model.modules())
    assert model.training == training
    assert torch.equal(torch.get_rng_state(), random_state)


class _Tokens(nn.Module):
    """Linear layers on sequences, called by keyword; input `n x t x 4`."""

    def __init__(self) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(input=functional.relu(self.up(x))).mean(dim=1)


def test_layers_on_sequences_are_observed_along_their_last_axis() -> None:
    model, inputs = _Tokens().eval(), torch.randn(5, 3, 4)
    evidence = gather_evidence(
        model, trace(model, inputs), [inputs], lambda module, batch: module(batch)
    )
    with torch.no_grad():
        read = functional.relu(model.up(inputs))
    expected = (read == 0).double().mean(dim=(0, 1))
    torch.testing.assert_close(evidence.zeros["down"], expected)
    assert evidence.contributions["down"].shape == (5 * ENTRIES_PER_EXAMPLE, 6)


def test_no_batches_and_bad_gradients_are_refused() -> None:
    model, graph, batches = mixed()
    with pytest.raises(InvalidInputError, match="at least one batch, got none"):
        gather_evidence(model, graph, [], run)
    with pytest.raises(InvalidInputError, match=r"gradient of '.*': expected finite values"):
        gather_evidence(model, graph, batches, run, lambda outputs, _: outputs.sum() * torch.inf)
