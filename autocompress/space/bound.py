"""A search space bound to one model: flat parameters to and from candidates."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike, NDArray

from autocompress.core.candidate import (
    DEFAULT_CRITERION,
    METHODS,
    UNIFORM,
    Candidate,
    DistillConfig,
)
from autocompress.core.population import Population
from autocompress.core.schema import unknown_name
from autocompress.errors import InvalidInputError, explain
from autocompress.graph.structure import ModelGraph
from autocompress.space.choices import DENSE, PrecisionPair, SparsityLevel
from autocompress.space.draws import ATTEMPTS, mutated, stratified
from autocompress.space.knobs import (
    Knob,
    layer_configs,
    make_knobs,
    nearest_levels,
    pair_levels,
    ratio_levels,
)
from autocompress.space.levels import Levels
from autocompress.space.parameter import Parameter, check_params

FloatArray = NDArray[np.float64]

NO_FEATURES = Parameter(name="feature_weight", kind="float", low=0.0, high=0.0)
"""Range of the weight of features where they are not compared."""


@dataclass(frozen=True, kw_only=True)
class BoundSpace:
    """Everything that may vary in one model, as flat parameters.

    Every parameter is suggested every time; those inside a dropped block
    have no effect, and canonical candidates leave them out. The parameters:
    `prune:<group>`, an index into the group's `pruning_choices`;
    `drop:<block>`, 0 or 1; `precision:<layer>`, an index into
    `layer_precisions`; `sparsity:<layer>`, an index into `sparsity_levels`;
    `criterion`, an index, if there are several; `temperature`, `kd_weight` and
    `feature_weight`, where they have a range.
    What is tied has one parameter, named by its first member.

    Attributes:
        graph: The structure of the model.
        pruning_choices: Group name to achieved ratios, ascending from 0.0.
        blocks: Names of the blocks that may be dropped.
        layers: Names of the layers whose bits vary.
        layer_precisions: (weight bits, activation bits) pairs, ordered from
            the narrowest to the widest; (32, 32) is last.
        criteria: Ways to rank channels.
        temperature: Range of the temperature.
        kd_weight: Range of the distillation weight.
        feature_weight: Range of the weight of features.
        method: How these are compared.
        sparse_layers: Names of the layers whose sparsity varies.
        sparsity_levels: (sparsity, pattern) pairs, from the dense one up.
        pruning_ties: Sets of groups that share a ratio, each as near to it
            as its own choices allow.
        precision_ties: Sets of layers that share their bits.
        sparsity_ties: Sets of layers that share a sparsity.
        end_bits: Fewest bits of the first and the last layer.
        end_activation_bits: The same of their activations, where the target
            needs more; 0 where it does not.
        weight_format: How codes below 8 bits map to weights.
        group_size: Inputs that share a scale; 0 for one scale per output.
    """

    graph: ModelGraph
    pruning_choices: Mapping[str, tuple[float, ...]]
    blocks: tuple[str, ...]
    layers: tuple[str, ...]
    layer_precisions: tuple[PrecisionPair, ...]
    criteria: tuple[str, ...]
    temperature: Parameter
    kd_weight: Parameter
    sparse_layers: tuple[str, ...] = ()
    sparsity_levels: tuple[SparsityLevel, ...] = (DENSE,)
    pruning_ties: tuple[tuple[str, ...], ...] = ()
    precision_ties: tuple[tuple[str, ...], ...] = ()
    sparsity_ties: tuple[tuple[str, ...], ...] = ()
    end_bits: int = 1
    end_activation_bits: int = 0
    weight_format: str = UNIFORM
    group_size: int = 0
    feature_weight: Parameter = NO_FEATURES
    method: str = METHODS[0]

    def __post_init__(self) -> None:
        if not (self.pruning_choices or self.blocks or self.layers or self.sparse_layers):
            raise InvalidInputError(
                explain(
                    "search space",
                    expected="a group, block or layer that can vary",
                    got="none in this model",
                    remedy="widen 'include', or add ratios and bits",
                )
            )

    @cached_property
    def parameters(self) -> tuple[Parameter, ...]:
        """All parameters, in the order of the columns of `encode`."""
        counts = {knob.name: len(knob.levels) for knob in self.pruning_knobs}
        counts |= {f"drop:{name}": 2 for name in self.blocks}
        counts |= {knob.name: len(knob.levels) for knob in self.precision_knobs}
        counts |= {knob.name: len(knob.levels) for knob in self.sparsity_knobs}
        counts |= {"criterion": len(self.criteria)} if len(self.criteria) > 1 else {}
        discrete = [
            Parameter(name=name, kind="int", low=0, high=count - 1)
            for name, count in counts.items()
        ]
        return (*discrete, *(p for p in self.distillation if p.low < p.high))

    @property
    def distillation(self) -> tuple[Parameter, ...]:
        """The ranges of the distillation, those that are fixed included."""
        return self.temperature, self.kd_weight, self.feature_weight

    @cached_property
    def pruning_knobs(self) -> tuple[Knob[float], ...]:
        """The choices of ratios."""
        choices = self.pruning_choices
        return make_knobs(
            "prune:", choices, self.pruning_ties, lambda members: ratio_levels(members, choices)
        )

    @cached_property
    def precision_knobs(self) -> tuple[Knob[PrecisionPair], ...]:
        """The choices of bits."""
        pairs = self.layer_precisions
        names = [layer.name for layer in self.graph.layers if layer.quantisable]
        ends = (names[0], names[-1]) if names else ()
        fewest = self.end_bits, max(self.end_bits, self.end_activation_bits)
        return make_knobs(
            "precision:",
            self.layers,
            self.precision_ties,
            lambda members: pair_levels(members, pairs, ends, fewest),
        )

    @cached_property
    def sparsity_knobs(self) -> tuple[Knob[SparsityLevel], ...]:
        """The choices of sparsity."""
        levels = self.sparsity_levels
        return make_knobs(
            "sparsity:",
            self.sparse_layers,
            self.sparsity_ties,
            lambda members: [(level,) * len(members) for level in levels],
        )

    @cached_property
    def fingerprint(self) -> str:
        """Digest of the model's structure and of every choice in the space."""
        parts: tuple[object, ...] = (
            self.graph.fingerprint,
            sorted(self.pruning_choices.items()),
            self.layer_precisions,
            self.criteria,
            self.parameters,
            self.temperature,
            self.kd_weight,
        )
        ties = (self.pruning_ties, self.precision_ties, self.sparsity_ties)
        if self.sparse_layers or any(ties):
            parts = (*parts, self.sparsity_levels, ties)
        grids = (self.end_bits, self.weight_format, self.group_size)
        parts = (*parts, grids) if grids != (1, UNIFORM, 0) else parts
        fewest = max(self.end_bits, self.end_activation_bits)
        if any(max(self.end_bits, bits) < fewest for _, bits in self.layer_precisions):
            parts = (*parts, self.end_activation_bits)
        features = (self.feature_weight, self.method)
        parts = (*parts, features) if features != (NO_FEATURES, METHODS[0]) else parts
        return hashlib.sha256(repr(parts).encode()).hexdigest()[:16]

    def from_params(self, params: Mapping[str, float]) -> Candidate:
        """Turn parameters into the canonical candidate they stand for.

        Args:
            params: A value for every parameter, by name.

        Raises:
            InvalidInputError: If a name is unknown or missing, or a value is
                out of range.
        """
        check_params(self.parameters, params)
        return self._candidate(params)

    def _candidate(self, params: Mapping[str, float]) -> Candidate:
        row = [[params[parameter.name] for parameter in self.parameters]]
        return self.population(np.array(row, dtype=np.float64)).candidate(0)

    def population(self, table: FloatArray) -> Population:
        """Turn a table of parameters into the candidates they stand for.

        Args:
            table: `n x d` values in their ranges, columns in the order of `parameters`.
        """
        levels, count = self._levels_of(table), len(table)
        values = dict(zip((p.name for p in self.parameters), table.T.tolist(), strict=True))
        fixed = {p.name: [p.low] * count for p in self.distillation}
        rows = list(zip(*((fixed | values)[name] for name in fixed), strict=True))
        distills = {row: self._distill(dict(zip(fixed, row, strict=True))) for row in set(rows)}
        taught = [distills[row] for row in rows]
        chosen = levels.get("criterion", np.zeros(count, dtype=np.intp)).tolist()
        return self._choices.population(levels, [self.criteria[index] for index in chosen], taught)

    def active(self, table: FloatArray) -> NDArray[np.bool_]:
        """Tell which parameters have an effect, `n x d`, given `n x d` values.

        Those inside dropped blocks have none, and a criterion needs something to prune.
        """
        idle = self._choices.without_effect(self._levels_of(table), len(table))
        never = np.zeros(len(table), dtype=bool)
        return ~np.stack([idle.get(p.name, never) for p in self.parameters], axis=1)

    def _levels_of(self, table: FloatArray) -> dict[str, NDArray[np.intp]]:
        columns = table.T.astype(np.intp)
        return {p.name: column for p, column in zip(self.parameters, columns, strict=True)}

    @cached_property
    def _choices(self) -> Levels:
        return Levels(
            self.blocks,
            (self.pruning_knobs, self.precision_knobs, self.sparsity_knobs),
            self.weight_format,
            self.group_size,
        )

    def to_params(self, candidate: Candidate) -> dict[str, float]:
        """Return the parameters nearest to a candidate.

        Raises:
            InvalidInputError: If the candidate names something unknown.
        """
        return self._nearest_params(self.canonical(candidate))

    def _nearest_params(self, candidate: Candidate) -> dict[str, float]:
        params: dict[str, float] = dict(
            nearest_levels(candidate, self.pruning_knobs, self.precision_knobs, self.sparsity_knobs)
        )
        params |= {f"drop:{name}": int(name in candidate.dropped_blocks) for name in self.blocks}
        params |= {
            "criterion": self.criteria.index(candidate.criterion)
            if candidate.pruning_ratios
            else 0,
            **{p.name: p.settle(getattr(candidate.distill, p.name)) for p in self.distillation},
        }
        return {parameter.name: params[parameter.name] for parameter in self.parameters}

    def canonical(self, candidate: Candidate) -> Candidate:
        """Return the nearest candidate of this space, without what has no effect.

        Ratios, bits and sparsity go to the nearest choice (to the milder one
        of two), those that are tied to the nearest that they can share;
        groups, blocks and layers that cannot vary are left as they were.

        Raises:
            InvalidInputError: If the candidate names a group, block, layer or
                criterion that does not exist.
        """
        for name in candidate.pruning_ratios:
            self.graph.group(name)
        for name in candidate.dropped_blocks:
            self.graph.block(name)
        for name in candidate.layers:
            self.graph.layer(name)
        dropped = tuple(name for name in candidate.dropped_blocks if name in self.blocks)
        known = replace(candidate, dropped_blocks=dropped).canonical()
        unused = not known.pruning_ratios and candidate.criterion == DEFAULT_CRITERION
        if candidate.criterion not in self.criteria and not unused:
            raise InvalidInputError(unknown_name("criterion", candidate.criterion, self.criteria))
        return self._candidate(self._nearest_params(known))

    def _distill(self, values: Mapping[str, float]) -> DistillConfig:
        """Settle the distillation's numbers into their ranges."""
        settled = {p.name: p.settle(values[p.name]) for p in self.distillation}
        return DistillConfig(method=self.method, **settled)

    def encode(self, candidate: Candidate) -> FloatArray:
        """Return a candidate as numbers in [0, 1].

        Returns:
            `1 x d` array, columns in the order of `parameters`.
        """
        params = self.to_params(candidate)
        return np.array([[p.to_unit(params[p.name]) for p in self.parameters]], dtype=np.float64)

    def decode(self, row: ArrayLike) -> Candidate:
        """Return the canonical candidate nearest to `d` numbers in [0, 1].

        Args:
            row: `1 x d` or `d` numbers, as `encode` returns them.

        Raises:
            InvalidInputError: If the shape is another, or a number is NaN.
        """
        values = np.asarray(row, dtype=np.float64)
        count = len(self.parameters)
        if values.shape not in ((count,), (1, count)) or np.isnan(values).any():
            got = "NaN" if np.isnan(values).any() else f"shape {values.shape}"
            raise InvalidInputError(
                explain(
                    "'row'", expected=f"{count} numbers", got=got, remedy="pass encode's output"
                )
            )
        units = values.ravel().tolist()
        return self.from_params(
            {p.name: p.from_unit(u) for p, u in zip(self.parameters, units, strict=True)}
        )

    def sample(self, seed: int) -> Candidate:
        """Draw a candidate around a random level of compression.

        A global level u ~ U(0, 1) is drawn first and layers vary around it,
        so that samples spread from mild to strong; independent draws would
        all compress about equally.

        Args:
            seed: Same seed, same candidate; >= 0.
        """
        rng = np.random.default_rng(seed)
        return self.from_params(stratified(self.parameters, self.layer_precisions, rng))

    def mutate(self, candidate: Candidate, seed: int, rate: float) -> Candidate:
        """Change some choices of a candidate, mostly by one step.

        Args:
            candidate: Where to start.
            seed: Same seed, same result; >= 0.
            rate: Probability that a parameter changes, (0, 1]. At least one
                does, unless the space has no other candidate.

        Returns:
            A canonical candidate that differs from the given one.
        """
        rng = np.random.default_rng(seed)
        start, params = self.canonical(candidate), self.to_params(candidate)
        changed = start
        for _ in range(ATTEMPTS):
            changed = self.from_params(mutated(self.parameters, params, rng, rate))
            if changed != start:
                break
        return changed

    def uniform(
        self,
        weight_bits: int,
        activation_bits: int,
        ratio: float,
        dropped: Sequence[str] = (),
        sparsity: SparsityLevel = DENSE,
    ) -> Candidate:
        """Treat every layer and every group alike, at the nearest choice.

        `uniform(32, 32, 0.0)` is the unmodified model, `uniform(8, 8, 0.0)`
        plain int8.

        Args:
            weight_bits: 1 to 8, or 32.
            activation_bits: 2 to 8, or 32.
            ratio: Fraction of channels removed, [0, 1).
            dropped: Names of blocks to drop.
            sparsity: Sparsity and pattern.
        """
        bits = dict.fromkeys(self.layers, (weight_bits, activation_bits))
        return self.canonical(
            Candidate(
                pruning_ratios=dict.fromkeys(self.pruning_choices, ratio),
                dropped_blocks=tuple(dropped),
                criterion=self.criteria[0],
                layers=layer_configs(bits, dict.fromkeys(self.sparse_layers, sparsity)),
            )
        )
