import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch

from autocompress.artifact.packed import write_packed
from autocompress.controller.ledger import Ledger
from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.core.evaluation import MeasuredMember, front_document
from autocompress.core.files import write_json
from autocompress.errors import AutocompressError, InvalidInputError, MissingFileError
from autocompress.graph.tracing import trace
from autocompress.result import SearchResult
from seasoned import compressed, pruned, seasoned

FP32 = {"val_accuracy": 0.90, "accuracy": 0.91, "latency_ms": 1.0, "size_bytes": 1000.0}


def _member(name: str, val: float, test: float, latency: float, size: float) -> MeasuredMember:
    return MeasuredMember(
        id=name,
        candidate=Candidate(),
        predicted={"accuracy": val + 0.01},
        measured={
            "val_accuracy": val,
            "accuracy": test,
            "latency_ms": latency,
            "latency_ci95_ms": [latency - 0.01, latency + 0.01],
            "size_bytes": size,
            "origin": "made up",
        },
        path=f"front/{name}/model.onnx",
    )


FRONT = [
    _member("accurate", 0.89, 0.80, 0.8, 900),
    _member("middle", 0.88, 0.95, 0.5, 700),
    _member("fast", 0.80, 0.99, 0.2, 600),
]
OTHERS = [_member("small", 0.79, 0.70, 0.3, 100), _member("tiny", 0.50, 0.50, 0.1, 50)]


def _study(
    folder: Path,
    front: list[MeasuredMember],
    others: list[MeasuredMember],
    **settings: Any,
) -> Path:
    ledger = Ledger.open(
        folder / "study.db", metric_names=["1 - accuracy", "latency_ms"], identity={}, seed=0
    )
    ledger.set("settings", settings)
    ledger.close()
    document = front_document({**FP32, "int8": {**FP32, "latency_ms": 0.6}}, front)
    write_json(folder / "front.json", {**document, "others": [m.to_json() for m in others]})
    return folder


@pytest.fixture(scope="module")
def result(tmp_path_factory: pytest.TempPathFactory) -> SearchResult:
    return SearchResult(_study(tmp_path_factory.mktemp("result"), FRONT, OTHERS))


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        ({}, "accurate"),
        ({"latency_ms": 0.6}, "middle"),  # by val, though test likes another better
        ({"latency_ms": "50%"}, "middle"),
        ({"latency_ms": 0.49}, "fast"),
        ({"size_bytes": "10%"}, "small"),  # others count as soon as limits are given
        ({"latency_ms": 0.25, "size_bytes": 60}, "tiny"),
        ({"accuracy": 0.88}, "middle"),  # the cheapest at or above
        ({"accuracy_drop": 0.015}, "accurate"),
        ({"accuracy_drop": 0.11}, "fast"),
        ({"accuracy": 0.75, "size_bytes": 500}, "small"),
    ],
)
def test_best_picks_on_val_under_the_limits(
    result: SearchResult, limits: dict[str, Any], expected: str
) -> None:
    assert result.best(**limits).id == expected


def test_limits_that_nobody_meets_name_the_nearest(result: SearchResult) -> None:
    with pytest.raises(
        InvalidInputError, match=r"latency_ms <= 0.05.*'tiny' with latency_ms 0\.\d+"
    ):
        result.best(latency_ms=0.05)
    with pytest.raises(InvalidInputError, match="nearest is 'accurate'"):
        result.best(accuracy=0.95)
    with pytest.raises(InvalidInputError, match="did you mean 'latency_ms'"):
        result.best(latency=1.0)


def test_a_limit_on_what_was_not_measured_is_refused(result: SearchResult) -> None:
    for limit in (3.0, "50%"):
        with pytest.raises(InvalidInputError, match=r"expected one of .*'latency_ms'"):
            result.best(energy_mj=limit)
    with pytest.raises(InvalidInputError):
        result.best(**{"self": 1.0})


def test_without_a_front_best_names_the_nearest_and_does_not_pick_it(tmp_path: Path) -> None:
    result = SearchResult(_study(tmp_path, [], OTHERS, constraints={"accuracy": 0.8}))
    assert result.front == []
    assert [member.id for member in result.nearest_infeasible] == ["small", "tiny"]
    with pytest.raises(InvalidInputError, match="nearest is 'small'"):
        result.best()
    assert result.best(size_bytes=70).id == "tiny"
    with pytest.raises(InvalidInputError, match="got no member yet"):
        SearchResult(_study(tmp_path / "empty", [], [])).best()


def test_the_cheapest_is_by_the_first_cost_of_the_study(tmp_path: Path) -> None:
    objectives = ["accuracy", "size_bytes", "latency_ms"]
    result = SearchResult(_study(tmp_path, FRONT, OTHERS, objectives=objectives))
    assert result.best(accuracy=0.75).id == "small"  # "fast" is faster
    assert result.best(accuracy=0.85).id == "middle"


def test_of_equally_accurate_members_the_cheaper_is_best(tmp_path: Path) -> None:
    twins = [_member("a", 0.9, 0.9, 0.5, 100), _member("b", 0.9, 0.9, 0.4, 200)]
    assert SearchResult(_study(tmp_path, twins, [])).best().id == "b"


def test_infeasible_members_are_told_from_dominated_ones(tmp_path: Path) -> None:
    others = [
        _member("dominated", 0.86, 0.9, 0.7, 800),
        _member("far", 0.40, 0.9, 0.1, 50),
        _member("near", 0.79, 0.7, 0.3, 100),
    ]
    limits = {"accuracy_drop": 0.10, "latency_ms": "90%"}
    result = SearchResult(_study(tmp_path, FRONT, others, constraints=limits))
    assert result.constraints == limits
    assert [member.id for member in result.nearest_infeasible] == ["near", "far"]
    assert [member.id for member in result.members] == [
        *("accurate", "middle", "fast"),
        "dominated",
        *("near", "far"),
    ]
    assert result.best(accuracy=0.85, size_bytes=750).id == "middle"
    assert result.best(size_bytes=60).id == "far"
    page = result.report().read_text(encoding="utf-8")
    assert page.index(">dominated</th>") < page.index(">near</th>") < page.index(">far</th>")


def test_the_report_of_an_empty_front_shows_the_nearest(tmp_path: Path) -> None:
    result = SearchResult(_study(tmp_path, [], OTHERS, constraints={"size_bytes": 10}))
    page = result.report().read_text(encoding="utf-8")
    assert "The front is empty" in page
    assert "size_bytes &lt;= 10" in page
    assert page.index(">tiny</th>") < page.index(">small</th>")


def test_members_tell_predictions_from_measurements(result: SearchResult) -> None:
    member = result.front[0]
    assert member.predicted == {"accuracy": 0.90}
    assert member.measured["val_accuracy"] == 0.89
    assert member.path == result.study_dir / "front" / "accurate" / "model.onnx"
    assert member.packed_path == result.study_dir / "front" / "accurate" / "weights.packed"
    assert result.baseline["fp32"] == FP32
    assert result.baseline["int8"]["latency_ms"] == 0.6
    assert "3 front members" in repr(result)


def test_members_rebuild_their_model(tmp_path: Path) -> None:
    model, inputs = seasoned("Mlp")
    candidate = Candidate(pruning_ratios=pruned(trace(model, inputs), 0.5))
    original = compressed(model, inputs, candidate)
    _study(tmp_path, FRONT, [])
    write_packed(original, tmp_path / "front" / "accurate" / "weights.packed")
    opened = SearchResult(tmp_path)
    with pytest.raises(InvalidInputError, match=r"model\(original\)"):
        opened.best().model()
    with torch.no_grad():
        for rebuilt in (
            opened.best().model(model),
            SearchResult(tmp_path, original=model).best().model(),
        ):
            torch.testing.assert_close(rebuilt(inputs), original(inputs), rtol=0, atol=0)


def test_a_study_without_trials_still_has_tables_and_a_report(result: SearchResult) -> None:
    assert result.rows() == []
    assert len(result.to_dataframe()) == 0
    page = result.report()
    assert page == result.study_dir / "report.html"
    assert "accurate" in page.read_text(encoding="utf-8")
    assert (result.study_dir / "trials.csv").is_file()


def test_the_report_tells_what_the_ledger_keeps_of_the_training(tmp_path: Path) -> None:
    names, identity = ["1 - accuracy", "latency_ms"], {"teachers": "0af1, 77b2"}
    ledger = Ledger.open(tmp_path / "study.db", metric_names=names, identity=identity, seed=0)
    ledger.set("settings", {"training": {"teacher": "assistant"}})
    distill = asdict(DistillConfig(temperature=2.5))
    ledger.set("lessons", [{"kind": "8-bit", "distill": distill, "accuracy": 0.5, "seconds": 1.0}])
    ledger.set("finalist_failures", {"0042": "no space left"})
    ledger.close()
    page = SearchResult(tmp_path).report().read_text(encoding="utf-8")
    for text in ("teacher: assistant, further teachers: 2", "<td>2.5</td>", "no space left"):
        assert text in page


def test_what_is_no_study_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"expected a folder with a study\.db"):
        SearchResult(tmp_path / "none")
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("content", ["", "[]", "{", '{"baseline": {}, "front": [{}]}'])
def test_a_damaged_front_is_refused(tmp_path: Path, content: str) -> None:
    _study(tmp_path, FRONT, [])
    (tmp_path / "front.json").write_text(content, encoding="utf-8")
    with pytest.raises(AutocompressError):
        SearchResult(tmp_path)


def test_a_front_without_its_parts_is_refused(tmp_path: Path) -> None:
    _study(tmp_path, FRONT, [])
    for key in ("baseline", "front"):
        document = front_document(FP32, FRONT)
        del document[key]
        (tmp_path / "front.json").write_text(json.dumps(document), encoding="utf-8")
        with pytest.raises(InvalidInputError, match=f"key '{key}'"):
            SearchResult(tmp_path)


def test_a_result_is_plotted_either_way(result: SearchResult) -> None:
    drawn = result.plot()
    assert {"front, val", "front, test", "original, val"} <= {trace.name for trace in drawn.data}
    pytest.importorskip("matplotlib")
    axes = result.plot("size_bytes", backend="matplotlib").axes[0]
    assert axes.get_xlabel() == "size (kB)"
    labels = {text.get_text() for text in axes.get_legend().get_texts()}
    assert {"front, val", "front, test", "baselines, val"} <= labels


def test_what_cannot_be_plotted_is_refused(result: SearchResult) -> None:
    with pytest.raises(InvalidInputError, match="did you mean 'latency_ms'"):
        result.plot("latency")
    with pytest.raises(InvalidInputError, match="'matplotlib'"):
        result.plot(backend="ascii")  # type: ignore[arg-type]


def test_results_and_members_show_themselves_briefly(result: SearchResult) -> None:
    assert repr(result.front[0]) == "FrontMember('accurate': val 89.00 %, 0.8 ms, nothing)"
    assert "3 front members" in repr(result)
    assert "<td>accurate</td>" in result._repr_html_()
