"""What a check found in a model, as tables and as JSON."""

import io
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from autocompress.controller.preflight import Preflight
from autocompress.graph.structure import ChannelGroup, Layer, ModelGraph
from autocompress.report.savings import savings_json, savings_tables, search_time

WIDTH = 100
"""Columns of a printed report."""


@dataclass(frozen=True, kw_only=True, repr=False)
class CheckReport(Preflight):
    """What `check` found: plain data, to be read, printed or written as JSON.

    `print(report)` shows the tables of `autocompress check`.
    """

    __hash__ = Preflight.__hash__

    @classmethod
    def of(cls, found: Preflight) -> "CheckReport":
        """Take over what was found."""
        return cls(**{item.name: getattr(found, item.name) for item in fields(found)})

    def to_dict(self) -> dict[str, Any]:
        """Return everything as what JSON can hold; `autocompress check --json` writes it.

        Returns:
            "groups", "blocks" and "layers", each a list of dictionaries with
            "name", whether it can be compressed ("prunable", "droppable",
            "quantisable") and the "reason" why not; "macs" and
            "size_bytes_8_bit" of the whole model; "savings", a list of what
            each part that varies could give alone; and
            "search_seconds_estimate", None without a task and a budget.
        """
        return check_json(self) | savings_json(self)

    def tables(self) -> list[Table]:
        """Lay it out as tables: groups, blocks and layers, then what each part could give."""
        return [*check_tables(self), *savings_tables(self)]

    def __str__(self) -> str:
        console = Console(file=io.StringIO(), width=WIDTH, force_terminal=False)
        with console.capture() as captured:
            for table in self.tables():
                console.print(table)
            for line in (search_time(self), check_summary(self)):
                console.print(line, soft_wrap=True, markup=False, highlight=False)
        return captured.get().rstrip()


def check_tables(found: ModelGraph) -> list[Table]:
    """Lay out what can be compressed, what cannot, and why not.

    Args:
        found: The findings.

    Returns:
        Tables of groups, of blocks if there are any, and of layers.
    """
    groups = _table(
        "Channel groups: what shrinks together, named by its first layer",
        ("group", "channels", "what shrinks", "prunable"),
        numbers=("channels",),
    )
    for group in found.groups:
        members = ", ".join(_modules(group))
        verdict = _verdict(group.prunable, group.reason)
        _row(groups, group.name, str(group.channels), members, verdict)
    blocks = _table(
        "Residual blocks: what can be dropped",
        ("block", "layers", "droppable"),
        numbers=("layers",),
    )
    for block in found.blocks:
        verdict = _verdict(block.droppable, block.reason)
        _row(blocks, block.name, str(len(block.layers)), verdict)
    layers = _table(
        "Layers",
        ("layer", "type", "weight", "MACs", "parameters", "quantisable"),
        numbers=("MACs", "parameters"),
    )
    for layer in found.layers:
        _row(
            layers,
            layer.name,
            layer.type,
            "x".join(map(str, layer.weight_shape)),
            f"{layer.macs:,}",
            f"{layer.parameters:,}",
            _verdict(layer.quantisable, layer.reason),
        )
    return [groups, *([blocks] if found.blocks else []), layers]


def check_summary(found: ModelGraph) -> str:
    """Count in one line what can be compressed."""
    groups = sum(group.prunable for group in found.groups)
    blocks = sum(block.droppable for block in found.blocks)
    layers = sum(layer.quantisable for layer in found.layers)
    return (
        f"{groups} of {len(found.groups)} groups can be pruned, "
        f"{blocks} of {len(found.blocks)} blocks dropped, "
        f"{layers} of {len(found.layers)} layers quantised; "
        f"{sum(layer.macs for layer in found.layers):,} MACs"
    )


def check_json(found: ModelGraph) -> dict[str, Any]:
    """Return the same as plain JSON; "outputs" of a group are shares of its layers' outputs."""
    layers = {layer.name: layer for layer in found.layers}
    return {
        "groups": [
            {
                "name": group.name,
                "channels": group.channels,
                "members": _modules(group),
                "outputs": {
                    member.module: sum(map(len, member.indices)) / _outputs(layers[member.module])
                    for member in group.members
                    if member.axis == "out" and member.module in layers
                },
                "prunable": group.prunable,
                "reason": group.reason,
            }
            for group in found.groups
        ],
        "blocks": [
            {
                "name": block.name,
                "layers": list(block.layers),
                "droppable": block.droppable,
                "reason": block.reason,
            }
            for block in found.blocks
        ],
        "layers": [
            {
                "name": layer.name,
                "type": layer.type,
                "macs": layer.macs,
                "parameters": layer.parameters,
                "quantisable": layer.quantisable,
                "reason": layer.reason,
            }
            for layer in found.layers
        ],
    }


def _outputs(layer: Layer) -> int:
    """Count the output channels of a layer."""
    return layer.weight_shape[1] * layer.groups if layer.inputs_first else layer.weight_shape[0]


def _modules(group: ChannelGroup) -> list[str]:
    """Name everything that shrinks with a group, each once."""
    return list(dict.fromkeys(member.module or "(the model itself)" for member in group.members))


def _table(title: str, headers: Sequence[str], numbers: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    for header in headers:
        table.add_column(header, justify="right" if header in numbers else "left", overflow="fold")
    return table


def _row(table: Table, *cells: str) -> None:
    """Add texts as they are: brackets in them are no markup."""
    table.add_row(*map(Text, cells))


def _verdict(allowed: bool, reason: str) -> str:
    return "yes" if allowed else f"no: {reason}"
