"""A whole search on a tiny network: what is on disk, resuming, determinism, refusals."""

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import onnxruntime
import pytest
import torch

import autocompress as ac
from autocompress.controller import finish, run, schedule, start, trials
from autocompress.controller.ledger import Ledger
from autocompress.core.evaluation import FidelityResult
from autocompress.core.files import read_json
from autocompress.errors import InvalidInputError, SearchFailedError, StudyError
from autocompress.evaluation import course
from autocompress.evaluation.evaluator import Evaluator
from zoo import ResidualNet

CLASSES = 4

Finished = tuple[ac.SearchResult, list[ac.Event], dict[str, torch.Tensor]]


def _shorten(patch: pytest.MonkeyPatch) -> None:
    """Train and measure little and export few, so that the whole path stays quick."""
    patch.setattr(schedule, "SHORT_IMAGES", 128)
    patch.setattr(schedule, "FULL_IMAGES", 256)
    patch.setattr(finish, "FINALISTS", 1)
    patch.setattr(finish, "MOST_FINALISTS", 1)
    patch.setattr(finish, "FEWEST_FINALISTS", 1)
    patch.setattr(trials, "EARLY_MEMBERS", 1)
    for module, name in (
        (start, "BASELINE_SECONDS"),
        (start, "PROFILE_SECONDS"),
        (start, "NETWORK_SECONDS"),
        (run, "ADDED_SECONDS"),
        (finish, "LAST_SECONDS"),
    ):
        patch.setattr(module, name, 0.5)


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    _shorten(monkeypatch)


@pytest.fixture(scope="module")
def task() -> ac.Task:
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(0, CLASSES, (192,), generator=generator)
    images = 0.5 * torch.randn(192, 3, 16, 16, generator=generator)
    images[torch.arange(192), 0, 4 * labels, 4 * labels] += 6.0
    batches = [(images[i : i + 32], labels[i : i + 32]) for i in range(0, 192, 32)]
    return ac.Task(train=batches[:3], val=batches[3:5], test=batches[5:])


@pytest.fixture(scope="module")
def model(task: ac.Task) -> torch.nn.Module:
    torch.manual_seed(0)
    net = ResidualNet(width=8, blocks=2)
    optimiser = torch.optim.Adam(net.parameters(), 0.01)
    for _ in range(20):
        for images, labels in task.train:
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(net(images), labels).backward()
            optimiser.step()
    return net.eval()


def _search(
    model: torch.nn.Module, task: ac.Task, folder: Path, **changes: object
) -> ac.SearchResult:
    settings = {"budget": ac.Budget(trials=4), "study_dir": folder, "verbose": False} | changes
    return ac.search(model, task, **settings)  # type: ignore[arg-type]


def _candidates(folder: Path) -> list[str]:
    ledger = Ledger.read(folder / "study.db")
    try:
        return [evaluation.candidate.to_json() for evaluation in ledger.evaluations()]
    finally:
        ledger.close()


@pytest.fixture(scope="module")
def finished(
    model: torch.nn.Module, task: ac.Task, tmp_path_factory: pytest.TempPathFactory
) -> tuple[ac.SearchResult, list[ac.Event], dict[str, torch.Tensor]]:
    before = copy.deepcopy(model.state_dict())
    events: list[ac.Event] = []
    patch = pytest.MonkeyPatch()
    _shorten(patch)
    result = _search(model, task, tmp_path_factory.mktemp("study"), callbacks=(events.append,))
    patch.undo()
    return result, events, before


def test_everything_that_is_promised_is_on_disk(
    finished: Finished,
) -> None:
    result, events, _ = finished
    folder = result.study_dir
    for name in ("config.yaml", "environment.json", "study.db", "profile.json", "trials.csv"):
        assert (folder / name).stat().st_size > 0, name
    assert "<html" in (folder / "report.html").read_text()[:500]
    assert events[-1].stage == "done"
    assert events[-1].trials_done == 4
    document = read_json(folder / "front.json")
    assert document["schema_version"] == 1
    assert document["baseline"]["latency_ms"] > 0.0
    assert len(document["front"]) >= 1
    for entry in document["front"]:
        assert {"val_accuracy", "accuracy", "latency_ms", "latency_ci95_ms", "size_bytes"} <= set(
            entry["measured"]
        )
        path = folder / entry["path"]
        onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for name in ("candidate.json", "weights.packed", "metrics.json"):
            assert (path.parent / name).is_file()
    assert len(result.outlook["curve"]) == 4
    assert result.rounds == []  # too few trials to fit to
    mean, deviation = result.predictor().predict([member.candidate for member in result.front])
    assert ((mean > 0.0) & (mean <= 1.2) & (deviation > 0.0)).all()
    with pytest.raises(ac.InvalidInputError, match="space"):
        ac.open(folder).predictor()
    assert not list(folder.rglob("*.tmp"))


@pytest.mark.slow
def test_a_simulated_target_takes_narrow_activations_in_packed_files(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path
) -> None:
    space = ac.SearchSpace.load(
        {"quantisation": {"weight_bits": [4, 8, 32], "activation_bits": [4, 8, 32]}}
    )
    result = _search(
        model,
        task,
        tmp_path,
        target="bit-serial",
        objectives=("accuracy", "energy_mj", "peak_memory_bytes"),
        constraints={"latency_ms": "90%"},
        space=space,
    )
    profile = ac.profile("bit-serial")
    bound = space.bind(model, torch.zeros(2, 3, 16, 16), ac.Target.named("bit-serial"))
    assert (4, 4) in bound.layer_precisions
    assert result.members
    for member in result.members:
        costs = profile.predict_costs(bound, member.candidate)
        assert {name: member.measured[name] for name in costs} == costs
        assert "simulated" in member.measured["device"]
        assert member.path.name == "weights.packed"
        assert member.path.stat().st_size == member.measured["size_bytes"]
    images = task.val[0][0]
    with torch.inference_mode():
        assert len(result.members[-1].model()(images)) == len(images)


@pytest.mark.slow
def test_a_space_of_several_criteria_queues_a_ranking_of_each(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path
) -> None:
    space = ac.SearchSpace.load({"pruning": {"criteria": ["l1", "taylor"], "round_to": 2}})
    _search(model, task, tmp_path, space=space, budget=ac.Budget(trials=2))
    ledger = Ledger.read(tmp_path / "study.db")
    try:
        designs = ledger.get("designs")
        assert ledger.get("designs_queued") is True
    finally:
        ledger.close()
    by_l1 = {d["params"]["criterion"] for d in designs if d["origin"] == "global l1 pruning"}
    assert by_l1 <= {0}  # the same as uniform pruning, perhaps, and then queued as that
    ranked = [d["params"] for d in designs if d["origin"] == "global taylor pruning"]
    assert {params["criterion"] for params in ranked} == {1}


def test_the_model_of_the_caller_is_untouched(
    model: torch.nn.Module,
    finished: Finished,
) -> None:
    for name, tensor in model.state_dict().items():
        assert torch.equal(tensor, finished[2][name]), name


def test_a_member_rebuilds_as_a_module_that_agrees_with_its_file(
    task: ac.Task, finished: Finished
) -> None:
    images = task.val[0][0]  # type: ignore[index]
    for member in finished[0].front:
        with torch.no_grad():
            module = member.model()(images)
        runtime = ac.RuntimeModule(member.path)(images)
        assert (module.argmax(1) == runtime.argmax(1)).float().mean() >= 0.9


def test_picks_follow_val_and_the_limits(
    finished: Finished,
) -> None:
    result = finished[0]
    every = result.members
    best = result.best(latency_ms=1e9)
    assert best.measured["val_accuracy"] == max(m.measured["val_accuracy"] for m in every)
    with pytest.raises(InvalidInputError, match="nearest"):
        result.best(latency_ms=1e-9)


def test_running_again_adds_nothing_until_there_is_more_budget(
    model: torch.nn.Module,
    task: ac.Task,
    finished: Finished,
) -> None:
    folder = finished[0].study_dir
    before = _candidates(folder)
    members = sorted(path.name for path in (folder / "front").iterdir())
    _search(model, task, folder)
    assert _candidates(folder) == before
    assert sorted(path.name for path in (folder / "front").iterdir()) == members
    ac.resume(folder, model, task, budget=ac.Budget(trials=5), verbose=False)
    assert _candidates(folder)[:4] == before
    assert len(_candidates(folder)) == 5
    assert len([row for row in ac.open(folder).rows() if row["accuracy_2"] is not None]) == 2


def test_another_model_is_refused_and_the_study_kept(task: ac.Task, finished: Finished) -> None:
    folder = finished[0].study_dir
    before = (folder / "front.json").read_bytes()
    with pytest.raises(StudyError, match="weights"):
        _search(ResidualNet(width=8, blocks=2), task, folder)
    assert (folder / "front.json").read_bytes() == before


def test_the_same_seed_gives_the_same_trials_with_a_given_profile(
    model: torch.nn.Module,
    task: ac.Task,
    tmp_path: Path,
    finished: Finished,
) -> None:
    profile = finished[0].study_dir / "profile.json"
    runs = []
    for name in ("a", "b"):
        budget = ac.Budget(trials=5)
        _search(model, task, tmp_path / name, target=profile, budget=budget, seed=3)
        runs.append(_candidates(tmp_path / name))
    assert runs[0] == runs[1]


def test_a_constraint_that_nothing_meets_leaves_the_nearest(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path, finished: Finished
) -> None:
    result = _search(
        model,
        task,
        tmp_path / "x",
        target=finished[0].study_dir / "profile.json",
        constraints={"size_bytes": 10},
        budget=ac.Budget(trials=14),
    )
    assert result.front == []
    nearest = result.nearest_infeasible[0]
    assert nearest.path.is_file()
    assert nearest.measured["origin"] not in ("unmodified", "plain int8")
    sizes = [member.measured["size_bytes"] for member in result.nearest_infeasible]
    assert sizes == sorted(sizes)


def test_a_full_fine_tune_is_in_the_table_and_baselines_have_predictions(
    finished: Finished,
) -> None:
    result = finished[0]
    final = [row for row in result.rows() if row["accuracy_2"] is not None]
    assert final
    members = {member.id: member for member in ac.open(result.study_dir).members}
    for row in final:
        assert row["accuracy_2"] == members[f"{row['slot']:04d}"].measured["val_accuracy"]
    for member in result.front:
        assert {"accuracy", "latency_ms"} <= set(member.predicted), member.id


@pytest.mark.slow
def test_plain_int8_is_measured_beside_a_space_that_does_not_hold_it(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path
) -> None:
    space = ac.SearchSpace.load("cnn").model_dump()
    space["quantisation"] |= {"weight_bits": [32], "activation_bits": [32]}
    result = _search(
        model, task, tmp_path / "x", space=space, budget=ac.Budget(trials=2), constraints={}
    )
    assert result.baseline["int8"]["latency_ms"] > 0.0
    members = result.members
    assert "int8" not in {member.id for member in members}
    assert all(not member.candidate.layers for member in members)


@pytest.mark.slow
def test_a_given_profile_is_kept_when_the_study_is_resumed(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path, finished: Finished
) -> None:
    profile = finished[0].study_dir / "profile.json"
    _search(model, task, tmp_path / "x", target=profile, budget=ac.Budget(trials=2))
    before = (tmp_path / "x" / "profile.json").read_bytes()
    ac.resume(tmp_path / "x", model, task, budget=ac.Budget(trials=3), verbose=False)
    assert (tmp_path / "x" / "profile.json").read_bytes() == before


def test_a_search_with_a_given_profile_can_be_resumed_before_its_first_step(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path, finished: Finished
) -> None:
    def stop(event: ac.Event) -> None:
        raise ac.Stop

    profile, folder = finished[0].study_dir / "profile.json", tmp_path / "x"
    _search(model, task, folder, target=profile, callbacks=(stop,))
    assert (folder / "profile.json").read_bytes() == profile.read_bytes()
    ac.resume(folder, model, task, callbacks=(stop,), verbose=False)


def test_sparsity_is_searched_and_a_schedule_trains_towards_it(
    model: torch.nn.Module,
    task: ac.Task,
    finished: Finished,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stages: list[ac.Candidate] = []
    whole = course.fine_tune

    def noting(student: ac.CompressedModel, *rest: Any, **options: Any) -> int:
        stages.append(student.record.candidate)
        return whole(student, *rest, **options)

    monkeypatch.setattr(course, "fine_tune", noting)
    choose = finish.choose_finalists
    monkeypatch.setattr(  # so that a finalist is trained, whatever it has lost
        finish, "choose_finalists", lambda *args: [replace(f, share=1.0) for f in choose(*args)]
    )
    result = _search(
        model,
        task,
        tmp_path / "x",
        target=finished[0].study_dir / "profile.json",
        objectives=("accuracy", "size_bytes"),
        space={
            "pruning": {"ratios": [0]},
            "blocks": {"drop": False},
            "quantisation": {"weight_bits": [8]},
            "sparsity": {"levels": [0.5], "ties": [["*"]]},
        },
        training=ac.TrainingConfig(schedule="gradual", stages=2),
    )
    sparse = [m for m in result.front if m.candidate.layer("conv1").sparsity == 0.5]
    assert sparse
    levels = [candidate.layer("conv1").sparsity for candidate in stages]
    assert levels == [0.4375, 0.5]
    int8 = read_json(tmp_path / "x" / "front.json")["baseline"]["int8"]
    for member in sparse:
        rebuilt = member.model()
        weight = rebuilt.network.get_submodule("layer1.0.conv1").weight
        assert int((weight != 0).sum()) <= weight.numel() // 2
        assert member.measured["size_bytes"] < 0.9 * int8["size_bytes"]
    before = _candidates(tmp_path / "x")
    ac.resume(tmp_path / "x", model, task, verbose=False)
    assert _candidates(tmp_path / "x") == before


def test_a_trial_that_raises_fails_alone(
    model: torch.nn.Module,
    task: ac.Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: Finished,
) -> None:
    whole = Evaluator.proxy
    raised = []

    def proxy(self: Evaluator, candidate: ac.Candidate) -> FidelityResult:
        if candidate.dropped_blocks and not raised:
            raised.append(candidate)
            raise ZeroDivisionError("a batch of one")
        return whole(self, candidate)

    monkeypatch.setattr(Evaluator, "proxy", proxy)
    profile = finished[0].study_dir / "profile.json"
    result = _search(model, task, tmp_path / "x", target=profile, budget=ac.Budget(trials=8))
    assert raised
    attempts = {row["slot"]: row["attempt"] for row in result.rows()}
    assert sorted(attempts.values())[-1] == 2
    assert len(result.rows()) == 8


def test_failures_in_a_row_stop_the_search_with_the_reason(
    model: torch.nn.Module,
    task: ac.Task,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    finished: Finished,
) -> None:
    def proxy(self: Evaluator, candidate: ac.Candidate) -> FidelityResult:
        raise MemoryError("no room")

    monkeypatch.setattr(Evaluator, "proxy", proxy)
    profile = finished[0].study_dir / "profile.json"
    with pytest.raises(SearchFailedError, match="mostly 'MemoryError: no room'"):
        _search(model, task, tmp_path / "x", target=profile, budget=ac.Budget(trials=8))
    assert (tmp_path / "x" / "trials.csv").read_text().count("MemoryError: no room") >= 2


class _TwoOutputs(torch.nn.Module):
    """Takes two arguments and returns two tensors."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(
        self, picture: torch.Tensor, gain: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = self.inner(picture * gain)
        return logits, logits.mean(1)


def test_a_forward_of_the_task_reaches_the_artifact_too(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path
) -> None:
    def batches(given: object) -> list[dict[str, torch.Tensor]]:
        return [
            {"pixels": images, "scale": torch.ones(len(images), 1, 1, 1), "label": labels}
            for images, labels in given  # type: ignore[attr-defined]
        ]

    wrapped = ac.Task(
        train=batches(task.train),
        val=batches(task.val),
        test=batches(task.test),
        forward=lambda model, batch: model(batch["pixels"], gain=batch["scale"])[0],
    )
    result = _search(_TwoOutputs(model), wrapped, tmp_path / "x", budget=ac.Budget(trials=2))
    assert result.baseline["fp32"]["val_accuracy"] > 0.5
    assert result.front


@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::FutureWarning")
def test_a_search_on_two_workers_ends_with_all_its_trials(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path
) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    workers = ac.Executor(name="ray", workers=2, seconds_per_trial=120.0)
    result = _search(
        model, task, tmp_path, budget=ac.Budget(trials=6), executor=workers, sampler="tpe"
    )
    rows = result.rows()
    assert [row["slot"] for row in rows] == list(range(6))
    assert {row["state"] for row in rows} <= {"complete", "pruned"}
    trained = [row["slot"] for row in rows if row.get("accuracy_1") is not None]
    assert trained
    assert {f"{slot:05d}" for slot in trained} <= {
        path.stem for path in (tmp_path / "checkpoints").glob("*.safetensors")
    }
    assert len(result.members) >= 3
