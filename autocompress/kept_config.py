"""The configuration that a study keeps, and how it is continued with it."""

import json
import os
import shlex
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from autocompress.config import SearchConfig, load_config
from autocompress.core.quantisation import AUTO, QuantisationConfig
from autocompress.core.training import TrainingConfig
from autocompress.errors import (
    AutocompressError,
    InvalidInputError,
    MissingFileError,
    StudyError,
    WrongTypeError,
    explain,
)
from autocompress.yaml_file import dump_yaml, read_yaml

KEPT = "config.yaml"
"""Name of the file in the folder of a study."""

RENEWED = ("constraints", "budget", "executor", "sampler", "device")
"""Settings that a later call may change, beside `training` and `quantisation`."""


def load_kept_config(
    study_dir: str | Path,
    *,
    trials: int | None = None,
    minutes: float | None = None,
    trust: bool = False,
) -> SearchConfig:
    """Read the configuration that a study keeps.

    Args:
        study_dir: The folder of the study, wherever it is now.
        trials: Replaces the budget's trials, if given.
        minutes: Replaces the budget's minutes, if given.
        trust: Whether the study may name factories although another user wrote it.

    Raises:
        InvalidInputError: If the study was started from Python, where model
            and task are objects, not factories.
        MissingFileError: If the folder holds no configuration.
        StudyError: If another user wrote it, without `trust`.
    """
    path = Path(study_dir) / KEPT
    if not path.exists():
        raise MissingFileError(
            explain(
                f"'{study_dir}'",
                expected=f"a folder with the {KEPT} of a study",
                got="none there",
                remedy="check the path, or run a search with this study_dir",
            )
        )
    if not trust:
        _check_own(path)
    if not _has_factories(read_yaml(path)):
        raise InvalidInputError(
            explain(
                f"'{path}'",
                expected="a 'model' and a 'task' to make",
                got="the settings of a search that was started from Python",
                remedy=f"call {_from_python(study_dir)}",
            )
        )
    folder = str(Path(study_dir).absolute())
    return load_config(path, study_dir=folder, trials=trials, minutes=minutes)


def text_to_keep(study_dir: str | Path, settings: Mapping[str, Any]) -> str:
    """Compose the `config.yaml` of a search that was called from Python.

    Where the study keeps the factories of a search from a shell, they stay,
    and only the settings that a later call may change are renewed; so the
    study can be resumed from either side.

    Args:
        study_dir: The folder of the study.
        settings: What the search was called with, model and task apart.

    Returns:
        YAML.
    """
    kept, settings = _kept(study_dir), json.loads(json.dumps(settings))  # plain numbers and lists
    same = all(kept.get(key) == settings[key] for key in ("objectives", "seed"))
    if not (_has_factories(kept) and same):
        return dump_yaml(settings)
    return dump_yaml({**kept, **_renewed(kept, settings)})


def _renewed(kept: Mapping[str, Any], settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that are written anew; what stands for the same stays as it is."""
    found = {key: settings[key] for key in (*RENEWED, "training", "quantisation")}
    for key, read in (("training", TrainingConfig), ("quantisation", QuantisationConfig)):
        try:
            made = json.loads(json.dumps(asdict(read.from_mapping(kept.get(key, {})))))
        except AutocompressError:  # somebody has changed it
            continue
        if made.get("reduce_range") == AUTO:  # settings say what the target made of it
            made["reduce_range"] = settings[key]["reduce_range"]
        if made == settings[key]:
            del found[key]
    return found


def how_to_continue(study_dir: str | Path) -> str:
    """Return the call that continues a study, from a shell if it keeps its factories."""
    if _has_factories(_kept(study_dir)):
        return f"autocompress resume {shlex.quote(str(study_dir))}"
    return _from_python(study_dir)


def _check_own(path: Path) -> None:
    """Refuse a configuration of another user: whose it is decides what code runs."""
    if not hasattr(os, "getuid") or not path.is_file():
        return
    owner = path.stat().st_uid
    if owner != os.getuid():
        raise StudyError(
            explain(
                f"'{path}'",
                expected="a study of your own, since resuming runs the code that it names",
                got=f"one of the user with number {owner}",
                remedy="read its 'model', 'task' and 'folder', then add --trust",
            )
        )


def _kept(study_dir: str | Path) -> Mapping[str, Any]:
    """Read a kept configuration; one that is absent or damaged counts as empty."""
    path = Path(study_dir) / KEPT
    try:
        return read_yaml(path) if path.is_file() else {}
    except (InvalidInputError, WrongTypeError):
        return {}


def _from_python(study_dir: str | Path) -> str:
    return f"autocompress.resume({str(study_dir)!r}, model, task)"


def _has_factories(record: Mapping[str, Any]) -> bool:
    return "model" in record and "task" in record
