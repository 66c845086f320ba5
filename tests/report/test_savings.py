import io
import json
from dataclasses import replace

from rich.console import Console

from autocompress.controller.preflight import Preflight, report_on
from autocompress.report.savings import (
    original_accuracy,
    savings_json,
    savings_tables,
    search_time,
)
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph


def _report(search_seconds: float | None = None) -> Preflight:
    return report_on(residual_graph(3, 32), SearchSpace.load("cnn"), search_seconds)


def test_the_table_shows_each_part_and_its_share() -> None:
    console = Console(file=io.StringIO(), width=100, force_terminal=False)
    (table,) = savings_tables(_report())
    console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert "group blocks.0.conv1" in text
    assert "75%" in text
    assert "block blocks.2" in text
    assert "dropped" in text
    assert f"{2 * 9 * 32 * 32 * 64:,}" in text
    assert table.row_count == 5
    nothing = SearchSpace.load({"pruning": {"include": []}, "blocks": {"drop": False}})
    assert savings_tables(report_on(residual_graph(3, 32), nothing)) == []


def test_the_time_is_called_an_estimate() -> None:
    assert "about 60 seconds, an estimate" in search_time(_report(60.0))
    assert "about 30 minutes, an estimate" in search_time(_report(1800.0))
    assert "about 3.0 hours, an estimate" in search_time(_report(10_800.0))
    assert "give a task and a budget" in search_time(_report())


def test_the_accuracy_of_the_original_is_told_with_what_it_was_seen_on() -> None:
    found = replace(_report(), accuracy=0.893, accuracy_images=500)
    assert original_accuracy(found) == ("original: accuracy 89.3 % on 500 examples spread over val")
    assert "give a task" in original_accuracy(_report())
    assert original_accuracy(replace(found, commonest=0.1)) == original_accuracy(found)
    guessed = original_accuracy(replace(found, accuracy=0.11, commonest=0.1))
    assert guessed == (
        "original: accuracy 11.0 % on 500 examples spread over val, hardly more than always "
        "answering the commonest class has: 10.0 %; check its weights"
    )


def test_the_json_says_the_same() -> None:
    record = json.loads(json.dumps(savings_json(_report(60.0))))
    assert record["search_seconds_estimate"] == 60.0
    assert record["savings"][0] == {
        "kind": "group",
        "name": "blocks.0.conv1",
        "pruning_ratio": 0.75,
        "macs": 9 * 32 * 24 * 64,
        "size_bytes": 9 * 32 * 24 + 4 * 24,
    }
    assert record["macs"] == _report().macs
