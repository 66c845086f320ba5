from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from autocompress.config_sections import BudgetSection, ExecutorSection, ModelSection, TargetSection
from autocompress.core.simulation import Roofline
from autocompress.errors import InvalidInputError


@pytest.mark.parametrize(
    ("section", "values", "key"),
    [
        (ModelSection, {"factory": "a:b", "weight": "x"}, "weight"),
        (ModelSection, {}, "factory"),
        (BudgetSection, {"trials": "40"}, "trials"),
        (BudgetSection, {"trials": True}, "trials"),
        (ExecutorSection, {"name": "slurm"}, "name"),
        (ExecutorSection, {"cpus": 1.5}, "cpus"),
    ],
)
def test_each_section_refuses_other_keys_and_types(
    section: Any, values: dict[str, Any], key: str
) -> None:
    with pytest.raises(ValidationError) as caught:
        section(**values)
    assert [error["loc"] for error in caught.value.errors()] == [(key,)]


def test_whole_numbers_may_stand_for_fractions() -> None:
    assert BudgetSection(minutes=5).minutes == 5.0
    assert ExecutorSection(gpus=1).gpus == 1.0


def test_a_target_is_described_with_how_it_is_used() -> None:
    target = TargetSection(name="onnxruntime-cpu", threads=2, batch_size=8).describe(Path())
    assert (target.name, target.threads, target.batch_size) == ("onnxruntime-cpu", 2, 8)
    kept = TargetSection(name="onnxruntime-cpu", precisions=["32x32"]).describe(Path())
    assert kept.precisions == ((32, 32),)
    assert (8, 8) in target.precisions


def test_hardware_is_simulated_under_any_name() -> None:
    simulation = {"kind": "roofline", "peak_gmacs": {"8x8": 40, "32x32": 10}, "bandwidth_gbs": 4}
    target = TargetSection(name="my-npu", simulation=simulation).describe(Path())
    assert target.name == "my-npu"
    assert isinstance(target.simulation, Roofline)


@pytest.mark.parametrize("precisions", [[], ["8x8"], ["32x32", "2x2"]])
def test_precisions_are_some_of_the_runtime_and_floats_among_them(precisions: list[str]) -> None:
    section = TargetSection(name="onnxruntime-cpu", precisions=precisions)
    with pytest.raises(InvalidInputError, match=r"'target\.precisions': expected 32x32"):
        section.describe(Path())
