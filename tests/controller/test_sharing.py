from collections.abc import Collection
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from autocompress.controller import sharing
from autocompress.controller.sharing import share_weights, smallest_candidate
from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.core.evaluation import FidelityResult
from autocompress.core.training import TrainingConfig
from autocompress.errors import TrainingError
from autocompress.evaluation.elastic import SharedWeights
from autocompress.space.preset import SearchSpace
from zoo import PlainNet


def _result(accuracy: float) -> FidelityResult:
    return FidelityResult(accuracy=accuracy, images=1, trained_images=0, seconds=0.1)


class Evaluator:
    """Trained accuracies are known; one of the two proxies orders them rightly."""

    def __init__(self, elastic_is_right: bool, diverging: Collection[int] = ()) -> None:
        self.shared: SharedWeights | None = None
        self.elastic_is_right, self.asked, self.trained = elastic_is_right, 0, 0
        self.diverging, self.candidates = diverging, list[Candidate]()

    def compress(self, candidate: object) -> None:
        return None

    def proxy(self, candidate: object) -> FidelityResult:
        number, self.asked = self.asked // 2, self.asked + 1
        right = (self.shared is not None) == self.elastic_is_right
        return _result((number if right else -number) / 10 + 0.5)

    def train(self, candidate: Candidate, **options: Any) -> tuple[None, FidelityResult]:
        assert not options["inherit"]
        assert self.shared is None
        self.trained += 1
        self.candidates.append(candidate)
        if self.trained in self.diverging:
            raise TrainingError("no finite loss") if self.trained == 2 else RuntimeError("memory")
        return None, _result(self.trained / 10)

    def forget(self, slot: int) -> None:
        assert slot < 0


def _run(
    folder: Path,
    elastic: str,
    *,
    right: bool = True,
    diverging: Collection[int] = (),
    distillation: dict[str, Any] | None = None,
) -> Any:
    model = PlainNet().eval()
    asked = SearchSpace.load("cnn").model_dump() | {"distillation": distillation or {}}
    space = SearchSpace.load(asked).bind(model, torch.randn(1, 3, 16, 16))
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
        evaluator=Evaluator(right, diverging),
        ledger=SimpleNamespace(get=values.get, set=values.__setitem__),
        values=values,
        said=said,
        say=lambda _, text: said.append(text),
        note=lambda _, text: (said.append(text), values["notes"].append(text)),
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


def test_the_distillation_keeps_to_the_space(tmp_path: Path) -> None:
    run = _run(tmp_path, "auto", distillation={"kd_weight": {"low": 1.0, "high": 1.0}})
    share_weights(run)
    assert {candidate.distill.kd_weight for candidate in run.evaluator.candidates} == {1.0}
    run = _run(tmp_path / "labels", "auto")
    share_weights(run)
    assert {candidate.distill for candidate in run.evaluator.candidates} == {DistillConfig()}


def test_candidates_whose_training_diverges_are_left_out(tmp_path: Path) -> None:
    run = _run(tmp_path, "auto", diverging=(2, 5))
    share_weights(run)
    assert run.evaluator.trained == 6
    assert run.values["elastic"]["candidates"] == 4
    assert run.evaluator.shared is not None
    assert [text for text in run.said if "left out" in text] == [
        "candidate 2 of 6 is left out: no finite loss",
        "candidate 5 of 6 is left out: RuntimeError: memory",
    ]


def test_too_few_trained_candidates_leave_proxies_plain(tmp_path: Path) -> None:
    run = _run(tmp_path, "auto", diverging=(1, 2, 3, 4))
    share_weights(run)
    assert run.evaluator.shared is None
    assert run.said[-1].endswith("only 2 of 6 candidates could be trained to compare them on")
    assert "only 2 of 6" in run.values["notes"][-1]
    share_weights(run)
    assert run.evaluator.trained == 6


@pytest.mark.parametrize("elastic", ["on", "auto"])
@pytest.mark.parametrize(
    ("error", "said", "ended"),
    [
        (TrainingError("no finite gradients"), "no finite gradients", "diverged"),
        (
            RuntimeError("out of memory"),
            "RuntimeError: out of memory",
            "failed: RuntimeError: out of memory",
        ),
    ],
)
def test_shared_weights_that_fail_are_not_trained_again(
    tmp_path: Path,
    elastic: str,
    error: Exception,
    said: str,
    ended: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    tried = []

    def diverge(*_: Any, **__: Any) -> SharedWeights:
        tried.append(1)
        raise error

    monkeypatch.setattr(sharing, "train_elastic", diverge)
    run = _run(tmp_path, elastic)
    for _ in range(2):
        share_weights(run)
        assert run.evaluator.shared is None
        assert run.said[-1] == (
            f"proxies use the original weights: the training of elastic ones {ended}"
        )
    assert said in run.said
    assert run.values["notes"][-1].startswith("proxies use the original weights")
    assert len(tried) == 1
