"""The device that a search optimises for: its runtime and what it executes."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from autocompress.core.plugins import load_plugin, plugin_names
from autocompress.core.schema import SCHEMA_VERSION, check_name, check_record, unknown_name
from autocompress.core.simulation import BUILT_IN, Simulation, parse_simulation
from autocompress.core.simulation import FLOAT as FLOAT  # read here by all other modules
from autocompress.errors import InvalidInputError, WrongTypeError, explain

CHANNEL_UNIT = 8
"""Unit of channels assumed of a target until it is measured."""

ONNXRUNTIME, OPENVINO, TORCH, TORCH_COMPILED = "onnxruntime", "openvino", "torch", "torch-compiled"
ONNXRUNTIME_CUDA, TORCH_CUDA, SIMULATED = "onnxruntime-cuda", "torch-cuda", "simulation"
RUNTIMES = (
    *(ONNXRUNTIME, OPENVINO, TORCH, TORCH_COMPILED),
    *(ONNXRUNTIME_CUDA, TORCH_CUDA, SIMULATED),
)
"""What runs artifacts; simulated hardware runs none."""

INTEGERS, FLOATS = ((FLOAT, FLOAT), (8, 8)), ((FLOAT, FLOAT),)

NAMED: Mapping[str, tuple[str, tuple[tuple[int, int], ...]]] = {
    "onnxruntime-cpu": (ONNXRUNTIME, INTEGERS),
    "openvino-cpu": (OPENVINO, INTEGERS),
    "torch-cpu": (TORCH, FLOATS),
    "torch-compiled-cpu": (TORCH_COMPILED, FLOATS),
    "torch-cuda": (TORCH_CUDA, FLOATS),
    "onnxruntime-cuda": (ONNXRUNTIME_CUDA, FLOATS),
}
"""Runtimes on a device, and the precisions that they execute, by the name of the target."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Target:
    """A runtime on a device, with the precisions that it executes.

    Attributes:
        name: What the user calls it, for example "onnxruntime-cpu".
        runtime: The runtime that runs the artifact, one of `RUNTIMES`.
        threads: Threads that one inference uses, >= 1.
        batch_size: Images per inference when latency is measured, >= 1.
        precisions: (weight bits, activation bits) pairs that run as such.
        round_to: Unit in which fewer channels make a layer faster, >= 1.
        simulation: What the device consists of, where it is simulated, not
            measured; `precisions` are then those of the simulation.
        saturates: Whether its integer kernels were found to clip the sums of
            products of 8-bit weights and activations.
    """

    name: str
    runtime: str = ONNXRUNTIME
    threads: int = 1
    batch_size: int = 1
    precisions: tuple[tuple[int, int], ...] = INTEGERS
    round_to: int = CHANNEL_UNIT
    simulation: Simulation | None = None
    saturates: bool = False

    def __post_init__(self) -> None:
        check_name("target 'runtime'", self.runtime, RUNTIMES)
        if self.simulation is not None:
            object.__setattr__(self, "runtime", SIMULATED)
            object.__setattr__(self, "precisions", self.simulation.precisions)
        for key in ("threads", "batch_size", "round_to"):
            value = getattr(self, key)
            if isinstance(value, bool) or not isinstance(value, int):
                raise WrongTypeError(
                    explain(
                        f"target '{key}'",
                        expected="an integer",
                        got=repr(value),
                        remedy=f"set {key}: 1",
                    )
                )
            if value < 1:
                raise InvalidInputError(
                    explain(f"target '{key}'", expected=">= 1", got=value, remedy=f"set {key}: 1")
                )

    def executed(
        self, weight_bits: int, activation_bits: int, group_size: int = 0
    ) -> tuple[int, int]:
        """Name the precision that the runtime really computes a layer in.

        A layer runs in the narrowest executable precision that holds its
        weights and its activations; narrower grids ride in wider integers.
        Inputs whose weights have several scales are summed in floating point.

        Args:
            weight_bits: Bits of the layer's weights, 1 to 8, or 32.
            activation_bits: Bits of its input activations, 2 to 8, or 32.
            group_size: Inputs that share a scale; 0 for one scale per output.

        Returns:
            The executed (weight bits, activation bits) pair.

        Example:
            >>> Target.named("onnxruntime-cpu").executed(4, 8)
            (8, 8)
            >>> Target.named("onnxruntime-cpu").executed(4, 32)
            (32, 32)
        """
        if group_size:
            return FLOAT, FLOAT
        fitting = [p for p in self.precisions if p[0] >= weight_bits and p[1] >= activation_bits]
        return min(fitting, default=(FLOAT, FLOAT), key=lambda pair: (pair[0] * pair[1], pair))

    def check_costs(self, names: Iterable[str]) -> None:
        """Refuse costs that nothing tells on this target.

        Args:
            names: Names of cost objectives and constraints.

        Raises:
            InvalidInputError: If energy is among them, and it is not simulated.
        """
        if "energy_mj" in names and not (self.simulation and self.simulation.tells_energy):
            raise InvalidInputError(
                explain(
                    "'energy_mj'",
                    expected="a simulated target that tells energy, a roofline or an accelerator",
                    got=f"'{self.name}'",
                    remedy="choose another cost, or simulate the target",
                )
            )

    @property
    def file_name(self) -> str:
        """What the artifact of a member is called, beside its `weights.packed`."""
        if self.simulation is not None:
            return "weights.packed"
        return "model.pt2" if self.runtime.startswith(TORCH) else "model.onnx"

    @property
    def activation_bits(self) -> tuple[int, ...]:
        """The activation bit-widths that the runtime executes, narrowest first."""
        return tuple(sorted({activation for _, activation in self.precisions}))

    @classmethod
    def named(cls, name: str, *, threads: int = 1, batch_size: int = 1) -> "Target":
        """Look a built-in or registered target up by its name.

        Raises:
            InvalidInputError: If there is no target of that name.
        """
        known = (*TARGET_NAMES, *plugin_names("targets"))
        if name not in known:
            raise InvalidInputError(unknown_name("target", str(name), known))
        usage: dict[str, Any] = {"name": name, "threads": threads, "batch_size": batch_size}
        if name not in TARGET_NAMES:
            return replace(load_plugin("targets", name, cls), **usage)
        if name in BUILT_IN:
            return cls(simulation=BUILT_IN[name], **usage)
        runtime, precisions = NAMED[name]
        return cls(runtime=runtime, precisions=precisions, **usage)

    def to_json(self) -> dict[str, Any]:
        """Return the target as a JSON object."""
        return {
            "schema_version": SCHEMA_VERSION,
            "name": self.name,
            "runtime": self.runtime,
            "threads": self.threads,
            "batch_size": self.batch_size,
            "precisions": [list(pair) for pair in self.precisions],
            "round_to": self.round_to,
            "simulation": None if self.simulation is None else self.simulation.to_json(),
            "saturates": self.saturates,
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Target":
        """Read a target from what `to_json` returned."""
        keys = (
            *("name", "runtime", "threads", "batch_size", "precisions"),
            *("round_to", "simulation", "saturates"),
        )
        fields = dict(check_record(record, what="target", keys=keys, required=("name",)))
        if fields.get("simulation") is not None:
            fields["simulation"] = parse_simulation(fields["simulation"])
        if "precisions" in fields:
            fields["precisions"] = tuple((int(w), int(a)) for w, a in fields["precisions"])
        return cls(**fields)


TARGET_NAMES = (*NAMED, *BUILT_IN)
"""Names of the built-in targets."""
