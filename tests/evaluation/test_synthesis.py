import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.errors import InvalidInputError
from autocompress.evaluation.finetune import FineTuneConfig, fine_tune
from autocompress.evaluation.proxy import score
from autocompress.evaluation.synthesis import synthesise
from autocompress.evaluation.task import Task, has_targets
from autocompress.graph.tracing import trace
from blobs import batches
from seasoned import compressed, pruned

FEATURES = 12


def _model() -> nn.Module:
    """Train a small network with batch norms on points around class centres."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(FEATURES, 32),
            nn.BatchNorm1d(32),
            nn.ReLU(),
            nn.Linear(32, 16),
            nn.BatchNorm1d(16),
            nn.ReLU(),
            nn.Linear(16, 4),
        )
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(10):
        for points, labels in batches(8, 64, seed=0):
            optimiser.zero_grad()
            torch.autograd.backward(nn.functional.cross_entropy(model(points), labels))
            optimiser.step()
    return model.eval()


def _distance(model: nn.Module, inputs: torch.Tensor) -> float:
    """Return how far the first norm's input is from its statistics."""
    seen = model[0](inputs).detach()
    norm = model[1]
    return float((seen.mean(0) - norm.running_mean).abs().mean()) + float(
        (seen.std(0) - norm.running_var.sqrt()).abs().mean()
    )


def test_made_inputs_have_the_statistics_of_the_data() -> None:
    model = _model()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = torch.get_rng_state()
    made = synthesise(model, torch.zeros(2, FEATURES), images=150, steps=60)
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(t, before[name]) for name, t in model.state_dict().items())
    assert [len(x) for (x,) in made] == [64, 64, 22]
    assert not any(map(has_targets, made))
    found = torch.cat([x for (x,) in made])
    real = torch.cat([x for x, _ in batches(3, 64, seed=0)])
    noise = torch.randn(150, FEATURES)
    assert _distance(model, found) < 0.5 * _distance(model, noise)
    assert _distance(model, found) < _distance(model, real) + 0.2
    again = synthesise(model, torch.zeros(2, FEATURES), images=150, steps=60)
    assert all(torch.equal(a, b) for (a,), (b,) in zip(made, again, strict=True))


def test_a_student_learns_from_made_inputs() -> None:
    model = _model()
    made = synthesise(model, torch.zeros(2, FEATURES), images=256, steps=60)
    task = Task(train=made, val=batches(4, 64, seed=1))
    inputs = made[0][0]
    candidate = Candidate(pruning_ratios=pruned(trace(model, inputs), 0.7))
    student = compressed(model, inputs, candidate)
    before = score(student, task, task.val)
    fine_tune(
        student, model, task, DistillConfig(kd_weight=1.0), FineTuneConfig(images=4096), seed=0
    )
    assert score(student, task, task.val) > before


@pytest.mark.parametrize(
    ("model", "inputs", "message"),
    [
        (nn.Linear(3, 2), torch.zeros(2, 3), "batch norms"),
        (nn.Embedding(5, 2), torch.zeros(2, 3, dtype=torch.long), "floating-point"),
    ],
)
def test_what_cannot_be_made_is_refused(
    model: nn.Module, inputs: torch.Tensor, message: str
) -> None:
    with pytest.raises(InvalidInputError, match=message):
        synthesise(model, inputs)


@pytest.mark.parametrize("values", [{"images": 0}, {"batch_size": 1}, {"steps": 0}])
def test_sizes_are_checked(values: dict[str, int]) -> None:
    with pytest.raises(InvalidInputError, match=next(iter(values))):
        synthesise(_model(), torch.zeros(2, FEATURES), **values)


def test_as_many_are_made_as_are_wanted() -> None:
    made = synthesise(_model(), torch.zeros(2, FEATURES), images=5, batch_size=4, steps=1)
    assert [len(batch[0]) for batch in made] == [4, 1]
