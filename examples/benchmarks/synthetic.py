"""Synthetic compression problems, on which samplers are compared; their figures as a table.

    python examples/benchmarks/synthetic.py

A problem has 20, 80 or 150 integer variables, each the index of one layer's choice: 0 leaves
the layer as it is and the last one compresses it most. The cost is exact and multiplies
neighbours' choices, as pruning does. The accuracy loses a damage per layer and choice and a term
per pair of layers (a third of the pairs hurt less together than apart), collapses to chance
where both layers of a fragile pair are compressed most, and carries noise that is fixed per
point, as that of a fixed subset of images is. Each choice comes with an estimate of its damage;
the sum of the estimates ranks random points with a Spearman correlation of at most 0.7.

All was fixed before any sampler was tuned. Samplers may be tuned on `TUNING` and are reported
on `REPORTED` instances.
"""

import argparse
import json
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from rich.console import Console
from rich.table import Table
from scipy.stats import spearmanr

SIZES = (20, 80, 150)
REPORTED = tuple(range(10))
TUNING = tuple(range(100, 103))

CHANCE, WHOLE = 0.1, 0.92
NOISE = 0.004
LIKENESS = 0.7
REFERENCE = (WHOLE - 0.2, 1.0)
"""Accuracy and cost of the corner that hypervolume is measured from."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Problem:
    """One instance.

    Attributes:
        choices: `d` numbers of choices, 3 to 5.
        cost: `d x 5` cost factors by choice, (0, 1]; the last columns repeat.
        share: `d` shares of the cost, summing to 1.
        damage: `d x 5` losses by choice, before they are added up and bent.
        estimate: `d x 5` noisy estimates of the damages.
        pairs: `p x 2` variables that interact.
        strength: `p` losses when both of a pair are compressed most; some are negative.
        fragile: `f x 2` variables that collapse together.
        seed: The instance.
    """

    choices: np.ndarray
    cost: np.ndarray
    share: np.ndarray
    damage: np.ndarray
    estimate: np.ndarray
    pairs: np.ndarray
    strength: np.ndarray
    fragile: np.ndarray
    seed: int

    def costs(self, points: np.ndarray) -> np.ndarray:
        """Compute the exact cost of `n x d` points, (0, 1]."""
        factors = self.cost[np.arange(len(self.choices)), points]
        before = np.concatenate([np.ones((len(points), 1)), factors[:, :-1]], axis=1)
        return (self.share * factors * np.sqrt(before)).sum(axis=1)

    def true_accuracies(self, points: np.ndarray) -> np.ndarray:
        """Compute the accuracy of `n x d` points without noise."""
        level = points / (self.choices - 1)
        loss = self.damage[np.arange(len(self.choices)), points].sum(axis=1)
        loss += (level[:, self.pairs[:, 0]] * level[:, self.pairs[:, 1]]) @ self.strength
        accuracy = WHOLE - 0.5 * np.maximum(loss, 0.0) ** 1.5
        deepest = level[:, self.fragile] == 1.0
        collapsed = deepest.all(axis=2).any(axis=1)
        return np.maximum(CHANCE, np.where(collapsed, CHANCE, accuracy))

    def accuracies(self, points: np.ndarray) -> np.ndarray:
        """Compute what a trial of each of `n x d` points observes, noise included."""
        keys = [zlib.crc32(np.asarray(point, dtype=np.int8).tobytes()) for point in points]
        noise = [np.random.default_rng([self.seed, key]).normal(0.0, NOISE) for key in keys]
        return np.clip(self.true_accuracies(points) + noise, 0.0, 1.0)

    def estimates(self, points: np.ndarray) -> np.ndarray:
        """Look up the estimated damages of `n x d` points, and add their sum as a column."""
        found = self.estimate[np.arange(len(self.choices)), points]
        return np.concatenate([found, found.sum(axis=1, keepdims=True)], axis=1)

    def draw(self, count: int, seed: int) -> np.ndarray:
        """Draw points uniformly, `count x d`."""
        rng = np.random.default_rng([self.seed, seed])
        return rng.integers(0, self.choices, size=(count, len(self.choices)))


def make_problem(variables: int, seed: int) -> Problem:
    """Make an instance; equal arguments give equal instances."""
    rng = np.random.default_rng([variables, seed])
    choices = rng.integers(3, 6, size=variables)
    level = np.minimum(np.arange(5) / (choices[:, None] - 1), 1.0)
    share = rng.lognormal(0.0, 1.0, size=variables)
    weight = rng.lognormal(0.0, 1.2, size=variables)
    bend = rng.uniform(1.0, 3.0, size=(variables, 1))
    damage = (weight / weight.sum())[:, None] * level**bend
    near = np.stack([np.arange(variables - 1), np.arange(1, variables)], axis=1)
    far = np.sort(rng.permuted(np.tile(np.arange(variables), (variables, 1)), axis=1)[:, :2])
    pairs = np.concatenate([near, far])
    strength = rng.lognormal(0.0, 1.0, size=len(pairs))
    strength *= 0.6 * np.where(rng.random(len(pairs)) < 1 / 3, -1.0, 1.0) / strength.sum()
    fragile = rng.permutation(variables)[: 2 * (1 + variables // 80)].reshape(-1, 2)
    exact = Problem(
        choices=choices,
        cost=1.0 - rng.uniform(0.7, 0.9, size=(variables, 1)) * level**0.8,
        share=share / share.sum(),
        damage=damage,
        estimate=damage,
        pairs=pairs,
        strength=strength,
        fragile=fragile,
        seed=seed,
    )
    error = rng.normal(size=damage.shape)
    spread = 0.0
    while True:  # ends: with ever more noise the estimates say nothing
        spread += 0.1
        estimate = np.sort(damage * np.exp(spread * error), axis=1)
        fields = {name: getattr(exact, name) for name in Problem.__slots__}
        problem = Problem(**{**fields, "estimate": estimate})
        if likeness(problem) <= LIKENESS:
            return problem


def likeness(problem: Problem) -> float:
    """Return the Spearman correlation of estimated and observed quality of random points."""
    points = problem.draw(2000, seed=0)
    ranks = spearmanr(-problem.estimates(points)[:, -1], problem.true_accuracies(points))
    return float(ranks.statistic)


def main() -> None:
    """Describe the reported instances as a table and, if asked to, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", type=Path, help="where to write the figures")
    parser.add_argument("--smoke", action="store_true", help="one instance of each size")
    options = parser.parse_args()
    table = Table("variables", "instance", "likeness", "collapsed", "accuracy, 10 to 90 %", "cost")
    rows = []
    for variables in SIZES:
        for seed in REPORTED[:1] if options.smoke else REPORTED:
            problem = make_problem(variables, seed)
            points = problem.draw(2000, seed=1)
            accuracy = problem.true_accuracies(points)
            low, high = np.quantile(accuracy, (0.1, 0.9))
            row = {
                "variables": variables,
                "seed": seed,
                "likeness": likeness(problem),
                "collapsed": float((accuracy == CHANCE).mean()),
                "accuracy": [float(low), float(high)],
                "cost": float(problem.costs(points).mean()),
            }
            rows.append(row)
            table.add_row(
                str(variables),
                str(seed),
                f"{row['likeness']:.3f}",
                f"{row['collapsed']:.1%}",
                f"{low:.3f} to {high:.3f}",
                f"{row['cost']:.3f}",
            )
    Console(width=100).print(table)
    if options.json:
        options.json.write_text(json.dumps({"noise": NOISE, "problems": rows}, indent=2) + "\n")


if __name__ == "__main__":
    main()
