from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from autocompress.controller import sharing
from autocompress.controller.sharing import share_weights, smallest_candidate
from autocompress.core.evaluation import FidelityResult
from autocompress.core.training import TrainingConfig
from autocompress.evaluation.elastic import SharedWeights
from autocompress.space.preset import SearchSpace
from zoo import PlainNet


def _result(accuracy: float) -> FidelityResult:
    return FidelityResult(accuracy=accuracy, images=1, trained_images=0, seconds=0.1)


class Evaluator:
    """Trained accuracies are known; one of the two proxies orders them rightly."""

    def __init__(self, elastic_is_right: bool) -> None:
        self.shared: SharedWeights | None = None
        self.elastic_is_right, self.asked, self.trained = elastic_is_right, 0, 0

    def compress(self, candidate: object) -> None:
        return None

    def proxy(self, candidate: object) -> FidelityResult:
        number, self.asked = self.asked // 2, self.asked + 1
        right = (self.shared is not None) == self.elastic_is_right
        return _result((number if right else -number) / 10 + 0.5)

    def train(self, candidate: object, **options: Any) -> tuple[None, FidelityResult]:
        assert not options["inherit"]
        assert self.shared is None
        self.trained += 1
        return None, _result(self.trained / 10)

    def forget(self, slot: int) -> None:
        assert slot < 0


def _run(folder: Path, elastic: str, *, right: bool = True) -> Any:
    import torch

    model = PlainNet().eval()
    space = SearchSpace.load("cnn").bind(model, torch.randn(1, 3, 16, 16))
    values: dict[str, Any] = {"notes": ["first"]}
    said: list[str] = []
    return SimpleNamespace(
        setup=SimpleNamespace(
            training=TrainingConfig(elastic=elastic),
            study_dir=folder,
            model=model,
            space=space,
            seed=0,
            task=None,
            device="cpu",
            epoch_images=10,
        ),
        schedule=SimpleNamespace(total_seconds=None, short_images=5, short_seconds=None),
        evaluator=Evaluator(right),
        ledger=SimpleNamespace(get=values.get, set=values.__setitem__),
        values=values,
        said=said,
        say=lambda _, text: said.append(text),
        watch=lambda *_: None,
    )


@pytest.fixture(autouse=True)
def trainings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count shared trainings, which do nothing here."""
    counted: list[int] = []

    def train(model: Any, *_: Any, **__: Any) -> SharedWeights:
        counted.append(1)
        return SharedWeights(model)

    monkeypatch.setattr(sharing, "train_elastic", train)
    return counted


def test_nothing_is_shared_unless_it_is_wanted(tmp_path: Path, trainings: list[int]) -> None:
    run = _run(tmp_path, "off")
    share_weights(run)
    assert run.evaluator.shared is None
    assert trainings == run.said == []


def test_shared_weights_are_trained_once_in_a_study(tmp_path: Path, trainings: list[int]) -> None:
    run = _run(tmp_path, "on")
    share_weights(run)
    assert run.evaluator.shared is not None
    assert run.evaluator.trained == 0
    run.evaluator.shared = None
    share_weights(run)
    assert run.evaluator.shared is not None
    assert len(trainings) == 1


@pytest.mark.parametrize("right", [True, False])
def test_they_are_used_where_they_rank_better(tmp_path: Path, right: bool) -> None:
    run = _run(tmp_path, "auto", right=right)
    share_weights(run)
    assert (run.evaluator.shared is not None) == right
    decision = run.values["elastic"]
    assert decision["used"] is right
    assert decision["elastic"] == pytest.approx(1.0 if right else -1.0)
    assert decision["plain"] == pytest.approx(-decision["elastic"])
    assert "rank 6 trained candidates with tau 1.00" in run.said[-1]
    assert run.values["notes"][0] == "first"
    assert "tau 1.00" in run.values["notes"][1]


def test_the_smallest_candidate_keeps_its_blocks(tmp_path: Path) -> None:
    run = _run(tmp_path, "off")
    smallest = smallest_candidate(run.setup.space)
    assert smallest.dropped_blocks == ()
    assert set(smallest.weight_bits().values()) == {2}
    assert min(smallest.pruning_ratios.values()) >= 0.5
