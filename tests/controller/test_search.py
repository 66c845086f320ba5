"""A whole search on a tiny network: what is on disk, resuming, determinism, refusals."""

import copy
from pathlib import Path

import onnxruntime
import pytest
import torch

import autocompress as ac
from autocompress.controller import finish, schedule, trials
from autocompress.controller.ledger import Ledger
from autocompress.core.files import read_json
from autocompress.errors import InvalidInputError, StudyError
from zoo import ResidualNet

CLASSES = 4

Finished = tuple[ac.SearchResult, list[ac.Event], dict[str, torch.Tensor]]


@pytest.fixture(autouse=True)
def _short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Train little and export few, so that the whole path stays quick."""
    monkeypatch.setattr(schedule, "SHORT_IMAGES", 128)
    monkeypatch.setattr(schedule, "FULL_IMAGES", 256)
    monkeypatch.setattr(finish, "FINALISTS", 1)
    monkeypatch.setattr(trials, "EARLY_MEMBERS", 1)


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
    patch.setattr(schedule, "SHORT_IMAGES", 128)
    patch.setattr(schedule, "FULL_IMAGES", 256)
    patch.setattr(finish, "FINALISTS", 1)
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
    assert not list(folder.rglob("*.tmp"))


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
    every = [*result.front, *result.nearest_infeasible]
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
        budget = ac.Budget(trials=6)
        _search(model, task, tmp_path / name, target=profile, budget=budget, seed=3)
        runs.append(_candidates(tmp_path / name))
    assert runs[0] == runs[1]


def test_a_constraint_that_nothing_meets_leaves_the_nearest(
    model: torch.nn.Module, task: ac.Task, tmp_path: Path
) -> None:
    result = _search(model, task, tmp_path / "x", constraints={"size_bytes": 10})
    assert result.front == []
    assert len(result.nearest_infeasible) >= 2
    assert result.nearest_infeasible[0].path.is_file()
