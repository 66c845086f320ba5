import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.target import Target
from autocompress.space.choices import achieved_ratios, offered_precisions, selected

RATIOS = [0.0, 0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.95]
TARGET = Target.named("onnxruntime-cpu")


@given(
    channels=st.integers(1, 600),
    ratios=st.lists(st.floats(0.0, 0.99), max_size=8),
    round_to=st.integers(1, 16),
)
def test_achieved_ratios_keep_whole_steps_of_channels(channels, ratios, round_to):
    achieved = achieved_ratios(channels, ratios, round_to=round_to)
    assert achieved[0] == 0.0
    assert list(achieved) == sorted(set(achieved))
    kept = [round(channels * (1.0 - ratio)) for ratio in achieved]
    assert [1.0 - count / channels for count in kept] == list(achieved)
    assert min(kept) >= 1
    if channels >= 2 * round_to:
        assert all(count % round_to == 0 for count in kept[1:])
        assert min(kept) >= round_to


def test_achieved_ratios_stay_within_half_a_step_of_what_was_asked():
    for ratio in np.linspace(0.0, 0.85, 18):
        achieved = achieved_ratios(64, [ratio], round_to=8)[-1]
        assert abs(achieved - ratio) <= 4 / 64 + 1e-12


@pytest.mark.parametrize(
    ("channels", "expected"),
    [(16, (0.0, 0.5)), (4, (0.0, 0.25, 0.5, 0.75)), (2, (0.0, 0.5)), (1, (0.0,))],
)
def test_narrow_groups_stay_prunable(channels, expected):
    assert achieved_ratios(channels, RATIOS, round_to=8) == expected


def test_globs_match_names_and_types():
    assert selected("fc", "Linear", include=["Linear"], exclude=[])
    assert selected("layer1.0.conv1", "Conv2d", include=["layer1.*"], exclude=[])
    assert not selected("fc", "Linear", include=["*"], exclude=["Lin*"])
    assert not selected("conv1", "Conv2d", include=[], exclude=[])


def test_without_a_target_all_pairs_are_offered_from_narrow_to_wide():
    assert offered_precisions([32, 8, 4], [32, 8]) == ((4, 8), (4, 32), (8, 8), (8, 32), (32, 32))


def test_bits_that_change_no_cost_are_not_offered():
    def offered(costs):
        return offered_precisions([4, 8, 32], [4, 8, 32], target=TARGET, costs=costs)

    assert offered(["latency_ms"]) == ((8, 8), (32, 32))
    assert offered(["latency_ms", "macs"]) == ((8, 8), (32, 32))
    with_size = ((4, 8), (4, 32), (8, 8), (8, 32), (32, 32))
    assert offered(["latency_ms", "size_bytes"]) == with_size
    assert offered(["bops"]) == with_size
    assert offered(None) == with_size


def test_scales_of_groups_are_not_offered_for_latency_alone() -> None:
    def offered(*costs: str) -> tuple[tuple[int, int], ...]:
        return offered_precisions([4, 8], [8], target=TARGET, costs=costs, group_size=16)

    assert offered("latency_ms") == ((32, 32),)
    assert offered("latency_ms", "size_bytes") == ((4, 8), (8, 8), (32, 32))
