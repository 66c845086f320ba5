"""Events as lines of JSON."""

import json
from datetime import datetime
from pathlib import Path

from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult, MeasuredMember
from autocompress.core.events import Event
from autocompress.report.event_log import EventLog, event_record

FOUND = FidelityResult(accuracy=0.75, images=10, trained_images=0, seconds=1.0)
TRIAL = Event(
    stage="trials",
    message="trial 3 (joint)",
    elapsed_s=2.5,
    trials_done=4,
    evaluation=Evaluation(
        slot=3,
        candidate=Candidate(),
        origin="joint",
        fidelities={0: FOUND},
        costs={"latency_ms": 0.5},
        predicted_accuracy=0.8,
    ),
)
MEMBER = Event(
    stage="finalists",
    message="member 0003 is on disk",
    elapsed_s=3.0,
    trials_done=4,
    member=MeasuredMember(
        id="0003",
        candidate=Candidate(),
        predicted={},
        measured={"val_accuracy": 0.7, "origin": "joint"},
        path="front/0003/model.onnx",
    ),
)


def test_an_event_is_a_flat_record_of_what_applies() -> None:
    assert event_record(TRIAL) == {
        "stage": "trials",
        "message": "trial 3 (joint)",
        "elapsed_s": 2.5,
        "trials_done": 4,
        "slot": 3,
        "origin": "joint",
        "latency_ms": 0.5,
        "accuracy_0": 0.75,
        "predicted_accuracy": 0.8,
    }
    assert event_record(MEMBER)["measured_val_accuracy"] == 0.7


def test_a_line_per_event_is_appended_with_the_time(tmp_path: Path) -> None:
    for event in (TRIAL, MEMBER):
        EventLog(tmp_path / "log.jsonl")(event)
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["stage"] for line in lines] == ["trials", "finalists"]
    assert datetime.fromisoformat(lines[0]["time"]).tzinfo is not None
