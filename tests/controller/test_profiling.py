from pathlib import Path

import pytest
import torch

import autocompress as ac
from autocompress.controller.profiling import make_bundle, make_profile
from autocompress.core.target import Target
from autocompress.graph.inputs import ModelInputs
from autocompress.space.bound import BoundSpace
from zoo import Mlp

CPU = Target.named("onnxruntime-cpu")
EXAMPLES = ModelInputs.of(torch.zeros(2, 16))
SPACE = {"pruning": {"ratios": [0, 0.5]}, "quantisation": {"weight_bits": [8, 32]}}

Told = list[tuple[str, int, int]]


@pytest.fixture(scope="module")
def model() -> Mlp:
    torch.manual_seed(0)
    return Mlp(16, 32, 8).eval()


@pytest.fixture(scope="module")
def space(model: Mlp) -> BoundSpace:
    return ac.SearchSpace.load(SPACE).bind(model, EXAMPLES, CPU)


def test_networks_are_timed_after_the_kernels_of_a_model(model: Mlp, space: BoundSpace) -> None:
    told: Told = []

    def tell(what: str, done: int, of: int) -> None:
        told.append((what, done, of))

    found = make_profile(
        CPU, space, seconds=0.2, networks=2, model=model, examples=EXAMPLES, on_progress=tell
    )
    assert list(dict.fromkeys(what for what, _, _ in told)) == ["kernels", "networks"]
    assert told[-1] == ("networks", 2, 2)
    assert len(found.anchors) == 2


def test_a_bundle_is_written_and_nothing_measured(
    model: Mlp, space: BoundSpace, tmp_path: Path
) -> None:
    told: Told = []
    make_bundle(
        tmp_path / "phone",
        CPU,
        space,
        model,
        EXAMPLES,
        networks=2,
        on_progress=lambda *progress: told.append(progress),
    )
    assert (tmp_path / "phone" / "runner.py").is_file()
    assert {what for what, _, _ in told} == {"files"}
    assert told[-1][1] == told[-1][2]
