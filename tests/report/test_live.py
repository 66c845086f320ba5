import io

import pytest
from rich.console import Console

from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult, MeasuredMember
from autocompress.core.events import Event
from autocompress.report.live import BestSoFar, ProgressDisplay, duration

MEMBER = MeasuredMember(
    id="0007",
    candidate=Candidate(),
    predicted={"accuracy": 0.8842, "latency_ms": 0.911},
    measured={
        "val_accuracy": 0.8876,
        "accuracy": 0.8926,
        "latency_ms": 0.806,
        "latency_ci95_ms": [0.801, 0.812],
        "size_bytes": 612_000,
        "onnx_bytes": 59_200,
    },
    path="front/0007/model.onnx",
)


def trial(accuracy: float, latency_ms: float, predicted: float | None = None) -> Evaluation:
    result = FidelityResult(accuracy=accuracy, images=10, trained_images=0, seconds=0.1)
    return Evaluation(
        slot=0,
        candidate=Candidate(),
        origin="tpe",
        fidelities={0: result},
        costs={"latency_ms": latency_ms},
        predicted_accuracy=predicted,
    )


def event(**values: object) -> Event:
    known = {"stage": "trials", "message": "trial 3", "elapsed_s": 75.0}
    return Event(**(known | values))  # type: ignore[arg-type]


def shown(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


def plain_console(width: int = 100) -> Console:
    return Console(file=io.StringIO(), width=width, force_terminal=False)


def test_without_a_terminal_every_event_is_one_plain_line() -> None:
    console = plain_console()
    with ProgressDisplay(console) as display:
        display(event(trials_done=3, trials_total=60, seconds_left=245.0))
        display(event(stage="done", message="x" * 300))
    first, second = shown(console).splitlines()
    assert first == "[1:15] trials: trial 3 | 3/60 trials | 4:05 left"
    assert second == f"[1:15] done: {'x' * 300}"


def test_lines_appear_when_events_do() -> None:
    class Counting(io.StringIO):
        flushes = 0

        def flush(self) -> None:
            self.flushes += 1

    file = Counting()
    ProgressDisplay(Console(file=file, force_terminal=False))(event())
    assert file.flushes >= 1


def test_a_terminal_is_redrawn_and_restored() -> None:
    console = Console(file=io.StringIO(), width=80, force_terminal=True)
    clock = iter([100.0] + [110.0] * 1000)
    with ProgressDisplay(console, clock=lambda: next(clock)) as display:
        display(
            event(trials_done=3, trials_total=60, seconds_left=245.0, evaluation=trial(0.9, 0.5))
        )
    output = shown(console)
    assert "3/60 trials" in output
    assert "elapsed 1:25, 3:55 left" in output
    assert "best so far" in output
    assert any(line.split() == ["predicted", "90.00", "0.5"] for line in output.splitlines())
    assert "baseline" in output
    assert output.rindex("\x1b[?25h") > output.rindex("\x1b[?25l")


def test_text_in_brackets_is_shown_as_it_is() -> None:
    console = plain_console()
    ProgressDisplay(console)(event(message="[bold]module[0]"))
    assert "[bold]module[0]" in shown(console)


def test_best_is_the_fastest_within_a_point_of_the_most_accurate() -> None:
    best = BestSoFar()
    assert best.words() == ""
    for accuracy, latency in [(0.9, 2.0), (0.895, 1.0), (0.885, 0.1)]:
        best.update(event(evaluation=trial(accuracy, latency)))
    assert best.words() == "best 89.5 % at 1 ms (predicted)"


def test_a_predicted_final_accuracy_counts_more_than_the_proxy() -> None:
    best = BestSoFar()
    best.update(event(evaluation=trial(0.5, 1.0, predicted=0.88)))
    assert best.words().startswith("best 88.0 %")


def test_measurements_and_predictions_are_not_mixed() -> None:
    best = BestSoFar()
    best.update(event(evaluation=trial(0.99, 0.01)))
    best.update(event(member=MEMBER))
    assert best.words() == "best 88.8 % at 0.806 ms (measured)"


@pytest.mark.parametrize(
    ("seconds", "words"), [(0.0, "0:00"), (59.6, "1:00"), (600.0, "10:00"), (7322.0, "2:02:02")]
)
def test_durations(seconds: float, words: str) -> None:
    assert duration(seconds) == words


def test_the_table_holds_what_nothing_is_better_than() -> None:
    best = BestSoFar()
    for accuracy, latency in [(0.9, 2.0), (0.8, 1.0), (0.7, 1.5), (0.85, 1.2)]:
        best.update(event(evaluation=trial(accuracy, latency)))
    best.update(event(member=MEMBER))
    console = plain_console()
    console.print(best.table())
    rows = [line.split() for line in shown(console).splitlines()[1:]]
    assert rows == [
        ["measured", "88.76", "0.806"],
        ["predicted", "90.00", "2"],
        ["predicted", "85.00", "1.2"],
        ["predicted", "80.00", "1"],
    ]


def test_the_sparkline_rises_with_the_hypervolume() -> None:
    best = BestSoFar()
    best.update(event(evaluation=trial(0.9, 2.0)))
    assert best.sparkline() == ""
    for accuracy, latency in [(0.5, 3.0), (0.9, 1.0), (0.9, 0.5)]:
        best.update(event(evaluation=trial(accuracy, latency)))
    line = best.sparkline()
    assert len(line) == 4
    assert list(line) == sorted(line)
    assert line[0] == line[1] != line[3]
