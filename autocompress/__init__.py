"""Automated joint neural-network compression: prune, drop, quantise and distil in one search.

Names load on first use, so that importing the package stays quick.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    # So that type checkers see the names.
    from autocompress import api, errors
    from autocompress.api import *  # noqa: F403
    from autocompress.errors import *  # noqa: F403

    __all__ = []
    __all__ += api.__all__
    __all__ += errors.__all__

_VERBS_AND_DATA = frozenset(
    {
        *("Artifact", "BoundSpace", "Budget", "Candidate", "CheckReport", "CompressedModel"),
        *(
            "DeviceProfile",
            "DistillConfig",
            "Event",
            "Executor",
            "FrontMember",
            "LatencyMeasurement",
        ),
        *("LayerConfig", "RuntimeModule", "SearchResult", "SearchSpace", "Target", "Task"),
        *("AccuracyPredictor", "JointSampler", "QuantisationConfig", "Recipe", "TrainingConfig"),
        *("Accelerator", "LookupTable", "Roofline", "SimulatedProfile", "Stop"),
        *("Cost", "Criterion"),
        *("allocate", "check", "compress", "export", "load", "measure_latency", "open", "profile"),
        *("resume", "search", "synthesise"),
    }
)

_ERRORS = frozenset(
    {
        *("AutocompressError", "ExportError", "InvalidInputError", "MeasurementError"),
        *("MismatchError", "MissingExtraError", "MissingFileError", "SearchFailedError"),
        *("StorageError", "StudyError", "TraceError", "TrainingError", "WrongTypeError"),
    }
)


def __getattr__(name: str) -> Any:
    if name in _VERBS_AND_DATA:
        return getattr(importlib.import_module("autocompress.api"), name)
    if name in _ERRORS:  # without torch, which the verbs need
        return getattr(importlib.import_module("autocompress.errors"), name)
    raise AttributeError(f"module 'autocompress' has no attribute '{name}'")


def __dir__() -> list[str]:
    return sorted(_VERBS_AND_DATA | _ERRORS)
