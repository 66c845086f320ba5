"""What the page's own script needs: members with their layers, limits to move, commands."""

import json
import math
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from autocompress.report.figures import cost_axis
from autocompress.report.layers import known_structure, layer_changes
from autocompress.report.summary import Member, describe
from autocompress.report.training import distillation_words

DIGITS = 4
"""Significant digits of the limits that sliders offer."""

SHOWN_FLOAT = 10
"""Height at which unquantised layers are drawn, above 8 bits."""


def explorer_data(
    members: Mapping[str, Sequence[Member]],
    costs: Sequence[str],
    structure: Mapping[str, Sequence[Mapping[str, Any]]],
    study_dir: str,
) -> dict[str, Any]:
    """Collect what can be looked at and picked.

    Args:
        members: Members by kind: "front", "dominated", "infeasible".
        costs: The costs among the objectives; the first one breaks ties.
        structure: Layers and groups of the model, as `layer_changes` reads
            them; {} where the study kept none.
        study_dir: The study's folder, for the commands.

    Returns:
        "layers", their names; "sliders", one per limit, each with the values
        that it offers from the strictest on; "members"; and "costs".
    """
    every = [(kind, member) for kind, own in members.items() for member in own]
    structure = structure or known_structure([member.candidate for _, member in every])
    measured = [cost for cost in costs if all(cost in m.measured for _, m in every)]
    return {
        "layers": [layer["name"] for layer in structure["layers"]],
        "study": study_dir,
        "shell": shlex.quote(study_dir),
        "costs": measured,
        "sliders": [_slider(name, [m for _, m in every]) for name in ("accuracy", *measured)],
        "members": [_member(kind, member, measured, structure) for kind, member in every],
    }


def as_script(data: Mapping[str, Any]) -> str:
    """Write data as JSON that can stand inside a script element, whatever it says."""
    text = json.dumps(data, allow_nan=False, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def rounded(value: float, digits: int, *, up: bool) -> float:
    """Round to significant digits, towards what a limit may allow.

    Example:
        >>> rounded(0.123456, 4, up=True), rounded(0.98765, 4, up=False)
        (0.1235, 0.9876)
    """
    if value == 0.0:
        return 0.0
    places = digits - 1 - math.floor(math.log10(abs(value)))
    scaled = value * 10.0**places
    whole = math.ceil(scaled - 1e-9) if up else math.floor(scaled + 1e-9)
    return whole / 10**places if places >= 0 else float(whole * 10**-places)


def _slider(name: str, members: Sequence[Member]) -> dict[str, Any]:
    if name == "accuracy":
        values = {rounded(m.measured["val_accuracy"], DIGITS, up=False) for m in members}
        title, scale = "accuracy on val (%)", 100.0
    else:
        values = {rounded(m.measured[name], DIGITS, up=True) for m in members}
        title, scale = cost_axis(name)
    return {
        "name": name,
        "title": title,
        "scale": scale,
        "values": sorted(values, reverse=name == "accuracy"),
    }


def _member(
    kind: str,
    member: Member,
    costs: Sequence[str],
    structure: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Any]:
    changes = layer_changes(member.candidate, structure).values()
    return {
        "id": member.id,
        "kind": kind,
        "done": describe(member.candidate),
        "accuracy": member.measured["val_accuracy"],
        "test": member.measured.get("accuracy"),
        "costs": {cost: member.measured[cost] for cost in costs},
        "predicted": {
            name: member.predicted[name]
            for name in ("accuracy", *costs)
            if name in member.predicted
        },
        "kept": [round(100.0 * change.kept, 1) for change in changes],
        "weights": [_shown(change.weight_bits, change.dropped) for change in changes],
        "activations": [_shown(change.activation_bits, change.dropped) for change in changes],
        "sparsity": [round(100.0 * change.sparsity, 1) for change in changes],
        "distillation": "none, since it was not trained"
        if member.measured.get("trained_images") == 0
        else distillation_words(member.candidate.distill),
    }


def _shown(bits: int, dropped: bool) -> int | None:
    return None if dropped else min(bits, SHOWN_FLOAT)
