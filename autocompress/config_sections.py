"""The sections of a configuration, each checked key by key."""

from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from autocompress.core.simulation import parse_simulation
from autocompress.core.target import Target
from autocompress.errors import InvalidInputError, explain


class Section(BaseModel):
    """Refuses unknown keys and values of other types."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class FactorySection(Section):
    """A function of the user's own code, and what it is called with.

    Attributes:
        factory: "module:function", the module below the configuration's folder.
        args: Keyword arguments.
    """

    factory: str
    args: dict[str, Any] = Field(default_factory=dict)


class ModelSection(FactorySection):
    """How to make the trained model.

    Attributes:
        weights: A state dictionary, relative to the configuration's folder;
            None when the factory returns a trained model.
    """

    weights: str | None = None


class TargetSection(Section):
    """The device; a bare name in the file stands for {name: ...}.

    Attributes:
        name: Name of a built-in target, or any name of one that is simulated.
        threads: Threads that one inference uses, >= 1.
        batch_size: Images per inference when latency is measured, >= 1.
        profile: A device profile made for such a target, relative to the
            configuration's folder; None measures one.
        simulation: What simulated hardware consists of; keys as in `Roofline`,
            `Accelerator` or `LookupTable`, beside its kind.
        precisions: Those of the runtime's that it may use, such as [32x32]
            where it must not compute in integers; None for all.
    """

    name: str = "onnxruntime-cpu"
    threads: int = 1
    batch_size: int = 1
    profile: str | None = None
    simulation: dict[str, Any] | None = None
    precisions: tuple[str, ...] | None = Field(default=None, strict=False)

    def describe(self, folder: Path) -> Target:
        """Return the target itself, whether it was profiled or not."""
        if self.simulation is not None:
            named = Target(name=self.name, simulation=parse_simulation(self.simulation, folder))
        else:
            named = Target.named(self.name)
        if self.precisions is not None:
            named = replace(named, precisions=self._chosen(named))
        return replace(named, threads=self.threads, batch_size=self.batch_size)

    def _chosen(self, named: Target) -> tuple[tuple[int, int], ...]:
        """Return the precisions that are left of a target's; floats among them."""
        known = {f"{weight}x{bits}": (weight, bits) for weight, bits in named.precisions}
        chosen = self.precisions or ()
        if named.simulation is not None or "32x32" not in chosen or not set(chosen) <= set(known):
            raise InvalidInputError(
                explain(
                    "'target.precisions'",
                    expected=f"32x32, for layers that are not quantised, and others of {[*known]}",
                    got=list(chosen),
                    remedy="leave it out to use all; simulated hardware says its own",
                )
            )
        return tuple(pair for name, pair in known.items() if name in chosen)


class BudgetSection(Section):
    """Totals for the study; one of the two may be left out.

    Attributes:
        trials: Candidates, >= 1.
        minutes: Wall time, > 0.
        least_gain: Growth of the hypervolume that further trials must promise,
            as a fraction, > 0; None uses the whole budget.
        finalists: Candidates that are trained fully, at most, >= 1; None lets the time decide.
    """

    trials: int | None = None
    minutes: float | None = None
    least_gain: float | None = None
    finalists: int | None = None


class ExecutorSection(Section):
    """Where trials run; a bare name in the file stands for {name: ...}; keys as in `Executor`."""

    name: Literal["inline", "ray"] = "inline"
    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = Field(default=0.0, strict=False)
    seconds_per_trial: float | None = Field(default=None, strict=False)
