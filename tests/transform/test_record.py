import json

import pytest

from autocompress.core.candidate import Candidate
from autocompress.errors import AutocompressError, InvalidInputError
from autocompress.graph.tracing import trace
from autocompress.transform.record import Cut, SurgeryRecord
from seasoned import compressed, pruned, seasoned, uniform


def _record() -> SurgeryRecord:
    model, inputs = seasoned("ResidualNet")
    graph = trace(model, inputs)
    candidate = Candidate(
        pruning_ratios=pruned(graph, 0.25),
        dropped_blocks=("layer1.1",),
        layers=uniform(graph, 4),
    )
    return compressed(model, inputs, candidate).record


def test_records_survive_json() -> None:
    record = _record()
    assert record.cuts
    assert record.plan.sites
    assert record.plan.folds
    text = record.to_json()
    assert SurgeryRecord.from_json(text) == record
    assert SurgeryRecord.from_json(text).to_json() == text
    assert json.loads(text)["schema_version"] == 1


def test_kept_positions_are_the_others() -> None:
    assert Cut(module="a", axis="out", size=5, removed=(0, 3)).kept == (1, 2, 4)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}"])
def test_what_is_no_record_is_refused(text: str) -> None:
    with pytest.raises(AutocompressError, match="surgery record"):
        SurgeryRecord.from_json(text)


@pytest.mark.parametrize("change", ["extra", "version", "cut", "site"])
def test_a_record_with_other_keys_is_refused(change: str) -> None:
    record = json.loads(_record().to_json())
    if change == "extra":
        record["more"] = 1
    elif change == "version":
        record["schema_version"] = 2
    elif change == "cut":
        del record["cuts"][0]["size"]
    else:
        record["sites"][0]["depth"] = 1
    with pytest.raises(InvalidInputError):
        SurgeryRecord.from_json(json.dumps(record))
