import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from autocompress.core.target import Target
from autocompress.space.bound import BoundSpace
from autocompress.space.preset import SearchSpace
from toy_graphs import residual_graph

SPACE = SearchSpace.load("cnn").bind_graph(residual_graph(12, 64))
WHOLE = SearchSpace.load({"blocks": {"drop": False}}).bind_graph(residual_graph(12, 64))
FAST = SearchSpace.load("cnn").bind_graph(
    residual_graph(12, 64), Target.named("onnxruntime-cpu"), ["latency_ms"]
)


def columns(prefix: str, space: BoundSpace = WHOLE) -> np.ndarray:
    """Encode 300 samples; keep the columns of one kind of parameter."""
    rows = np.concatenate([space.encode(space.sample(seed)) for seed in range(300)])
    return rows[:, [i for i, p in enumerate(space.parameters) if p.name.startswith(prefix)]]


def test_the_seed_alone_decides_and_global_randomness_is_left_alone():
    random.seed(1)
    np.random.seed(1)  # noqa: NPY002 - the legacy state is what must not change
    before = (random.getstate(), np.random.get_state()[1].tolist())  # noqa: NPY002
    first = [SPACE.sample(seed) for seed in range(10)]
    assert first == [SPACE.sample(seed) for seed in range(10)]
    assert SPACE.mutate(first[0], 5, 0.1) == SPACE.mutate(first[0], 5, 0.1)
    assert len(set(first)) == 10
    assert (random.getstate(), np.random.get_state()[1].tolist()) == before  # noqa: NPY002


@pytest.mark.parametrize(
    ("prefix", "space"), [("prune:", WHOLE), ("drop:", SPACE), ("precision:", WHOLE)]
)
def test_samples_spread_over_levels_of_compression(prefix, space):
    cells = columns(prefix, space)
    level = cells.mean(axis=1)
    independent = cells.std() / np.sqrt(cells.shape[1])
    assert level.std() > 2.0 * independent
    assert level.min() < 0.15
    assert level.max() > 0.75


def test_layers_vary_around_the_level():
    assert np.median(columns("prune:").std(axis=1)) > 0.1


def test_every_choice_is_drawn():
    samples = [SPACE.sample(seed) for seed in range(300)]
    configs = {config for sample in samples for config in sample.layers.values()}
    pairs = {(config.weight_bits, config.activation_bits) for config in configs}
    assert pairs | {(32, 32)} == set(SPACE.layer_precisions)
    for name, choices in SPACE.pruning_choices.items():
        assert {sample.pruning_ratios.get(name, 0.0) for sample in samples} == set(choices)
    assert {name for sample in samples for name in sample.dropped_blocks} == set(SPACE.blocks)


def test_distillation_is_drawn_independently():
    level = columns("prune:").mean(axis=1)
    for name in ("temperature", "kd_weight"):
        cell = columns(name)[:, 0]
        assert 0.4 < cell.mean() < 0.6
        assert abs(np.corrcoef(level, cell)[0, 1]) < 0.2


def test_activations_of_one_sample_share_their_bits():
    for seed in range(50):
        configs = SPACE.sample(seed).layers.values()
        assert len({c.activation_bits for c in configs if c.weight_bits != 32}) <= 1


def test_int8_is_common_where_only_int8_pays():
    shares = [len(FAST.sample(s).layers) for s in range(100)]
    assert sum(share > len(FAST.layers) / 4 for share in shares) > 50


@given(seed=st.integers(0, 10**6), rate=st.sampled_from([0.001, 0.05, 0.5, 1.0]))
def test_a_mutation_is_another_candidate_of_the_space(seed, rate):
    start = SPACE.sample(seed)
    changed = SPACE.mutate(start, seed, rate)
    assert changed != start
    assert SPACE.canonical(changed) == changed


def test_a_low_rate_changes_little():
    start = SPACE.uniform(8, 8, 0.5)
    before = SPACE.to_params(start)
    counts = []
    for seed in range(100):
        after = SPACE.to_params(SPACE.mutate(start, seed, 0.03))
        if not SPACE.from_params(after).dropped_blocks:
            counts.append(sum(before[name] != after[name] for name in before))
    assert 1.0 <= np.mean(counts) < 4.0


def test_a_space_without_alternatives_returns_the_same():
    single = SearchSpace.load(
        {
            "pruning": {"ratios": []},
            "quantisation": {"weight_bits": []},
            "distillation": {
                "temperature": {"low": 4, "high": 4},
                "kd_weight": {"low": 0.9, "high": 0.9},
            },
        }
    ).bind_graph(residual_graph(2))
    assert [parameter.name for parameter in single.parameters] == ["drop:blocks.1"]
    kept = single.uniform(32, 32, 0.0)
    dropped = single.mutate(kept, 0, 0.1)
    assert dropped.dropped_blocks == ("blocks.1",)
    assert single.mutate(dropped, 0, 0.1) == kept
