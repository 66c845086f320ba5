"""The plan of a search, before anything of it is done."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from autocompress.controller.finish import most_finalists
from autocompress.controller.preflight import Preflight
from autocompress.controller.trials import EARLY_MEMBERS, PROMOTED_SHARE
from autocompress.core.budget import FINALIST_SHARE, Budget

PAGE_BYTES = 6_000_000
"""Size of the report, about."""

TRIAL_BYTES = 20_000
"""What the ledger keeps of a trial, about."""

ASSUMED_TRIALS = 100
"""Trials assumed where only minutes are budgeted."""


@dataclass(frozen=True, kw_only=True, slots=True)
class SearchPlan:
    """What a search would do, and what it would need.

    Attributes:
        study_dir: Where it would write.
        stages: Each stage and what happens in it, in order.
        seconds: An estimate of the time; None where it is not known.
        disk_bytes: An estimate of the disk space, rather too much than too little.
        free_bytes: What is free there.
    """

    study_dir: str
    stages: tuple[tuple[str, str], ...]
    seconds: float | None
    disk_bytes: int
    free_bytes: int

    @classmethod
    def of(cls, found: Preflight, budget: Budget, study_dir: str) -> "SearchPlan":
        """Make the plan of a search.

        Args:
            found: What a check found in the model.
            budget: What may be spent.
            study_dir: Folder of the study; it need not be there.
        """
        groups = sum(group.prunable for group in found.groups)
        blocks = sum(block.droppable for block in found.blocks)
        layers = sum(layer.quantisable for layer in found.layers)
        trials = f"{budget.trials} candidates" if budget.trials else "as many as fit"
        if budget.minutes is not None:
            trials += f", within {(1 - FINALIST_SHARE) * budget.minutes:.3g} of the minutes"
        finalists = most_finalists(budget)
        stages = (
            ("baseline", "export and measure the original and plain int8"),
            ("profile", "time kernels and whole candidates on the target, or read a profile"),
            ("sensitivity", f"try {groups} groups, {blocks} blocks and {layers} layers alone"),
            ("trials", f"{trials}; about {PROMOTED_SHARE:.0%} get a short fine-tune"),
            ("finalists", f"fine-tune, export and verify up to {finalists} candidates"),
            ("measure", "measure all members side by side, write front and report"),
        )
        count = budget.trials or ASSUMED_TRIALS
        whole = 4 * sum(layer.parameters for layer in found.layers)
        trained = int(PROMOTED_SHARE * count) + finalists
        members = 2 + EARLY_MEMBERS + finalists
        folder = next(p for p in (Path(study_dir), *Path(study_dir).parents) if p.is_dir())
        return cls(
            study_dir=study_dir,
            stages=stages,
            seconds=found.search_seconds,
            disk_bytes=whole * (trained + 2 * members) + count * TRIAL_BYTES + PAGE_BYTES,
            free_bytes=shutil.disk_usage(folder).free,
        )

    def table(self) -> Table:
        """Lay the stages out."""
        table = Table(
            title=Text(f"Plan for '{self.study_dir}'; nothing was written", style="italic")
        )
        for header in ("stage", "what happens"):
            table.add_column(header, overflow="fold")
        for stage, words in self.stages:
            table.add_row(stage, words)
        return table

    def disk(self) -> str:
        """Say how much disk space it takes, and whether it is there."""
        need, free = self.disk_bytes / 1e6, self.free_bytes / 1e6
        warning = "" if need < free else "; NOT ENOUGH"
        return f"disk: up to {need:,.0f} MB of {free:,.0f} MB that are free{warning}"

    def to_dict(self) -> dict[str, Any]:
        """Return the plan as JSON."""
        return {
            "study_dir": self.study_dir,
            "stages": dict(self.stages),
            "seconds_estimate": self.seconds,
            "disk_bytes_estimate": self.disk_bytes,
            "free_bytes": self.free_bytes,
        }
