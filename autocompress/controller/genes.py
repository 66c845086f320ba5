"""Parameters of an Optuna study as rows of numbers, and how rows are drawn and varied."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

FloatArray = NDArray[np.float64]

NEAR = 0.1
"""Share of a parameter's range by which a small mutation moves it, on average."""

AROUND = 0.35
"""Standard deviation of the places of parameters around their row's level."""

BELOW_ONE = float(np.nextafter(1.0, 0.0))

SMALL = 0.5
"""Share of the mutations that are small; the others draw anew."""

FEW = 10
"""Values of a parameter up to which all are tried."""

CHANGES = (1, 2, 4)
"""Parameters that a child changes on average; one of these for each child."""

MOST_LISTED = 1000
"""Values up to which a parameter's are listed, which makes decoding quick."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Genes:
    """The parameters of a space, each as one column.

    A parameter with steps, a whole number or a choice is the index of its
    value; any other is its place in the range, [0, 1], on a log scale if its
    distribution has one.

    Attributes:
        distributions: By name, in the order of the columns.
        sizes: `d` numbers of values, 0 for a continuum.
        categorical: `d`, which columns are choices without an order.
        grids: The values of each parameter that has at most `MOST_LISTED`.
        first: `d` values of the first gene of whole numbers; 0 for others.
        steps: `d` steps between the values of whole numbers; 1 for others.
    """

    distributions: Mapping[str, BaseDistribution]
    sizes: NDArray[np.int64]
    categorical: NDArray[np.bool_]
    grids: tuple[tuple[Any, ...], ...]
    first: FloatArray
    steps: FloatArray

    @classmethod
    def of(cls, space: Mapping[str, BaseDistribution]) -> "Genes":
        """Describe a space by its distributions."""
        sizes = np.array([_size(distribution) for distribution in space.values()], dtype=np.int64)
        grids = [
            tuple(
                _decoded(distribution, gene) for gene in range(size if size <= MOST_LISTED else 0)
            )
            for distribution, size in zip(space.values(), sizes.tolist(), strict=True)
        ]
        kinds = [isinstance(d, CategoricalDistribution) for d in space.values()]
        whole = [
            (d.low, d.step) if isinstance(d, IntDistribution) else (0, 1) for d in space.values()
        ]
        first, steps = np.array(whole, dtype=np.float64).reshape(-1, 2).T
        return cls(
            distributions=dict(space),
            sizes=sizes,
            categorical=np.array(kinds, dtype=bool),
            grids=tuple(grids),
            first=first,
            steps=steps,
        )

    def encode(self, params: Mapping[str, Any]) -> FloatArray:
        """Return the row of some parameters, NaN where one is missing or out of range."""
        return np.array(
            [
                _encoded(distribution, params[name])
                if name in params and _within(distribution, params[name])
                else np.nan
                for name, distribution in self.distributions.items()
            ],
            dtype=np.float64,
        )

    def single(self) -> dict[str, Any]:
        """Return the parameters that have one value only."""
        kinds = self.distributions.items()
        return {name: _decoded(kind, 0.0) for name, kind in kinds if kind.single()}

    def decode(self, row: FloatArray) -> dict[str, Any]:
        """Return the parameters of a row."""
        columns = zip(self.distributions.items(), self.grids, row.tolist(), strict=True)
        return {
            name: grid[int(gene)] if grid else _decoded(distribution, gene)
            for (name, distribution), grid, gene in columns
        }

    def values(self, rows: FloatArray) -> FloatArray:
        """Return `n x d` values of the parameters; of a choice, its index."""
        table = self.first + self.steps * rows
        for column, distribution in enumerate(self.distributions.values()):
            if isinstance(distribution, FloatDistribution):
                table[:, column] = [_decoded(distribution, gene) for gene in rows[:, column]]
        return table

    def describe(self, rows: FloatArray) -> FloatArray:
        """Return places in the ranges, [0, 1], and an indicator for each unordered choice."""
        ordered = ~self.categorical
        places = rows / np.maximum(self.sizes - 1, 1)
        for column, distribution in enumerate(self.distributions.values()):
            if isinstance(distribution, IntDistribution) and distribution.log:
                value = distribution.low + rows[:, column]
                span = math.log(distribution.high / distribution.low) or 1.0
                places[:, column] = np.log(value / distribution.low) / span
        indicators = [
            rows[:, [column]] == np.arange(self.sizes[column])
            for column in np.flatnonzero(self.categorical)
        ]
        return np.concatenate([places[:, ordered], *indicators], axis=1, dtype=np.float64)

    def draw(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw rows uniformly, `count x d`."""
        return self._round(rng.random((count, len(self.sizes))))

    def draw_level(self, count: int, rng: np.random.Generator) -> FloatArray:
        """Draw rows of which each has a level, [0, 1], that its ordered parameters vary around."""
        places = rng.random((count, 1)) + rng.normal(0.0, AROUND, (count, len(self.sizes)))
        level = self._round(np.clip(places, 0.0, BELOW_ONE))
        return np.where(self.categorical, self.draw(count, rng), level)

    def vary(self, first: FloatArray, second: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Cross pairs of parents uniformly, then mutate a few columns of each child.

        Args:
            first: `n x d` rows.
            second: `n x d` rows.
            rng: Source of randomness.

        Returns:
            `n x d` children.
        """
        shape = first.shape
        child = np.where(rng.random(shape) < 0.5, first, second)
        return self.mutate(child, rng)

    def mutate(self, rows: FloatArray, rng: np.random.Generator) -> FloatArray:
        """Change a few columns of each row: by a little, or to any value."""
        shape = rows.shape
        rate = rng.choice(CHANGES, (shape[0], 1)) / shape[1]
        few = (self.sizes > 0) & (self.sizes <= FEW)
        step = np.where(rng.random(shape) < 0.5, -1.0, 1.0)
        far = rng.normal(size=shape) * NEAR * np.maximum(self.sizes, 1)
        moved = rows + np.where(few, step, far)
        small = (rng.random(shape) < SMALL) & ~self.categorical
        fresh = self.draw(shape[0], rng)
        mutated = np.where(small, self._inside(moved), fresh)
        return np.where(rng.random(shape) < rate, mutated, rows)

    def neighbours(
        self, row: FloatArray, rng: np.random.Generator
    ) -> tuple[NDArray[np.int64], FloatArray]:
        """Change each parameter alone: to all other values if they are few, or to some.

        Returns:
            `n` columns that were changed, ascending; `n x d` changed rows.
        """
        columns, values = [], []
        for column, size in enumerate(self.sizes.tolist()):
            if 0 < size <= FEW:
                options = np.delete(np.arange(size, dtype=np.float64), int(row[column]))
            else:
                drawn = rng.random(FEW - 1)
                options = np.floor(drawn * size) if size else drawn
            columns.append(np.full(len(options), column))
            values.append(options)
        where = np.concatenate(columns)
        rows = np.repeat(row[None], len(where), axis=0)
        rows[np.arange(len(where)), where] = np.concatenate(values)
        return where, rows

    def _round(self, places: FloatArray) -> FloatArray:
        """Turn uniform numbers in [0, 1) into genes."""
        return np.where(self.sizes > 0, np.floor(places * self.sizes), places)

    def _inside(self, rows: FloatArray) -> FloatArray:
        """Return the nearest valid rows."""
        whole = np.clip(np.round(rows), 0, np.maximum(self.sizes - 1, 0))
        return np.where(self.sizes > 0, whole, np.clip(rows, 0.0, 1.0))


def _size(distribution: BaseDistribution) -> int:
    """Count the values of a distribution, 0 for a continuum."""
    if isinstance(distribution, CategoricalDistribution):
        return len(distribution.choices)
    if isinstance(distribution, IntDistribution):
        return (distribution.high - distribution.low) // distribution.step + 1
    distribution = _continuous(distribution)
    if distribution.single():
        return 1
    if distribution.step is None:
        return 0
    return round((distribution.high - distribution.low) / distribution.step) + 1


def _continuous(distribution: BaseDistribution) -> FloatDistribution:
    """Tell the type checker what is left: Optuna has three kinds."""
    return cast("FloatDistribution", distribution)


def _within(distribution: BaseDistribution, value: Any) -> bool:
    if isinstance(distribution, CategoricalDistribution):
        return value in distribution.choices
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def _encoded(distribution: BaseDistribution, value: Any) -> float:
    if isinstance(distribution, CategoricalDistribution):
        return float(distribution.to_internal_repr(value))
    if isinstance(distribution, IntDistribution):
        return float((value - distribution.low) // distribution.step)
    distribution = _continuous(distribution)
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        return float(round((value - low) / distribution.step))
    if distribution.log:
        low, high, value = math.log(low), math.log(high), math.log(value)
    return (value - low) / (high - low) if high > low else 0.0


def _decoded(distribution: BaseDistribution, gene: float) -> Any:
    if isinstance(distribution, CategoricalDistribution):
        return distribution.to_external_repr(int(gene))
    if isinstance(distribution, IntDistribution):
        return int(distribution.low + distribution.step * gene)
    distribution = _continuous(distribution)
    low, high = distribution.low, distribution.high
    if distribution.step is not None:
        return min(low + distribution.step * gene, high)
    value = low + gene * (high - low)
    if distribution.log:
        value = math.exp(math.log(low) + gene * (math.log(high) - math.log(low)))
    return min(max(value, low), high)
