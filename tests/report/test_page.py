import dataclasses
import re
from dataclasses import asdict
from html.parser import HTMLParser
from typing import Any

import pytest

from autocompress.core.candidate import Candidate, DistillConfig, LayerConfig
from autocompress.core.evaluation import MeasuredMember, baselines
from autocompress.report import page as page_module
from autocompress.report.page import StudyContents, render_report, write_markdown

BASELINE = {
    "val_accuracy": 0.9,
    "accuracy": 0.91,
    "latency_ms": 2.0,
    "size_bytes": 9000,
    "int8": {"val_accuracy": 0.89, "accuracy": 0.9, "latency_ms": 1.0, "size_bytes": 3000},
}
MEMBER = MeasuredMember(
    id="0042",
    candidate=Candidate(layers={"conv1": LayerConfig(weight_bits=4, activation_bits=8)}),
    predicted={"accuracy": 0.875, "latency_ms": 0.7},
    measured={
        "val_accuracy": 0.88,
        "accuracy": 0.86,
        "latency_ms": 0.8,
        "latency_ci95_ms": [0.78, 0.81],
        "size_bytes": 2500,
        "onnx_bytes": 4100,
    },
    path="front/0042/model.onnx",
)
ROWS: list[dict[str, Any]] = [
    {
        "state": "complete",
        "origin": "original",
        "accuracy_0": 0.9,
        "accuracy_1": None,
        "predicted_accuracy": 0.9,
        "latency_ms_predicted": 2.0,
        "seconds": 1.25,
        "reason": "",
    },
    {"state": "pruned", "origin": "tpe", "accuracy_0": 0.2, "seconds": 1.0, "reason": "<hopeless>"},
    {"state": "pruned", "origin": "tpe", "seconds": None, "reason": "<hopeless>"},
]


class Page(HTMLParser):
    """Collects the cells of tables by the table's id, and what the page refers to."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tables: dict[str, list[list[str]]] = {}
        self.references: list[str] = []
        self._table = ""
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = dict(attrs)
        self.references += [str(values[key]) for key in ("src", "href") if key in values]
        if tag == "table":
            self._table = str(values["id"])
            self.tables[self._table] = []
        elif tag == "tr":
            self.tables[self._table].append([])
        elif tag in ("td", "th"):
            self._in_cell = True
            self.tables[self._table][-1].append("")

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.tables[self._table][-1][-1] += data.strip()


def contents(**changes: Any) -> StudyContents:
    values: dict[str, Any] = {
        "baseline": baselines(BASELINE),
        "front": [MEMBER],
        "dominated": [],
        "infeasible": [],
        "constraints": "accuracy_drop <= 0.05",
        "continued_by": "autocompress resume runs/digits",
        "rows": ROWS,
        "environment": {"torch": "2.13.0", "processor": "a & b"},
        "notes": ["A seeded half of val became test."],
        "objectives": ["accuracy", "latency_ms", "size_bytes"],
    }
    return StudyContents(**(values | changes))


@pytest.fixture(scope="module")
def html() -> str:
    return render_report(contents())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_the_page_needs_no_other_file_and_no_network(page: Page) -> None:
    assert page.references == []


def test_every_artifact_has_predicted_and_measured_values(page: Page) -> None:
    rows = {row[0]: row[1:] for row in page.tables["front"][2:]}
    assert list(rows) == ["original", "plain int8", "0042"]
    assert rows["original"][0] == "\N{EN DASH}"
    assert rows["0042"] == [
        *("87.50", "88.00", "+0.50", "86.00"),
        *("0.700", "0.800", "+14.3", "0.780\N{EN DASH}0.810", "0.40"),
        *("2.5", "4.1", "W4 A8"),
    ]
    headers = [cell for row in page.tables["front"][:2] for cell in row]
    assert {"error(points)", "error(%)"} <= set(headers)


def test_members_off_the_front_say_why() -> None:
    near = dataclasses.replace(MEMBER, id="0050")
    equal = dataclasses.replace(MEMBER, id="0051")
    page = Page(render_report(contents(infeasible=[near], dominated=[equal])))
    assert [row[0] for row in page.tables["front"][2:]] == ["original", "plain int8", "0042"]
    assert [row[:2] for row in page.tables["not-on-the-front"][2:]] == [
        ["0051", "dominated"],
        ["0050", "infeasible"],
    ]


def test_trials_are_counted_by_origin(page: Page) -> None:
    header, original, tpe = page.tables["trials"]
    assert dict(zip(header, original, strict=True))["proxy only"] == "1"
    assert tpe == ["tpe", "2", "0", "2", "0", "1", "0", "0", "1.0"]


def test_failures_are_listed_with_their_reason(page: Page) -> None:
    assert page.tables["failures"][1:] == [["2", "<hopeless>"]]


def test_finalists_that_failed_stand_apart_from_trials(page: Page) -> None:
    assert "finalist-failures" not in page.tables
    study = contents(rows=[], finalist_failures={"0043": "<full>", "0042": "diverged"})
    html = render_report(study)
    assert Page(html).tables["finalist-failures"][1:] == [["0042", "diverged"], ["0043", "<full>"]]
    assert "No trial failed or was stopped." in html
    assert "| 0042 | diverged |" in write_markdown(study)


def test_distillations_that_were_compared_are_shown(page: Page) -> None:
    assert "distillation" not in page.tables
    lessons = [
        {"kind": "pruned", "distill": asdict(distill), "accuracy": accuracy, "seconds": 1.0}
        for distill, accuracy in ((DistillConfig(), 0.875), (DistillConfig(temperature=2.0), 0.88))
    ]
    study = contents(lessons=lessons)
    heads, first, second = Page(render_report(study)).tables["distillation"]
    assert heads == ["kind", "temperature", "kd_weight", "accuracy on val (%)", "outcome"]
    assert first == ["pruned", "4", "0.9", "87.50", ""]
    assert second == ["pruned", "2", "0.9", "88.00", "finalists take it"]
    assert "| pruned | 2 | 0.9 | 88.00 | finalists take it |" in write_markdown(study)


def test_a_training_that_is_not_the_default_is_one_line_of_the_environment(page: Page) -> None:
    assert "training" not in [row[0] for row in page.tables["environment"]]
    study = contents(training={"teacher": "self", "recipe": {"optimiser": "adamw"}})
    words = "teacher: self, optimiser: adamw"
    assert ["training", words] in Page(render_report(study)).tables["environment"]
    assert f"| training | {words} |" in write_markdown(study)


def test_the_environment_and_the_notes_are_there(page: Page, html: str) -> None:
    assert ["processor", "a & b"] in page.tables["environment"]
    assert "A seeded half of val became test." in html


def test_there_is_a_plot_for_each_cost_and_each_prediction(html: str) -> None:
    assert re.findall("<h3>(.*?)</h3>", html) == [
        "Accuracy against latency",
        "Accuracy against size",
        "Limits",
        'Member <span id="picked-id"></span>',
        'Layers of member <span id="layers-id"></span>',
        "Predicted against measured accuracy",
        "Predicted against measured latency",
    ]
    assert html.count("Plotly.newPlot(") >= 4


def test_the_plots_are_explained_as_far_as_they_show_something(html: str) -> None:
    assert "Grey points are trials as predicted." in html
    assert "Dashed lines" not in html
    half = {"origin": "uniform pruning", "mean_pruning_ratio": 0.5}
    whole = ROWS[0] | {"origin": "unmodified"}
    scaled = render_report(contents(rows=[whole, whole | half]))
    assert "among them uniform designs" in scaled
    assert "Dashed lines are what" in scaled


def test_what_a_study_says_cannot_become_markup() -> None:
    hostile = "<script>alert(1)</script>"
    rows = [ROWS[0] | {"reason": hostile, "origin": hostile}]
    failures = {hostile: hostile}
    study = contents(
        rows=rows, notes=[hostile], environment={hostile: hostile}, finalist_failures=failures
    )
    html = render_report(study)
    assert hostile not in html


def test_an_empty_front_is_said_and_the_nearest_infeasible_are_marked() -> None:
    html = render_report(contents(front=[], infeasible=[MEMBER]))
    page = Page(html)
    assert "The front is empty" in html
    assert "accuracy_drop &lt;= 0.05" in html
    assert [row[0] for row in page.tables["front"][2:]] == ["original", "plain int8"]
    assert page.tables["not-on-the-front"][2][:2] == ["0042", "infeasible"]
    assert "<h2>Baselines</h2>" in html
    assert "<h2>Front</h2>" not in html
    assert "infeasible, val" in html


def test_a_study_without_members_says_how_to_continue() -> None:
    html = render_report(contents(baseline={}, front=[], rows=[], notes=[]))
    assert "No members yet" in html
    assert "<code>autocompress resume runs/digits</code>" in html
    assert "No trial has ended yet." in html
    assert "no member meets" not in html
    assert "front" not in Page(html).tables


def test_the_same_study_gives_the_same_page(html: str) -> None:
    assert render_report(contents()) == html


def test_a_page_of_500_trials_is_below_six_megabytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(page_module, "trial_importances", lambda rows, costs: [])
    rows = [
        ROWS[0]
        | {"slot": n, "predicted_accuracy": 0.9 - n / 7e3, "latency_ms_predicted": 2 / (n + 1)}
        for n in range(500)
    ]
    outlook = {"curve": [n / 501 for n in range(500)], "more": 500, "words": "little"}
    html = render_report(contents(rows=rows, outlook=outlook))
    assert len(html.encode()) < 6_000_000


def test_a_study_in_markdown_has_the_same_members() -> None:
    near = dataclasses.replace(MEMBER, id="0050")
    text = write_markdown(contents(infeasible=[near]))
    assert re.findall(r"^\| (\w[^|]*?) \|", text, re.MULTILINE)[1:4] == [
        *("original", "plain int8", "0042")
    ]
    assert "| 0050 | infeasible |" in text


def test_a_noisy_host_is_said_on_the_page_and_in_markdown() -> None:
    noisy = dataclasses.replace(MEMBER, measured={**MEMBER.measured, "latency_noisy": True})
    study = contents(front=[noisy])
    for text in (render_report(study), write_markdown(study)):
        assert "too noisy for 1 of" in text
    assert "too noisy" not in render_report(contents())
