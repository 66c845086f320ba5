from pathlib import Path

import pytest
import torch

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.recipe import Recipe
from autocompress.errors import TrainingError
from autocompress.evaluation.elastic import ElasticConfig, SharedWeights, train_elastic
from autocompress.evaluation.proxy import score, settle
from autocompress.evaluation.task import Task
from autocompress.graph.tracing import trace
from autocompress.transform.compress import rebuild_model
from autocompress.transform.compressed import CompressedModel
from blobs import make_task, trained_model
from seasoned import compressed, pruned, seasoned, uniform


def _narrow(bits: int, *names: str) -> dict[str, LayerConfig]:
    return {name: LayerConfig(weight_bits=bits, activation_bits=4) for name in names}


@pytest.mark.parametrize("form", [torch.contiguous_format, torch.channels_last])
def test_a_member_has_the_weights_of_its_surgery_and_gives_gradients_back(
    form: torch.memory_format,
) -> None:
    model, inputs = seasoned("ResidualNet", 4)
    model.to(memory_format=form)  # type: ignore[call-overload]
    graph = trace(model, inputs)
    blocks = tuple(block.name for block in graph.blocks if block.droppable)[:1]
    candidate = Candidate(pruning_ratios=pruned(graph, 0.5), dropped_blocks=blocks)
    expected = compressed(model, inputs, candidate)
    student = compressed(model, inputs, candidate)
    shared = SharedWeights(model)
    with torch.no_grad():
        for parameter in student.network.parameters():
            parameter.normal_()
    member = shared.member(student)
    member.pull()
    for name, tensor in expected.network.state_dict().items():
        assert torch.equal(tensor, student.network.state_dict()[name]), name
    torch.autograd.backward(student(inputs).square().sum())
    gradients = {n: p.grad.clone() for n, p in student.network.named_parameters()}
    member.push()
    full = dict(shared.network.named_parameters())
    for name, gradient in gradients.items():
        whole = full[name].grad
        assert whole is not None
        torch.testing.assert_close(
            whole.flatten()[member.places[name].flatten()], gradient.flatten()
        )
        assert int((whole != 0).sum()) <= gradient.numel()


def test_a_dropped_branch_leaves_a_member_that_can_be_pulled() -> None:
    model, inputs = seasoned("BranchNet")
    student = compressed(model, inputs, Candidate(dropped_blocks=("first",)))
    member = SharedWeights(model).member(student)
    member.pull()
    student.train()
    torch.autograd.backward(student(inputs).square().sum())
    member.push()
    full = dict(member.shared.network.named_parameters())
    assert full["fc.weight"].grad is not None
    assert full["first.0.0.weight"].grad is None


def test_each_bit_choice_has_one_shared_step() -> None:
    task = make_task()
    model = trained_model(task)
    inputs = task.train[0][0]  # type: ignore[index]
    shared = SharedWeights(model)

    def member(bits: int, ratio: float) -> CompressedModel:
        candidate = Candidate(
            pruning_ratios={"fc1": ratio} if ratio else {}, layers=_narrow(bits, "fc1", "fc2")
        )
        student = compressed(model, inputs, candidate)
        shared.member(student).begin_steps(task, 0, "cpu")
        return student

    full, half, wider = member(2, 0.0), member(2, 0.5), member(3, 0.0)
    assert {"fc1:2:0", "fc2:2:0", "fc1:3:0", "fc2:3:0"} <= shared.steps.keys()
    with torch.no_grad():
        shared.steps["fc1:2:0"].copy_(torch.arange(16.0) + 1)
    for student in (full, half, wider):
        shared.inherit(student)
    rows = shared.member(half)._shared_steps()["fc1:2:0"][1]
    assert half.steps["fc1:2:0"].flatten().tolist() == (rows + 1.0).tolist()
    assert full.steps["fc1:2:0"].flatten().tolist() == [n + 1.0 for n in range(16)]
    assert float(wider.steps["fc1:3:0"].detach().max()) < 16


def _elastic(task: Task, model: torch.nn.Module, seed: int = 0) -> SharedWeights:
    inputs = torch.cat([x for x, _ in task.train])
    graph = trace(model, inputs)
    pool = [
        Candidate(pruning_ratios=pruned(graph, ratio), layers=uniform(graph, bits))
        for ratio in (0.3, 0.6)
        for bits in (3, 4)
    ]
    smallest = Candidate(pruning_ratios=pruned(graph, 0.7), layers=uniform(graph, 2))
    return train_elastic(
        model,
        task,
        lambda candidate: compressed(model, inputs, candidate),
        smallest,
        pool,
        ElasticConfig(images=2048, recipe=Recipe(learning_rate=0.05)),
        seed=seed,
    )


def test_shared_training_lifts_candidates_and_survives_a_file(tmp_path: Path) -> None:
    task = make_task()
    model = trained_model(task)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    random_state = torch.get_rng_state()
    shared = _elastic(task, model)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert score(shared.network, task, task.val) > 0.9
    shared.save(tmp_path / "elastic.safetensors")
    loaded = SharedWeights.load(tmp_path / "elastic.safetensors", model)
    inputs = torch.cat([x for x, _ in task.train])
    graph = trace(model, inputs)
    candidate = Candidate(pruning_ratios=pruned(graph, 0.7), layers=uniform(graph, 2))
    accuracies = []
    for weights in (None, shared, loaded):
        student = compressed(model, inputs, candidate)
        if weights is not None:
            weights.inherit(student)
        settle(student, task, task.train, task.train, trained=weights is not None)
        accuracies.append(score(student, task, task.val))
    assert accuracies[1] > accuracies[0] + 0.1
    assert accuracies[2] == pytest.approx(accuracies[1])


def test_a_seed_decides_the_shared_weights() -> None:
    task = make_task()
    model = trained_model(task)
    one, same, other = (_elastic(task, model, seed).network.state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(tensor, same[name]) for name, tensor in one.items())
    assert not all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def _gelu() -> tuple[torch.nn.Module, torch.Tensor]:
    model = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.GELU(), torch.nn.Linear(8, 4))
    return model.eval(), torch.randn(64, 12)


def test_zeros_of_activation_grids_are_shared_with_their_steps(tmp_path: Path) -> None:
    model, inputs = _gelu()
    task = Task(train=[(inputs, torch.arange(64) % 4)], val=[(inputs, torch.arange(64) % 4)])
    candidate = Candidate(layers=_narrow(4, "0", "2"))
    shared = SharedWeights(model)
    first = compressed(model, inputs, candidate)
    shared.member(first).begin_steps(task, 0, "cpu")
    shared.save(tmp_path / "elastic.safetensors")
    loaded = SharedWeights.load(tmp_path / "elastic.safetensors", model)
    for weights in (shared, loaded):
        second = rebuild_model(model, first.record)
        weights.inherit(second)
        settle(second, task, task.train, task.train, trained=True)
        assert second.calibrated
        for (_, known), (_, found) in zip(first.sites(), second.sites(), strict=True):
            assert found.zero_point == known.zero_point > 0
        with torch.no_grad():
            torch.testing.assert_close(second(inputs), first(inputs))


def test_steps_lie_where_the_weights_do(tmp_path: Path) -> None:
    model, inputs = _gelu()
    task = Task(train=[(inputs, torch.arange(64) % 4)], val=[(inputs, torch.arange(64) % 4)])
    student = compressed(model, inputs, Candidate(layers=_narrow(4, "0", "2")))
    shared = SharedWeights(model)
    shared.member(student).begin_steps(task, 0, "cpu")
    shared.save(tmp_path / "elastic.safetensors")
    elsewhere = SharedWeights.load(tmp_path / "elastic.safetensors", model.to("meta"))
    assert elsewhere.steps.keys() == shared.steps.keys()
    assert {step.device.type for step in elsewhere.steps.values()} == {"meta"}
    places = elsewhere.member(student)._shared_steps().values()
    assert {rows.device.type for _, rows, _ in places} == {"meta"}


def _trained(recipe: Recipe) -> SharedWeights:
    task = make_task()
    model = trained_model(task)
    inputs = torch.cat([x for x, _ in task.train])
    smallest = Candidate(layers=_narrow(4, "fc1", "fc2"))
    return train_elastic(
        model,
        task,
        lambda candidate: compressed(model, inputs, candidate),
        smallest,
        [smallest],
        ElasticConfig(images=512, recipe=recipe),
        seed=0,
    )


def test_a_recipe_for_another_optimiser_leaves_the_rate_of_sgd() -> None:
    expected = _trained(Recipe()).network.state_dict()
    found = _trained(Recipe(optimiser="adamw", learning_rate=1e-4)).network.state_dict()
    assert all(torch.equal(tensor, expected[name]) for name, tensor in found.items())


def test_a_rate_that_diverges_is_an_error() -> None:
    with pytest.raises(TrainingError, match=r"elastic weights: expected finite gradients.*lower"):
        _trained(Recipe(learning_rate=1e12))
