"""What a member left of every layer, for the report's picture of it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from autocompress.core.candidate import Candidate


@dataclass(frozen=True, kw_only=True, slots=True)
class LayerChange:
    """What became of one layer.

    Attributes:
        kept: Fraction of its output channels that are left, [0, 1]; 0 where
            the block around it was dropped.
        weight_bits: 1 to 8, or 32 for unquantised.
        activation_bits: Of its inputs, 2 to 8, or 32 for unquantised.
        sparsity: Fraction of its weights that are zero, [0, 1).
        dropped: Whether it lies in a dropped block.
    """

    kept: float
    weight_bits: int
    activation_bits: int
    sparsity: float
    dropped: bool


def layer_changes(
    candidate: Candidate, structure: Mapping[str, Sequence[Mapping[str, Any]]]
) -> dict[str, LayerChange]:
    """Say what a candidate leaves of every layer.

    Args:
        candidate: The candidate.
        structure: "layers" with "name", and "groups" with "name" and
            "outputs", the share of each layer's outputs that the group
            makes up; as `check_json` has them.

    Returns:
        One entry per layer, in the order of the structure.

    Example:
        >>> groups = [{"name": "conv1", "outputs": {"conv1": 1.0}}]
        >>> structure = {"layers": [{"name": "conv1"}], "groups": groups}
        >>> layer_changes(Candidate(pruning_ratios={"conv1": 0.25}), structure)["conv1"].kept
        0.75
    """
    removed: dict[str, float] = {}
    for group in structure.get("groups", ()):
        ratio = candidate.pruning_ratios.get(group["name"], 0.0)
        for name, share in group["outputs"].items():
            removed[name] = removed.get(name, 0.0) + ratio * share
    changes = {}
    for layer in structure.get("layers", ()):
        name = layer["name"]
        config, dropped = candidate.layer(name), candidate.drops(name)
        changes[name] = LayerChange(
            kept=0.0 if dropped else 1.0 - removed.get(name, 0.0),
            weight_bits=config.weight_bits,
            activation_bits=config.activation_bits,
            sparsity=config.sparsity,
            dropped=dropped,
        )
    return changes


def known_structure(candidates: Sequence[Candidate]) -> dict[str, list[dict[str, Any]]]:
    """Collect the layers and groups that candidates name, where a study kept no structure.

    Args:
        candidates: Members of the study.

    Returns:
        As `layer_changes` reads it; a group stands for its first layer.
    """
    names: dict[str, None] = {}
    for candidate in candidates:
        names |= dict.fromkeys((*candidate.layers, *candidate.pruning_ratios))
    return {
        "layers": [{"name": name} for name in sorted(names)],
        "groups": [{"name": name, "outputs": {name: 1.0}} for name in names],
    }
