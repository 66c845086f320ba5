import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autocompress.artifact.session import check_available
from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.simulation import WIDE, Accelerator, LookupTable, Roofline
from autocompress.core.target import Target
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.kernels import executed_kernels
from autocompress.cost.resolve import load_profile, resolve_target
from autocompress.cost.simulated import SimulatedProfile
from autocompress.cost.simulator import simulate_kernel
from autocompress.errors import InvalidInputError
from autocompress.graph.tracing import trace
from toy_graphs import residual_graph

GRAPH = residual_graph()
SERIAL = SimulatedProfile(target=Target.named("bit-serial"))


def _uniform(weight_bits: int, activation_bits: int) -> Candidate:
    config = LayerConfig(weight_bits=weight_bits, activation_bits=activation_bits)
    return Candidate(layers={layer.name: config for layer in GRAPH.layers if layer.quantisable})


def test_layers_add_up() -> None:
    costs = SERIAL.predict_costs(GRAPH, _uniform(3, 5))
    keys = [
        KernelKey(
            kind="conv",
            in_channels=inputs,
            out_channels=32,
            kernel=(3, 3),
            stride=(1, 1),
            size=(8, 8),
        )
        for inputs in (3, *[32] * 6)
    ]
    head = KernelKey(kind="linear", in_channels=32, out_channels=10)
    hardware = SERIAL.target.simulation
    assert hardware is not None
    parts = [simulate_kernel(hardware, key, (3, 5)) for key in keys]
    parts.append(simulate_kernel(hardware, head, (32, 32)))
    assert costs["latency_ms"] == pytest.approx(sum(part.latency_ms for part in parts))
    assert costs["energy_mj"] == pytest.approx(sum(part.energy_mj for part in parts))
    assert SERIAL.predict_latency(GRAPH, _uniform(3, 5)) == costs["latency_ms"]


def test_fewer_bits_channels_and_blocks_cost_less() -> None:
    plain = SERIAL.predict_costs(GRAPH, _uniform(8, 8))
    dropped = replace(_uniform(8, 8), dropped_blocks=("blocks.1",)).canonical()
    for candidate in (_uniform(4, 4), dropped):
        costs = SERIAL.predict_costs(GRAPH, candidate)
        assert all(costs[name] < plain[name] for name in plain)
    # Sixteen outputs fewer save energy; vectors of activations enter as long as before.
    narrower = replace(_uniform(8, 8), pruning_ratios={"blocks.1.conv1": 0.5})
    costs = SERIAL.predict_costs(GRAPH, narrower)
    assert costs["energy_mj"] < plain["energy_mj"]
    assert costs["latency_ms"] == plain["latency_ms"]


def test_a_table_serves_the_model_that_it_was_made_for() -> None:
    cycles = np.full((len(GRAPH.layers), 8, 8), 1000.0)
    table = LookupTable(cycles=tuple(tuple(map(tuple, rows)) for rows in cycles), clock_mhz=1.0)
    profile = SimulatedProfile(target=Target(name="npu", simulation=table))
    assert profile.predict_costs(GRAPH, _uniform(4, 4)) == {"latency_ms": pytest.approx(7 + 4)}
    pruned = replace(_uniform(4, 4), pruning_ratios={"blocks.1.conv1": 0.5})
    assert profile.predict_latency(GRAPH, pruned) == pytest.approx(7 + 4 - 0.5)
    with pytest.raises(InvalidInputError, match="6 layers"):
        profile.predict_latency(residual_graph(blocks=2), Candidate())


def test_ten_thousand_candidates_take_under_a_second() -> None:
    candidates = [_uniform(1 + n % 8, 2 + n % 7) for n in range(100)]
    start = time.process_time()
    for _ in range(100):
        for candidate in candidates:
            SERIAL.predict_costs(GRAPH, candidate)
    assert time.process_time() - start < 1.0


def test_a_simulated_target_is_its_own_profile(tmp_path: Path) -> None:
    target, profile = resolve_target("bit-fusion")
    assert profile == SimulatedProfile(target=target)
    profile.save(tmp_path / "profile.json")
    assert load_profile(tmp_path / "profile.json") == profile
    assert resolve_target(tmp_path / "profile.json") == (target, profile)


def test_what_is_simulated_is_not_measured_and_the_other_way_round() -> None:
    with pytest.raises(InvalidInputError, match="simulated hardware"):
        check_available(Target.named("bit-serial"))
    with pytest.raises(InvalidInputError, match="simulated one"):
        SimulatedProfile(target=Target.named("onnxruntime-cpu"))


def test_a_roofline_of_a_network() -> None:
    roofline = Roofline(peak_gmacs=((32, 32, 1.0),), bandwidth_gbs=1e6)
    profile = SimulatedProfile(target=Target(name="cpu", simulation=roofline))
    macs = sum(layer.macs for layer in GRAPH.layers)
    assert profile.predict_latency(GRAPH, _uniform(8, 8)) == pytest.approx(macs / 1e9 * 1e3)


class _Repeated(nn.Module):
    """One convolution that runs three times, or three alike that run once."""

    def __init__(self, shared: bool) -> None:
        super().__init__()
        self.stem, self.fc = nn.Conv2d(3, 16, 1), nn.Linear(16, 4)
        self.steps = nn.ModuleList(nn.Conv2d(16, 16, 3, padding=1) for _ in range(3))
        if shared:
            self.steps = nn.ModuleList([self.steps[0]] * 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        for step in self.steps:
            x = step(x).relu()
        return self.fc(x.mean(dim=(2, 3)))


def test_a_layer_that_runs_several_times_costs_as_much_as_several() -> None:
    graphs = [trace(_Repeated(shared), torch.randn(2, 3, 8, 8)) for shared in (True, False)]
    assert [len(graph.layers) for graph in graphs] == [3, 5]
    targets = [
        Target(name="cpu", simulation=Roofline(peak_gmacs=((32, 32, 20.0),), bandwidth_gbs=4.0)),
        Target(name="npu", simulation=Accelerator()),
    ]
    for target in targets:
        one, other = (SimulatedProfile(target=target).predict_costs(g, Candidate()) for g in graphs)
        assert one == pytest.approx(other)
    kernels = [executed_kernels(graph, Candidate(), targets[0]) for graph in graphs]
    assert kernels[0] == kernels[1]


def test_a_table_has_the_cycles_of_all_runs_of_a_layer() -> None:
    graph = trace(_Repeated(shared=True), torch.randn(2, 3, 8, 8))
    table = LookupTable(cycles=tuple(((100.0 * n,),) for n in (1, 2, 3)), clock_mhz=1.0)
    profile = SimulatedProfile(target=Target(name="npu", simulation=table))
    whole = profile.predict_costs(graph, Candidate())["latency_ms"]
    assert whole == pytest.approx(0.6 * WIDE * WIDE)


def test_runs_on_smaller_tensors_count_by_their_operations() -> None:
    class Pyramid(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 16, 1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.stem(x)
            return self.head(x).mean((2, 3)) + self.head(x[:, :, ::2, ::2]).mean((2, 3))

    graph = trace(Pyramid(), torch.randn(2, 3, 16, 16))
    assert graph.layer("head").runs == 1.25
    table = LookupTable(cycles=(((100.0,),), ((200.0,),)), clock_mhz=1.0)
    profile = SimulatedProfile(target=Target(name="npu", simulation=table))
    whole = profile.predict_costs(graph, Candidate())["latency_ms"]
    assert whole == pytest.approx(0.3 * WIDE * WIDE)
