"""Automated joint neural-network compression: prune, drop, quantise and distil in one search.

Names load on first use, so that importing the package stays quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from autocompress.api import *  # noqa: F403  so that type checkers see the names
    from autocompress.api import __all__ as __all__

_PUBLIC = frozenset(
    {
        *("Artifact", "BoundSpace", "Budget", "Candidate", "CheckReport", "CompressedModel"),
        *("DeviceProfile", "DistillConfig", "Event", "FrontMember", "LatencyMeasurement"),
        *("LayerConfig", "RuntimeModule", "SearchResult", "SearchSpace", "Target", "Task"),
        "TrainingConfig",
        *("check", "compress", "export", "load", "measure_latency", "open", "profile"),
        *("resume", "search"),
    }
)


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module("autocompress.api"), name)
    raise AttributeError(f"module 'autocompress' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(_PUBLIC)
