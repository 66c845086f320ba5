import copy
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.recipe import Recipe
from autocompress.errors import TrainingError
from autocompress.evaluation import finetune
from autocompress.evaluation.distillation import distillation_loss
from autocompress.evaluation.finetune import FineTuneConfig, fine_tune
from autocompress.evaluation.proxy import score, settle
from autocompress.evaluation.snapshot import Snapshots
from autocompress.evaluation.task import Task
from autocompress.graph.tracing import trace
from autocompress.transform.compress import compress_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.record import Cut
from blobs import batches, make_task, trained_model
from seasoned import compressed, pruned, uniform

CONFIG = FineTuneConfig(images=1500)


def _student(teacher: nn.Module, task: Task, bits: int = 32) -> CompressedModel:
    inputs = torch.cat([x for x, _ in task.train])
    graph = trace(teacher, inputs)
    layers = uniform(graph, bits) if bits < 32 else {}
    candidate = Candidate(pruning_ratios=pruned(graph, 0.7), layers=layers)
    return compressed(teacher, inputs, candidate)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0])
def test_the_distillation_loss_is_the_scaled_relative_entropy(temperature: float) -> None:
    student, teacher = torch.randn(7, 5) * 3, torch.randn(7, 5) * 3
    p = softmax(teacher.double().numpy() / temperature, axis=1)
    q = log_softmax(student.double().numpy() / temperature, axis=1)
    expected = temperature**2 * (p * (np.log(p) - q)).sum(axis=1).mean()
    assert float(distillation_loss(student, teacher, temperature)) == pytest.approx(expected)
    assert float(distillation_loss(teacher, teacher, temperature)) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("kd_weight", [0.0, 0.9, 1.0])
def test_training_improves_a_pruned_student(kd_weight: float) -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _student(teacher, task)
    before = score(student, task, task.val)
    shares: list[float] = []
    seen = fine_tune(
        student,
        teacher,
        task,
        DistillConfig(kd_weight=kd_weight),
        FineTuneConfig(images=3000, recipe=Recipe(learning_rate=0.05)),
        seed=0,
        on_step=shares.append,
    )
    assert seen >= 3000 > seen - 64
    assert shares == sorted(shares)
    assert 0 < shares[0] < shares[-1] == 1.0
    assert not student.training
    assert score(teacher, task, task.val) > 0.95
    assert before < 0.8
    assert score(student, task, task.val) > before + 0.1


def test_full_distillation_ignores_the_labels() -> None:
    task = make_task()
    teacher = trained_model(task)
    wrong = Task(train=[(x, (y + 1) % 4) for x, y in task.train], val=task.val)
    states = []
    for data in (task, wrong):
        student = _student(teacher, task)
        fine_tune(student, teacher, data, DistillConfig(kd_weight=1.0), CONFIG, seed=0)
        states.append(student.network.state_dict())
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name])


def test_the_teacher_and_the_random_state_are_left_alone() -> None:
    task = make_task()
    teacher = trained_model(task)
    state = copy.deepcopy(teacher.state_dict())
    random_state = torch.get_rng_state()
    fine_tune(_student(teacher, task), teacher, task, DistillConfig(), CONFIG, seed=0)
    assert torch.equal(torch.get_rng_state(), random_state)
    assert not any(module.training for module in teacher.modules())
    assert all(parameter.grad is None for parameter in teacher.parameters())
    for name, tensor in teacher.state_dict().items():
        assert torch.equal(tensor, state[name]), name


@pytest.mark.parametrize("bits", [32, 4])
def test_a_seed_decides_the_weights_to_the_bit(bits: int) -> None:
    points, labels = batches(1, 512, seed=0)[0]
    loader = DataLoader(TensorDataset(points, labels), batch_size=64, shuffle=True)
    task = Task(train=loader, val=batches(1, 64, seed=1))
    teacher = trained_model(make_task())
    runs = []
    for seed, noise in ((3, 1), (3, 2), (4, 1)):
        student = _student(teacher, make_task(), bits)
        torch.manual_seed(noise)
        fine_tune(student, teacher, task, DistillConfig(), CONFIG, seed=seed)
        runs.append(student.network.state_dict())
    assert all(torch.equal(tensor, runs[1][name]) for name, tensor in runs[0].items())
    assert not all(torch.equal(tensor, runs[2][name]) for name, tensor in runs[0].items())


@pytest.mark.parametrize(("bits", "on"), [(4, True), (8, False)])
def test_narrow_weight_grids_stay_on_while_training(bits: int, on: bool) -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _student(teacher, task, bits)
    seen: list[tuple[bool, bool, bool]] = []
    fine_tune(
        student,
        teacher,
        task,
        DistillConfig(),
        FineTuneConfig(images=100),
        seed=0,
        on_step=lambda _: seen.append(
            (student.quantise_weights, student.quantise_activations, student.training)
        ),
    )
    assert set(seen) == {(on, False, True)}


def test_a_rate_that_diverges_is_an_error() -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _student(teacher, task)
    config = FineTuneConfig(images=10_000, recipe=Recipe(learning_rate=1e12))
    with pytest.raises(TrainingError, match=r"expected a finite loss.*lower the learning rate"):
        fine_tune(student, teacher, task, DistillConfig(kd_weight=0.5), config, seed=0)
    assert not student.training


def test_time_cuts_the_schedule_short() -> None:
    task = make_task()
    teacher = trained_model(task)
    config = FineTuneConfig(images=10**9, seconds=0.2)
    seen = fine_tune(_student(teacher, task), teacher, task, DistillConfig(), config, seed=0)
    assert 0 < seen < 10**7


@pytest.mark.parametrize("bits", [32, 8, 2])
@pytest.mark.parametrize("pattern", ["unstructured", "2:4"])
def test_masked_weights_stay_at_zero(bits: int, pattern: str) -> None:
    task = make_task()
    teacher = trained_model(task)
    config = LayerConfig(
        sparsity=0.5,
        sparsity_pattern=pattern,
        weight_bits=bits,
        activation_bits=8 if bits < 32 else 32,
    )
    inputs = torch.cat([x for x, _ in task.train])
    student = compressed(teacher, inputs, Candidate(layers={"fc1": config, "fc2": config}))
    before = {name: student.network.get_submodule(name).weight.clone() for name in ("fc1", "fc2")}
    fine_tune(student, teacher, task, DistillConfig(), CONFIG, seed=0)
    for name, old in before.items():
        weight, mask = student.network.get_submodule(name).weight, student.mask(name)
        assert int((~mask).sum()) == weight.numel() // 2
        assert not weight[~mask].any()
        assert (weight[mask] != old[mask]).any()


def test_the_rate_runs_through_its_part_of_the_cycle(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    teacher = trained_model(task)
    rates: list[float] = []
    step = torch.optim.SGD.step

    def noting(self: torch.optim.SGD, *args: object, **kwargs: object) -> object:
        rates.append(self.param_groups[0]["lr"])
        return step(self, *args, **kwargs)

    monkeypatch.setattr(torch.optim.SGD, "step", noting)
    whole = FineTuneConfig(images=1024, recipe=Recipe(learning_rate=1.0, clip_norm=1e-6))
    for config in (
        whole,
        replace(whole, images=512, cycle=(0.0, 0.5)),
        replace(whole, images=512, cycle=(0.5, 1.0)),
    ):
        fine_tune(_student(teacher, task), teacher, task, DistillConfig(), config, seed=0)
    assert rates[16:] == pytest.approx(rates[:16])
    assert max(rates) == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("penalty", ["norm_l1", "group_lasso"])
def test_penalties_shrink_doomed_channels(penalty: str) -> None:
    task = make_task()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        teacher = nn.Sequential(
            nn.Linear(12, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)
        ).eval()
    inputs = torch.cat([x for x, _ in task.train])
    doomed = [
        Cut(module="0", axis="out", size=16, removed=(0, 5)),
        Cut(module="1", axis="out", size=16, removed=(0, 5)),
        Cut(module="3", axis="in", size=16, removed=(0, 5)),
    ]
    shrunk = []
    for weight in (0.0, 1.0):
        student = compressed(teacher, inputs, Candidate())
        config = replace(CONFIG, **{penalty: weight})
        fine_tune(student, teacher, task, DistillConfig(), config, seed=0, doomed=doomed)
        network = student.network
        values = network[1].weight if penalty == "norm_l1" else network[0].weight
        shrunk.append(float(values[[0, 5]].detach().norm()))
    assert shrunk[1] < 0.3 * shrunk[0]


def _low_bits(teacher: nn.Module, task: Task, config: LayerConfig) -> CompressedModel:
    inputs = torch.cat([x for x, _ in task.train])
    graph = trace(teacher, inputs)
    candidate = Candidate(layers=dict.fromkeys((layer.name for layer in graph.layers), config))
    return compressed(teacher, inputs, candidate)


def test_learned_steps_are_trained_and_applied() -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _low_bits(teacher, task, LayerConfig(weight_bits=2, activation_bits=3))
    before = score(student, task, task.val)
    config = FineTuneConfig(images=4000, recipe=Recipe(learning_rate=0.05), learned_steps=True)
    student.learn_steps()
    began = {key: step.detach().clone() for key, step in student.steps.items()}
    fine_tune(student, teacher, task, DistillConfig(), config, seed=0)
    assert any(key.startswith("tensor:") for key in began)
    for key, step in student.steps.items():
        assert not torch.equal(step.detach(), began[key]), key
        assert bool((step > 0).all()), key
    for name in student.record.quantised:
        grid = student.quantised_weight(name).grid
        learned = student.steps[f"{name}:2:0".replace(".", "/")].detach()
        torch.testing.assert_close(grid.scales, learned, rtol=0, atol=0)
    for site, quantiser in student.sites():
        if site.bits == 3:
            step = student.steps[f"tensor:{site.points[0]}:3"]
            assert quantiser.scale == pytest.approx(float(step.detach()))
    settle(student, task, task.train, task.train, trained=True)
    after = score(student, task, task.val, low_precision=False)
    assert after > max(before, 0.9)
    student.train()
    inputs = task.val[0][0]
    with torch.no_grad():
        trained = student(inputs)
        student.eval()
        torch.testing.assert_close(student(inputs), trained, rtol=1e-4, atol=1e-4)


def test_activations_are_calibrated_before_their_steps_are_trained() -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _low_bits(teacher, task, LayerConfig(weight_bits=4, activation_bits=4))
    student.reset_grids()
    config = FineTuneConfig(images=64, learned_steps=True)
    fine_tune(student, teacher, task, DistillConfig(), config, seed=0)
    assert student.calibrated
    assert all(q.scale != 1.0 for _, q in student.sites())


def test_without_learned_steps_nothing_is_added() -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _low_bits(teacher, task, LayerConfig(weight_bits=4, activation_bits=4))
    fine_tune(student, teacher, task, DistillConfig(), FineTuneConfig(images=64), seed=0)
    assert not student.steps


class KilledError(Exception):
    """The process has ended."""


RECIPES = {
    "plain": Recipe(),
    "adamw": Recipe(optimiser="adamw", learning_rate=0.01, curve="cosine"),
    "average": Recipe(ema=0.8),
    "accumulated": Recipe(accumulate=3),
    "patient": Recipe(patience=3),
    "float32": Recipe(low_precision=False),
}


@pytest.mark.parametrize("name", [*RECIPES, "features", "steps"])
def test_an_interrupted_training_ends_as_it_would_have(name: str, tmp_path: Path) -> None:
    points, labels = batches(1, 512, seed=0)[0]
    loader = DataLoader(TensorDataset(points, labels), batch_size=64, shuffle=True)
    task, val = Task(train=loader, val=batches(1, 64, seed=1)), batches(1, 64, seed=1)
    teacher = trained_model(make_task())
    recipe = replace(RECIPES.get(name, Recipe()), checkpoint_seconds=1e-3)
    config = FineTuneConfig(images=1500, recipe=recipe, learned_steps=name == "steps")
    distill = DistillConfig()
    if name == "features":
        distill = DistillConfig(method="features", feature_weight=1.0)
    ends = []
    kills = (2, 3) if name == "accumulated" else (5, 13)
    for stops in ((), kills):
        snapshots = Snapshots(tmp_path / "x.training", {"of": name}, recipe.checkpoint_seconds)
        for stop in (*stops, None):
            student = _student(teacher, make_task(), 4 if name == "steps" else 32)
            steps: list[float] = []

            def step(share: float, stop=stop, steps=steps) -> None:  # type: ignore[no-untyped-def]
                time.sleep(0.002)
                steps.append(share)
                if len(steps) == stop:
                    raise KilledError

            options = {"seed": 3, "val": val, "on_step": step, "snapshots": snapshots}
            if stop is not None:
                with pytest.raises(KilledError):
                    fine_tune(student, teacher, task, distill, config, **options)
                torch.manual_seed(stop)
            else:
                seen = fine_tune(student, teacher, task, distill, config, **options)
        ends.append((seen, student.state_dict(), len(steps)))
        snapshots.drop()
    (seen, undisturbed, whole), (resumed_seen, resumed, last) = ends
    assert resumed_seen == seen
    assert last <= whole - sum(kills) + len(kills)
    for key, tensor in undisturbed.items():
        assert torch.equal(tensor.nan_to_num(), resumed[key].nan_to_num()), key


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_improves_a_student_and_repeats_itself(name: str) -> None:
    task = make_task()
    teacher = trained_model(task)
    runs = []
    for _ in range(2):
        student = _student(teacher, task)
        before = score(student, task, task.val)
        config = FineTuneConfig(images=3000, recipe=RECIPES[name])
        seen = fine_tune(
            student, teacher, task, DistillConfig(), config, seed=0, val=tuple(task.val)
        )
        assert seen <= 3008
        assert score(student, task, task.val) > before
        runs.append(student.network.state_dict())
    assert all(torch.equal(tensor, runs[1][key]) for key, tensor in runs[0].items())


def test_accumulated_gradients_are_those_of_larger_batches() -> None:
    task = make_task()
    halves = [half for x, y in task.train for half in zip(x.split(32), y.split(32), strict=True)]
    teacher = trained_model(task)
    runs = []
    for data, accumulate in ((task, 1), (Task(train=halves, val=task.val), 2)):
        student = _student(teacher, task)
        recipe = Recipe(accumulate=accumulate, low_precision=False)
        fine_tune(
            student,
            teacher,
            data,
            DistillConfig(),
            FineTuneConfig(images=512, recipe=recipe),
            seed=0,
        )
        runs.append(student.network.state_dict())
    for key, tensor in runs[0].items():
        torch.testing.assert_close(tensor, runs[1][key], rtol=1e-3, atol=1e-4)


def test_the_last_gradients_are_averaged_over_the_batches_that_are_left() -> None:
    task = make_task()
    teacher = trained_model(task)
    runs = []
    for accumulate in (1, 4):
        student = _student(teacher, task)
        config = FineTuneConfig(images=64, recipe=Recipe(accumulate=accumulate))
        fine_tune(student, teacher, task, DistillConfig(), config, seed=0)
        runs.append(student.network.state_dict())
    assert all(torch.equal(tensor, runs[1][key]) for key, tensor in runs[0].items())


def test_patience_ends_a_training_and_keeps_the_best_weights(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _student(teacher, task)
    found = iter([0.5, 0.7, 0.6, 0.65, 0.9])
    weights = []

    def scored(model: nn.Module, *_: object, **__: object) -> float:
        weights.append(copy.deepcopy(model.state_dict()))
        return next(found)

    monkeypatch.setattr(finetune, "score", scored)
    config = FineTuneConfig(images=20_000, recipe=Recipe(patience=2))
    seen = fine_tune(student, teacher, task, DistillConfig(), config, seed=0, val=tuple(task.val))
    assert len(weights) == 4
    assert 0.2 * 20_000 <= seen < 0.25 * 20_000
    for key, tensor in student.state_dict().items():
        assert torch.equal(tensor, weights[1][key]), key


def test_patience_looks_at_what_a_limit_of_time_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _student(teacher, task)
    clock, weights = [0.0], [copy.deepcopy(student.state_dict())]
    looks: list[float] = []

    def scored(*_: object, **__: object) -> float:
        looks.append(clock[0])
        return clock[0]

    def step(_: float) -> None:
        weights[0] = copy.deepcopy(student.state_dict())
        clock[0] += 0.03

    monkeypatch.setattr(finetune, "time", SimpleNamespace(monotonic=lambda: clock[0]))
    monkeypatch.setattr(finetune, "score", scored)
    config = FineTuneConfig(images=10**9, seconds=1.0, recipe=Recipe(patience=2))
    options = {"seed": 0, "val": tuple(task.val), "on_step": step}
    fine_tune(student, teacher, task, DistillConfig(), config, **options)
    assert looks[-2:] == pytest.approx([0.96, 1.02])
    for key, tensor in student.state_dict().items():
        assert torch.equal(tensor, weights[0][key]), key


def test_the_moving_average_teaches_in_self_distillation() -> None:
    task = make_task()
    teacher = trained_model(task)
    wrong = trained_model(task, seed=5)
    runs = []
    for given in (teacher, wrong):
        student = _student(teacher, task)
        config = FineTuneConfig(images=640, self_taught=True)
        fine_tune(student, given, task, DistillConfig(kd_weight=0.5), config, seed=0)
        runs.append(student.network.state_dict())
    assert all(torch.equal(tensor, runs[1][key]) for key, tensor in runs[0].items())


def test_without_grids_a_narrow_student_is_trained_in_floating_point() -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _student(teacher, task, 2)
    flags: list[bool] = []
    config = FineTuneConfig(images=128, learned_steps=True, quantised=False)
    fine_tune(
        student,
        teacher,
        task,
        DistillConfig(),
        config,
        seed=0,
        on_step=lambda _: flags.append(student.quantise_weights),
    )
    assert set(flags) == {False}
    assert not student.steps


def test_without_grids_steps_that_were_learned_are_forgotten() -> None:
    task = make_task()
    teacher = trained_model(task)
    student = _low_bits(teacher, task, LayerConfig(weight_bits=3, activation_bits=3))
    student.learn_steps()
    plain: list[bool] = []
    floating = FineTuneConfig(images=128, learned_steps=True, quantised=False)
    options = {"seed": 0, "on_step": lambda _: plain.append(student.is_plain)}
    fine_tune(student, teacher, task, DistillConfig(), floating, **options)
    assert set(plain) == {True}
    assert not student.steps
    assert not student.calibrated
    narrow = replace(floating, quantised=True)
    fine_tune(student, teacher, task, DistillConfig(), narrow, seed=0)
    settle(student, task, task.train, task.train, trained=True)
    assert student.calibrated
    assert score(student, task, task.val) > 0.8


@pytest.mark.slow
@pytest.mark.parametrize("method", ["logits", "features", "attention", "relation"])
def test_dict_batches_and_hugging_face_outputs_are_trained(method: str) -> None:
    transformers = pytest.importorskip("transformers")
    settings = transformers.BertConfig(
        vocab_size=20,
        hidden_size=16,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=32,
        num_labels=3,
    )
    teacher = transformers.BertForSequenceClassification(settings).eval()
    ids = torch.randint(0, 20, (64, 6))
    batch = {
        "input_ids": ids,
        "attention_mask": torch.ones_like(ids),
        "labels": ids[:, 0] % 3,
    }
    task = Task(train=[batch], val=[batch])
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    graph = trace(teacher, inputs)
    candidate = Candidate(pruning_ratios=pruned(graph, 0.5))
    student = compress_model(teacher, graph, candidate, ((), inputs))
    before = float(task.loss(task.run(student, batch), batch).detach())
    distill = DistillConfig(
        kd_weight=0.1, method=method, feature_weight=0.0 if method == "logits" else 0.1
    )
    recipe = Recipe(optimiser="adamw", learning_rate=0.01)
    fine_tune(
        student, teacher, task, distill, FineTuneConfig(images=64 * 40, recipe=recipe), seed=0
    )
    assert float(task.loss(task.run(student, batch), batch).detach()) < before


class _Noisy(nn.Module):
    """Multiplies with random numbers in training, before what has grids."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.first = inner, nn.Linear(12, 12)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.first(x)
        if self.training:
            x = x * torch.ones(len(x), 1).bernoulli_(0.9)
        return self.inner(x)


def test_a_network_that_computes_more_in_training_learns_no_steps_of_activations() -> None:
    task = make_task()
    inner = trained_model(task)
    teacher = _Noisy(inner)
    nn.init.eye_(teacher.first.weight)
    nn.init.zeros_(teacher.first.bias)
    config = FineTuneConfig(images=256, learned_steps=True)
    for original, learned in ((inner, True), (teacher.eval(), False)):
        student = _low_bits(original, task, LayerConfig(weight_bits=3, activation_bits=3))
        fine_tune(student, original, task, DistillConfig(), config, seed=0)
        assert any(key.startswith("tensor:") for key in student.steps) is learned
        assert any(not key.startswith("tensor:") for key in student.steps)
