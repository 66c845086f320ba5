"""The costs of candidates on a simulated target, computed and never measured."""

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from autocompress.core.candidate import Candidate, LayerConfig
from autocompress.core.files import write_json
from autocompress.core.population import Candidates
from autocompress.core.schema import SCHEMA_VERSION
from autocompress.core.simulation import LookupTable, Simulation
from autocompress.core.target import FLOAT, Target
from autocompress.cost.kernels import KernelPlan, Site
from autocompress.cost.profile import HasGraph
from autocompress.cost.simulator import LayerCost, look_up, simulate_kernel
from autocompress.cost.weightless import Weightless
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.structure import Layer, ModelGraph


@dataclass(frozen=True, kw_only=True, slots=True)
class SimulatedProfile:
    """What stands in for a device profile where the target is simulated.

    Layers run one after the other, so that their times and energies add up.

    Attributes:
        target: The target, with the description of its hardware.
        version: Always 1: nothing is measured that would change it.
    """

    target: Target
    version: int = 1
    _memory: list["_Costs"] = field(default_factory=list, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        _simulation(self.target)

    def predict_costs(self, space: HasGraph | ModelGraph, candidate: Candidate) -> dict[str, float]:
        """Compute the costs of a candidate.

        Args:
            space: The search space, or the graph of the original model.
            candidate: The joint configuration.

        Returns:
            "latency_ms" of one inference at the target's batch size, and
            "energy_mj" where the hardware tells it.

        Raises:
            InvalidInputError: If a table has another number of layers.
        """
        graph = space if isinstance(space, ModelGraph) else space.graph
        if not self._memory or self._memory[0].plan.graph is not graph:
            self._memory[:] = [_Costs(graph, self.target)]
        return self._memory[0].total(candidate)

    def predict_many(
        self, space: HasGraph | ModelGraph, candidates: Candidates
    ) -> dict[str, NDArray[np.float64]]:
        """Compute the costs of `n` candidates, `n` values each."""
        found = [self.predict_costs(space, candidate) for candidate in candidates]
        return {name: np.array([costs[name] for costs in found]) for name in found[0]}

    def predict_latency(self, space: HasGraph | ModelGraph, candidate: Candidate) -> float:
        """Compute the latency of a candidate, in milliseconds."""
        return self.predict_costs(space, candidate)["latency_ms"]

    def save(self, path: Path) -> None:
        """Write the description as JSON, atomically."""
        record = {"schema_version": SCHEMA_VERSION, "simulated": self.target.to_json()}
        write_json(path, record)


def _simulation(target: Target) -> Simulation:
    """Return the hardware of a target, or refuse one that is not simulated."""
    if target.simulation is None:
        raise InvalidInputError(
            explain(
                f"target '{target.name}'",
                expected="a simulated one",
                got=f"one that runs {target.runtime}",
                remedy="profile it instead",
            )
        )
    return target.simulation


class _Costs:
    """Costs of the layers met so far, on one target."""

    def __init__(self, graph: ModelGraph, target: Target) -> None:
        self.plan, self.target = KernelPlan(graph, target), target
        self.simulation = table = _simulation(target)
        self.energy = table.tells_energy
        self.pairs: dict[LayerConfig, tuple[int, int]] = {}
        self.known: dict[tuple[Site, tuple[int, int]], LayerCost] = {}
        if isinstance(table, LookupTable) and len(table.cycles) != self.plan.layer_count:
            raise InvalidInputError(
                explain(
                    f"target '{target.name}'",
                    expected=f"a table of the {self.plan.layer_count} layers that compute",
                    got=f"{len(table.cycles)} layers",
                    remedy="give a table of this model, or simulate other hardware",
                )
            )

    def total(self, candidate: Candidate) -> dict[str, float]:
        """Sum the costs of all that a candidate runs."""
        latency = energy = 0.0
        for site in self.plan.sites(candidate):
            pair = self._bits(site, candidate)
            cost = self.known.get((site, pair))
            if cost is None:
                cost = self.known[site, pair] = self._cost(site, pair)
            latency, energy = latency + cost.latency_ms, energy + cost.energy_mj
        return {"latency_ms": latency, **({"energy_mj": energy} if self.energy else {})}

    def _bits(self, site: Site, candidate: Candidate) -> tuple[int, int]:
        place = self.plan.place(site)
        if isinstance(place, Layer):
            config = candidate.layers.get(place.name)
            if config is None:
                return FLOAT, FLOAT
            if config not in self.pairs:
                self.pairs[config] = self.target.executed(
                    config.weight_bits, config.activation_bits, config.group_size
                )
            return self.pairs[config]
        pair = (site[2], site[2])
        return pair if pair in self.target.precisions else (FLOAT, FLOAT)

    def _cost(self, site: Site, bits: tuple[int, int]) -> LayerCost:
        size, place = self.target.batch_size, self.plan.place(site)
        if isinstance(place, Weightless):  # not simulated
            return LayerCost(latency_ms=0.0)
        if not isinstance(self.simulation, LookupTable):
            return simulate_kernel(
                self.simulation, self.plan.kernel(site), bits, batch_size=size
            ).repeated(self.plan.runs(site))
        if not isinstance(place, Layer):
            return LayerCost(latency_ms=0.0)
        share = self.plan.kernel(site).operations * place.runs / place.macs
        return look_up(self.simulation, site[0], bits, share, batch_size=size)
