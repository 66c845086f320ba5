"""Where trials run: in this process, or on the workers of a Ray cluster."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from autocompress.core.schema import check_name, check_record
from autocompress.errors import InvalidInputError, check_type, explain

EXECUTORS = ("inline", "ray")
"""Names of the executors."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Executor:
    """Where trials run, and with what.

    Attributes:
        name: "inline" runs one trial after the other in this process, "ray"
            several at once by Ray Tune.
        address: A running Ray cluster, "auto" for the one of this host; None
            starts one here for the time of the search.
        workers: Trials that run at once, >= 1; None fills its nodes.
        cpus: CPUs of one worker, >= 1, and the threads that it computes with.
        gpus: GPUs of one worker, >= 0, for example 0.5 for two on each.
        seconds_per_trial: Time after which an evaluation of a candidate
            fails, > 0; None waits for ever. In this process it interrupts
            Python, not a kernel that never returns.
    """

    name: str = "inline"
    address: str | None = None
    workers: int | None = None
    cpus: int = 1
    gpus: float = 0.0
    seconds_per_trial: float | None = None

    def __post_init__(self) -> None:
        check_name("'executor'", self.name, EXECUTORS)
        if self.address is not None:
            check_type("executor 'address'", self.address, str)
        for key in ("workers", "cpus"):
            if (value := getattr(self, key)) is not None:
                check_type(f"executor '{key}'", value, int)
                _check(key, value, value >= 1, ">= 1")
        for key in ("gpus", "seconds_per_trial"):
            if (value := getattr(self, key)) is not None:
                check_type(f"executor '{key}'", value, int if isinstance(value, int) else float)
                fits, range_ = (value >= 0, ">= 0") if key == "gpus" else (value > 0, "> 0")
                _check(key, value, math.isfinite(value) and fits, f"a finite number {range_}")
        if self.name == "inline":
            for key in ("address", "workers", "cpus", "gpus"):
                if getattr(self, key) != _DEFAULTS[key]:
                    raise InvalidInputError(
                        explain(
                            f"executor '{key}'",
                            expected="nothing where trials run in this process",
                            got=repr(getattr(self, key)),
                            remedy="leave it out, or choose the executor 'ray'",
                        )
                    )

    @classmethod
    def of(cls, given: "str | Mapping[str, Any] | Executor") -> "Executor":
        """Read a name, keys and values, or an executor; unknown keys are refused.

        Example:
            >>> Executor.of("ray") == Executor.of({"name": "ray", "cpus": 1})
            True
        """
        if isinstance(given, Executor):
            return given
        if isinstance(given, str):
            return cls(name=given)
        return cls(**check_record(given, what="'executor'", keys=[f.name for f in fields(cls)]))


_DEFAULTS: dict[str, Any] = {"address": None, "workers": None, "cpus": 1, "gpus": 0.0}


def _check(key: str, got: object, valid: bool, expected: str) -> None:
    if not valid:
        raise InvalidInputError(
            explain(f"executor '{key}'", expected=expected, got=got, remedy="correct or omit it")
        )
