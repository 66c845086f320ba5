import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.training import TrainingConfig
from autocompress.errors import InvalidInputError
from autocompress.evaluation import course as course_module
from autocompress.evaluation import evaluator as evaluator_module
from autocompress.evaluation.batches import count
from autocompress.evaluation.checkpoints import list_checkpoints
from autocompress.evaluation.evaluator import Evaluator
from autocompress.evaluation.finetune import fine_tune
from autocompress.evaluation.proxy import score
from autocompress.evaluation.splits import make_splits
from autocompress.graph.tracing import trace
from autocompress.transform.criteria import CRITERIA, Evidence, find_criterion, gather_evidence
from blobs import make_task, trained_model
from seasoned import pruned, uniform

CUT = 0.7


def _evaluator(folder: Path, training: TrainingConfig) -> Evaluator:
    task = make_task()
    model = trained_model(task)
    splits = make_splits(task, seed=0)
    graph = trace(model, splits.val[0][0])
    return Evaluator(
        model,
        graph,
        task,
        splits,
        checkpoints=folder / "checkpoints",
        seed=0,
        training=training,
    )


@pytest.fixture
def evaluator(tmp_path: Path) -> Evaluator:
    return _evaluator(tmp_path, TrainingConfig())


def _candidate(evaluator: Evaluator, bits: int = 8) -> Candidate:
    return Candidate(
        pruning_ratios=pruned(evaluator.graph, CUT), layers=uniform(evaluator.graph, bits)
    )


def test_the_proxy_of_the_unmodified_model_is_its_accuracy(evaluator: Evaluator) -> None:
    result = evaluator.proxy(Candidate())
    expected = score(evaluator.model, evaluator.task, evaluator.splits.proxy)
    assert result.accuracy == expected
    assert result.images == 256
    assert result.trained_images == 0
    assert result.seconds > 0
    assert evaluator.deviation(Candidate()) == pytest.approx(0.0, abs=1e-9)


@pytest.mark.parametrize("criterion", sorted(CRITERIA))
def test_every_criterion_prunes_and_data_are_gathered_once(
    evaluator: Evaluator, criterion: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = []

    def gather(*args: Any, **kwargs: Any) -> Evidence:
        calls.append(kwargs["seed"])
        return gather_evidence(*args, **kwargs)

    monkeypatch.setattr(evaluator_module, "gather_evidence", gather)
    candidate = replace(_candidate(evaluator), criterion=criterion)
    accuracies = [evaluator.proxy(candidate).accuracy for _ in range(2)]
    assert accuracies[0] == accuracies[1]
    assert evaluator.deviation(candidate) > 0
    scores = evaluator.scores(criterion)
    assert scores.keys() == candidate.pruning_ratios.keys()
    assert calls == [0] * (find_criterion(criterion).needs != "weights")


@pytest.mark.parametrize("criterion", ["apoz", "thinet"])
def test_criteria_that_read_inputs_need_no_labels(tmp_path: Path, criterion: str) -> None:
    labelled = make_task()
    task = labelled.with_train([(x,) for x, _ in labelled.train])
    model = trained_model(labelled)
    splits = make_splits(task, seed=0)
    graph = trace(model, splits.val[0][0])
    evaluator = Evaluator(model, graph, task, splits, checkpoints=tmp_path, seed=0)
    expected = _evaluator(tmp_path, TrainingConfig()).scores(criterion)
    for group, scores in evaluator.scores(criterion).items():
        assert scores.tolist() == expected[group].tolist()
    with pytest.raises(InvalidInputError, match="labels give a loss"):
        evaluator.scores("taylor")


def test_deviations_can_be_taken_on_fewer_images(evaluator: Evaluator) -> None:
    candidate = _candidate(evaluator, 4)
    whole = evaluator.deviation(candidate)
    evaluator.look_at(48)
    assert evaluator.deviation(Candidate()) == pytest.approx(0.0, abs=1e-9)
    fewer = evaluator.deviation(candidate)
    assert 0.3 * whole < fewer < 3.0 * whole
    assert fewer != whole
    evaluator.look_at(10**6)
    assert evaluator.deviation(candidate) == pytest.approx(whole)


@pytest.mark.parametrize(("seconds", "images"), [(None, 256), (4.0, 256), (2.0, 64)])
def test_scoring_takes_a_part_of_a_trainings_time(
    evaluator: Evaluator, seconds: float | None, images: int
) -> None:
    proxy = evaluator.splits.val[:1]
    evaluator.splits = replace(evaluator.splits, proxy=proxy)
    evaluator.original_seconds = 1.0 / count(evaluator.splits.val)  # one second for all of it
    _, result = evaluator.train(_candidate(evaluator), slot=1, images=64, seconds=seconds)
    assert result.images == images


def test_what_recalibration_alone_does_is_no_deviation(tmp_path: Path) -> None:
    task = make_task()
    splits = make_splits(task, seed=0)
    points = splits.val[0][0]
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Linear(points.shape[1], 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, 4)
        )
    model.train()(torch.cat([batch[0] for batch in splits.recalibration]))  # other statistics
    graph = trace(model.eval(), points)
    evaluator = Evaluator(model, graph, task, splits, checkpoints=tmp_path, seed=0)
    evaluator.look_at(32)
    recalibrated = evaluator._recalibrated(evaluator.compress(Candidate()))
    assert recalibrated > 1e-3
    barely = Candidate(pruning_ratios={"0": 0.01})  # less than a channel: new statistics alone
    assert evaluator.deviation(barely) == pytest.approx(0.0, abs=1e-9)
    assert evaluator.deviation(Candidate(pruning_ratios={"0": 0.5})) > 0.0


def test_predictions_that_are_no_numbers_are_no_small_deviation(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    cut = Candidate(pruning_ratios=pruned(evaluator.graph, CUT))
    assert evaluator.deviation(cut) > 0.0
    monkeypatch.setattr(evaluator, "_recalibrated", lambda _: math.nan)
    assert math.isnan(evaluator.deviation(cut))


def test_grids_are_calibrated_anew_on_other_images(evaluator: Evaluator) -> None:
    model = evaluator.compress(_candidate(evaluator))
    evaluator.settle(model, exact=True)
    assert not evaluator.calibrate_anew(model)  # its 512 training images were all used
    before = [quantiser.scale for _, quantiser in model.sites()]
    batches = tuple(
        (torch.full((512, 12), float(number)), torch.zeros(512, dtype=torch.long))
        for number in range(3)
    )
    evaluator.splits = replace(evaluator.splits, recalibration=batches)
    assert evaluator.calibrate_anew(model)
    assert [quantiser.scale for _, quantiser in model.sites()] != before


def test_deviation_grows_with_compression(evaluator: Evaluator) -> None:
    graph = evaluator.graph
    narrow = [evaluator.deviation(Candidate(layers=uniform(graph, bits))) for bits in (8, 4, 2)]
    assert 0 < narrow[0] < narrow[1] < narrow[2]
    assert evaluator.deviation(Candidate(pruning_ratios=pruned(graph, CUT))) > narrow[0]


def test_training_resumes_from_the_checkpoint_of_a_relative(evaluator: Evaluator) -> None:
    proxy = evaluator.proxy(_candidate(evaluator))
    model, first = evaluator.train(_candidate(evaluator), slot=4, images=512)
    assert first.trained_images == 512
    assert first.images == 256
    assert first.accuracy > proxy.accuracy
    assert model.calibrated
    assert [c.path.name for c in list_checkpoints(evaluator.checkpoints)] == ["00004.safetensors"]
    again, settled = evaluator.train(_candidate(evaluator), slot=4, images=0)
    assert settled.trained_images == 512
    assert settled.accuracy == first.accuracy
    for name, tensor in again.network.state_dict().items():
        assert torch.equal(tensor, model.network.state_dict()[name]), name
    _, relative = evaluator.train(_candidate(evaluator, bits=4), slot=5, images=128)
    assert relative.trained_images == 640
    _, alone = evaluator.train(_candidate(evaluator, bits=4), slot=6, images=0, inherit=False)
    assert alone.trained_images == 0
    _, own = evaluator.train(_candidate(evaluator), slot=4, images=0, inherit=False)
    assert own.trained_images == 512


def test_nothing_is_saved_of_what_was_not_trained(evaluator: Evaluator) -> None:
    _, result = evaluator.train(_candidate(evaluator), slot=0, images=0)
    assert result.trained_images == 0
    assert list_checkpoints(evaluator.checkpoints) == []


GRADUAL = TrainingConfig(schedule="gradual", stages=3, norm_l1=1e-3, group_lasso=1e-3)


@pytest.fixture
def stages(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, object]]:
    """Note the width, sparsity and settings of every fine-tune."""
    noted: list[dict[str, object]] = []

    def noting(student, teacher, task, distill, config, **options):  # type: ignore[no-untyped-def]
        seen = fine_tune(student, teacher, task, distill, config, **options)
        noted.append(
            {
                "width": student.network.fc1.out_features,
                "zeros": int((student.network.fc2.weight == 0).sum()),
                "seen": seen,
                "config": config,
                "seed": options["seed"],
                "doomed": {(cut.module, cut.axis): len(cut.removed) for cut in options["doomed"]},
            }
        )
        return seen

    monkeypatch.setattr(course_module, "fine_tune", noting)
    return noted


def test_a_gradual_schedule_trains_ever_smaller_models(
    tmp_path: Path, stages: list[dict[str, object]]
) -> None:
    gradual = _evaluator(tmp_path, GRADUAL)
    candidate = Candidate(
        pruning_ratios={"fc1": 0.75, "fc2": 0.5}, layers={"fc3": LayerConfig(sparsity=0.5)}
    )
    shares: list[float] = []
    model, result = gradual.train(candidate, slot=0, images=1024, fidelity=2, on_step=shares.append)
    cubic = [1 - (1 - step / 3) ** 3 for step in (1, 2, 3)]
    assert [stage["width"] for stage in stages] == [16 - round(12 * share) for share in cubic]
    assert [stage["seen"] for stage in stages] == [256, 256, 512]
    assert result.trained_images == 1024
    assert len({stage["seed"] for stage in stages}) == 3
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert stages[0]["doomed"] == {
        ("fc1", "out"): 12 - round(12 * cubic[0]),
        ("fc2", "in"): 12 - round(12 * cubic[0]),
        ("fc2", "out"): 8 - round(8 * cubic[0]),
        ("fc3", "in"): 8 - round(8 * cubic[0]),
    }
    assert stages[2]["doomed"] == {}
    assert model.record == gradual.compress(candidate).record
    assert int((model.network.fc3.weight == 0).sum()) == model.network.fc3.weight.numel() // 2
    assert result.accuracy > gradual.proxy(candidate).accuracy


def test_a_schedule_waits_for_the_full_fine_tune(
    tmp_path: Path, stages: list[dict[str, object]]
) -> None:
    gradual = _evaluator(tmp_path, GRADUAL)
    _, short = gradual.train(_candidate(gradual), slot=0, images=128)
    assert [stage["width"] for stage in stages] == [16 - round(16 * CUT)]
    _, full = gradual.train(_candidate(gradual), slot=0, images=512, fidelity=2)
    assert len(stages) == 3  # of the schedule's three stages, two round to the same widths
    assert (short.trained_images, full.trained_images) == (128, 512)
    _, settled = gradual.train(_candidate(gradual), slot=0, images=0, fidelity=2)
    assert (settled.trained_images, settled.accuracy) == (512, full.accuracy)
    assert len(stages) == 3


@pytest.mark.parametrize("training", [GRADUAL, TrainingConfig(schedule="iterative", rewind=True)])
def test_schedules_repeat_themselves(tmp_path: Path, training: TrainingConfig) -> None:
    runs = []
    for name in ("a", "b"):
        evaluator = _evaluator(tmp_path / name, training)
        model, _ = evaluator.train(_candidate(evaluator), slot=3, images=512, fidelity=2)
        runs.append(model.network.state_dict())
    assert all(torch.equal(tensor, runs[1][name]) for name, tensor in runs[0].items())


def test_time_is_shared_among_the_stages(tmp_path: Path, stages: list[dict[str, object]]) -> None:
    iterative = _evaluator(tmp_path, TrainingConfig(schedule="iterative", stages=2))
    _, result = iterative.train(
        _candidate(iterative), slot=0, images=10**7, seconds=0.4, fidelity=2
    )
    first, second = (stage["config"].seconds for stage in stages)  # type: ignore[attr-defined]
    assert first == pytest.approx(0.2, abs=0.02)
    assert 0 < second <= 0.4
    assert 0 < result.trained_images < 10**6


def test_the_penalties_shrink_what_will_be_cut(tmp_path: Path) -> None:
    norms = []
    for weight in (1e-9, 0.5):
        training = TrainingConfig(schedule="iterative", stages=2, group_lasso=weight)
        evaluator = _evaluator(tmp_path / str(weight), training)
        seen: list[float] = []

        def noting(student, *rest, doomed, seen=seen, **options):  # type: ignore[no-untyped-def]
            count = fine_tune(student, *rest, doomed=doomed, **options)
            for cut in doomed:
                if cut.module == "fc1":
                    seen.append(
                        float(student.network.fc1.weight[list(cut.removed)].detach().norm())
                    )
            return count

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(course_module, "fine_tune", noting)
            evaluator.train(Candidate(pruning_ratios={"fc1": 0.5}), slot=0, images=2048, fidelity=2)
        norms.append(seen[0])
    assert norms[1] < 0.8 * norms[0]


def test_sparsity_is_counted_by_the_proxy(evaluator: Evaluator) -> None:
    mild, strong = (
        Candidate(layers={name: LayerConfig(sparsity=level) for name in ("fc1", "fc2", "fc3")})
        for level in (0.2, 0.9)
    )
    assert 0 < evaluator.deviation(mild) < evaluator.deviation(strong)
    assert evaluator.proxy(mild).accuracy >= evaluator.proxy(strong).accuracy


def test_short_and_full_trainings_keep_what_teachers_say(evaluator: Evaluator) -> None:
    images = sum(map(len, (x for x, _ in evaluator.task.train)))
    evaluator.answers.views = 1
    for slot, fidelity in ((1, 1), (2, 2)):
        before = evaluator.answers.found
        evaluator.train(
            _candidate(evaluator), slot=slot, images=images, fidelity=fidelity, inherit=False
        )
        assert (evaluator.answers.found > before) is (slot == 2)  # what the first one asked


def test_what_is_trained_in_full_is_known_before_it_is_settled(
    evaluator: Evaluator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: Any, **__: Any) -> None:
        raise KeyboardInterrupt

    candidate = _candidate(evaluator)
    evaluator.fine_tune(candidate, slot=4, images=128)
    assert not evaluator.is_trained(4)
    with monkeypatch.context() as patched:
        patched.setattr(evaluator, "settle", interrupted)
        with pytest.raises(KeyboardInterrupt):
            evaluator.fine_tune(candidate, slot=4, images=128, fidelity=2)
    assert evaluator.is_trained(4)
    assert not evaluator.is_trained(5)
    _, trained = evaluator.fine_tune(candidate, slot=4, images=0, fidelity=2, inherit=False)
    assert trained == 256
    assert evaluator.is_trained(4)
