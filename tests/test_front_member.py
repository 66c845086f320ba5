from pathlib import Path
from typing import Any

import pytest
import torch

from autocompress.artifact.packed import write_packed
from autocompress.core.candidate import Candidate
from autocompress.errors import InvalidInputError
from autocompress.front_member import FrontMember
from autocompress.graph.tracing import trace
from seasoned import compressed, pruned, seasoned


def member(folder: Path, measured: dict[str, Any], **changes: Any) -> FrontMember:
    return FrontMember(
        id="0007",
        candidate=Candidate(dropped_blocks=("layer1.1",)),
        predicted={},
        measured=measured,
        path=folder / "model.onnx",
        **changes,
    )


@pytest.mark.parametrize(
    ("measured", "words"),
    [
        ({"val_accuracy": 0.875, "latency_ms": 0.12345}, "val 87.50 %, 0.1235 ms, "),
        ({"val_accuracy": 0.875}, "val 87.50 %, "),
        ({}, ""),
    ],
)
def test_a_member_shows_itself_in_a_line(
    tmp_path: Path, measured: dict[str, Any], words: str
) -> None:
    assert repr(member(tmp_path, measured)) == f"FrontMember('0007': {words}1 block dropped)"


def test_a_member_is_rebuilt_as_it_was_packed(tmp_path: Path) -> None:
    torch.manual_seed(0)
    original, inputs = seasoned("ResidualNet")
    candidate = Candidate(pruning_ratios=pruned(trace(original, inputs), 0.25))
    result = compressed(original, inputs, candidate)
    found = member(tmp_path, {}, original=original)
    write_packed(result, found.packed_path)
    assert found.packed_path == tmp_path / "weights.packed"
    with torch.no_grad():
        assert torch.equal(found.model()(inputs), result(inputs))
        unopened = member(tmp_path, {})
        assert torch.equal(unopened.model(original)(inputs), result(inputs))
    assert "original" not in repr(found)
    assert found == unopened
    with pytest.raises(InvalidInputError, match=r"call model\(original\)"):
        unopened.model()
