"""The page in a real browser: it loads quietly, and what is clicked and moved takes effect."""

import dataclasses
import itertools
from collections.abc import Iterator
from pathlib import Path

import pytest

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.evaluation import MeasuredMember, baselines
from autocompress.report.page import StudyContents, render_report
from browser import CHROMIUM, Browser

pytestmark = pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")

BITS8 = LayerConfig(weight_bits=8, activation_bits=8)


def member(name: str, accuracy: float, latency: float, candidate: Candidate) -> MeasuredMember:
    measured = {
        "val_accuracy": accuracy,
        "val_images": 1000,
        "accuracy": accuracy - 0.01,
        "latency_ms": latency,
        "latency_ci95_ms": [0.98 * latency, 1.02 * latency],
        "size_bytes": int(1e4 * latency),
    }
    predicted = {"accuracy": accuracy, "latency_ms": latency}
    return MeasuredMember(
        id=name, candidate=candidate, predicted=predicted, measured=measured, path="model.onnx"
    )


STUDY = StudyContents(
    baseline=baselines({"val_accuracy": 0.9, "accuracy": 0.9, "latency_ms": 2.0}),
    front=[
        member("0001", 0.9, 1.0, Candidate(layers={"conv1": BITS8, "block.conv": BITS8})),
        member("0002", 0.8, 0.5, Candidate(dropped_blocks=("block",), layers={"conv1": BITS8})),
    ],
    dominated=[member("0003", 0.79, 0.6, Candidate(pruning_ratios={"conv1": 0.5}))],
    infeasible=[member("0004", 0.6, 0.2, Candidate(pruning_ratios={"conv1": 0.75}))],
    constraints="accuracy_drop <= 0.15",
    continued_by="autocompress resume runs/a study",
    rows=[],
    environment={"torch": "2.13.0"},
    notes=[],
    objectives=["accuracy", "latency_ms", "size_bytes"],
    study_dir="runs/a study",
    structure={
        "layers": [{"name": "conv1"}, {"name": "block.conv"}],
        "groups": [{"name": "conv1", "outputs": {"conv1": 1.0}}],
    },
    sensitivities=[{"kind": "drop", "part": "block", "choice": "dropped", "divergence": 0.1}],
)

POINT = """(() => {
  const plot = document.querySelector("[data-cost=latency_ms] .js-plotly-plot");
  plot.scrollIntoView({block: "center"});
  const points = plot.data.find((trace) => trace.name === "front, val");
  const number = points.text.indexOf("0002");
  const {xaxis, yaxis} = plot._fullLayout, box = plot.getBoundingClientRect();
  return [box.x + xaxis._offset + xaxis.d2p(points.x[number]),
          box.y + yaxis._offset + yaxis.d2p(points.y[number])];
})()"""


HOVERED = """document.querySelector("[data-cost=latency_ms] .js-plotly-plot")
  ._hoverdata?.some((point) => point.text === "0002")"""


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with Browser(tmp_path_factory.mktemp("chromium")) as browser:
        yield browser


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "report.html"
    path.write_text(render_report(STUDY), encoding="utf-8")
    return path


def layers(browser: Browser) -> list[list[float | None]]:
    found: list[list[float | None]] = browser.run(
        "document.getElementById('layers').data.map((trace) => trace.y)"
    )
    return found


def move(browser: Browser, name: str, position: int) -> None:
    browser.run(
        f"(slider => {{ slider.value = {position}; slider.dispatchEvent(new Event('input')); }})"
        f"(document.getElementById('limit-{name}'))"
    )


def test_the_page_loads_without_complaint_and_shows_the_most_accurate(
    browser: Browser, page: Path
) -> None:
    browser.open(page)
    assert browser.complaints == []
    assert browser.run("document.body.dataset.member") == "0001"
    assert layers(browser) == [[100, 100], [8, 8], [8, 8]]


def test_a_click_on_a_point_changes_the_layers(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.click(POINT, ready=HOVERED, done="document.body.dataset.member === '0002'")
    assert layers(browser) == [[100, 0], [8, None], [8, None]]
    shown = browser.run("document.getElementById('commands').textContent")
    assert shown.startswith("autocompress export 'runs/a study' 0002 --out 0002")
    assert browser.run("document.querySelector('tr.chosen').dataset.member") == "0002"


def test_limits_pick_as_best_does(browser: Browser, page: Path) -> None:
    browser.open(page)
    picked: dict[str, str] = {}
    for position in range(5):
        move(browser, "latency_ms", position)
        picked[f"latency {position}"] = browser.run("document.body.dataset.pick")
    assert list(picked.values()) == ["0004", "0002", "0002", "0001", "0001"]
    move(browser, "accuracy", 2)
    assert browser.run("document.body.dataset.pick") == "0002", "the cheapest at or above 79 %"
    assert "best(accuracy=0.79)" in browser.run("document.getElementById('commands').textContent")
    move(browser, "latency_ms", 0)
    assert browser.run("document.body.dataset.pick") == ""
    assert "No member" in browser.run("document.getElementById('rule').textContent")


@pytest.mark.parametrize("width", [1280, 390])
def test_nothing_is_wider_than_the_window(browser: Browser, page: Path, width: int) -> None:
    browser.open(page, width=width, dark=width == 390)
    assert browser.run("document.documentElement.scrollWidth") == width
    assert browser.complaints == []


def test_a_page_without_members_has_nothing_to_explore(browser: Browser, tmp_path: Path) -> None:
    empty = dataclasses.replace(STUDY, front=[], dominated=[], infeasible=[], baseline={})
    path = tmp_path / "empty.html"
    path.write_text(render_report(empty), encoding="utf-8")
    browser.open(path)
    assert browser.complaints == []
    assert browser.run("document.getElementById('sliders')") is None


def test_where_nothing_is_feasible_the_nearest_is_shown(browser: Browser, tmp_path: Path) -> None:
    path = tmp_path / "infeasible.html"
    nothing = dataclasses.replace(STUDY, front=[], dominated=[])
    path.write_text(render_report(nothing), encoding="utf-8")
    browser.open(path)
    assert browser.complaints == []
    assert browser.run("document.body.dataset.member") == "0004"
    assert browser.run("document.body.dataset.pick") == ""
    assert "comes nearest" in browser.run("document.getElementById('rule').textContent")


def test_names_of_many_layers_do_not_overlap(browser: Browser, tmp_path: Path) -> None:
    names = [f"stage{number // 20}.{number}.conv" for number in range(60)]
    structure = {"layers": [{"name": name} for name in names], "groups": []}
    path = tmp_path / "deep.html"
    path.write_text(render_report(dataclasses.replace(STUDY, structure=structure)), "utf-8")
    shown = {}
    for width in (1280, 390):
        browser.open(path, width=width)
        places = browser.run(
            "[...document.querySelectorAll('#layers .xtick text')]"
            ".map((name) => name.getBoundingClientRect().right)"
        )
        assert min(b - a for a, b in itertools.pairwise(sorted(places))) >= 10
        shown[width] = len(places)
    assert shown[1280] == 60 > shown[390] > 5


def test_plots_are_scaled_to_their_cards_on_paper(browser: Browser, page: Path) -> None:
    browser.open(page)
    browser.call("Emulation.setEmulatedMedia", media="print")
    beyond = browser.run(
        """(() => {
          document.body.style.width = "718px";  // as paper does it: no window is resized
          return [...document.querySelectorAll(".js-plotly-plot")].map((plot) => {
            const [image, card] = [plot.querySelector(".main-svg"), plot.closest(".plot")]
              .map((part) => part.getBoundingClientRect());
            return [image.right - card.right, image.bottom - card.bottom, card.width];
          });
        })()"""
    )
    browser.call("Emulation.setEmulatedMedia", media="")
    assert len(beyond) > 4
    assert max(max(right, below) for right, below, _ in beyond) <= 0.0
    assert min(width for *_, width in beyond) < 360, "two columns"
