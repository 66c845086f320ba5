import pytest
from pydantic import ValidationError

from autocompress.space.sections import (
    Blocks,
    Distillation,
    Pruning,
    Quantisation,
    Range,
    Sparsity,
)


@pytest.mark.parametrize(
    ("section", "values"),
    [
        (Pruning, {"ratios": [1.0]}),
        (Pruning, {"ratios": ["0.5"]}),
        (Pruning, {"ratios": [float("nan")]}),
        (Pruning, {"round_to": 0}),
        (Pruning, {"criteria": []}),
        (Pruning, {"colour": "blue"}),
        (Blocks, {"drop": "yes"}),
        (Quantisation, {"weight_bits": [9]}),
        (Quantisation, {"activation_bits": [1]}),
        (Pruning, {"ties": ["*.query"]}),
        (Quantisation, {"ties": [[]]}),
        (Sparsity, {"levels": [1.0]}),
        (Sparsity, {"levels": ["4:4"]}),
        (Sparsity, {"levels": [True]}),
        (Sparsity, {"levels": ["unstructured"]}),
        (Range, {"low": 2.0, "high": 1.0}),
        (Range, {"low": 0.0, "high": 1.0, "log": True}),
        (Distillation, {"temperature": {"low": 0.0, "high": 4.0}}),
        (Distillation, {"kd_weight": {"low": 0.0, "high": 1.5}}),
        (Distillation, {"method": "features", "feature_weight": {"low": 0.0, "high": 2e6}}),
    ],
)
def test_values_that_mean_nothing_are_refused(section: type, values: dict[str, object]) -> None:
    with pytest.raises(ValidationError):
        section(**values)


def test_sections_take_their_bounds_and_cannot_change() -> None:
    assert Pruning(ratios=(0.0, 0.99)).ratios == (0.0, 0.99)
    assert Quantisation(weight_bits=(1, 8, 32), activation_bits=(2, 32)).weight_bits == (1, 8, 32)
    assert Sparsity(levels=(0.0, 0.99, "4:8")).levels == (0.0, 0.99, "4:8")
    fixed = Range(low=4.0, high=4.0)
    with pytest.raises(ValidationError):
        fixed.low = 1.0  # type: ignore[misc]
