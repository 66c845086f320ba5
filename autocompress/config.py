"""The configuration of a search: a YAML file, checked key by key."""

import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import BaseModel, Field, PrivateAttr, ValidationError, field_validator

from autocompress.config_sections import (
    BudgetSection,
    ExecutorSection,
    FactorySection,
    ModelSection,
    Section,
    TargetSection,
)
from autocompress.core.addresses import absolute_storage
from autocompress.core.budget import Budget
from autocompress.core.executor import Executor
from autocompress.core.objective import cost_names, parse_constraints, parse_objectives
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.schema import expected_value, unknown_name
from autocompress.core.seeds import check_seed
from autocompress.core.target import Target
from autocompress.core.training import TrainingConfig
from autocompress.errors import InvalidInputError, MissingFileError, WrongTypeError, explain
from autocompress.factories import call_factory, load_weights
from autocompress.overrides import override, read_overrides, variable_name
from autocompress.yaml_file import dump_yaml, line_of, read_yaml

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails
    from torch import nn

    from autocompress.evaluation.task import Task


@dataclass(frozen=True, kw_only=True, slots=True)
class Source:
    """Where values come from, for errors; no difference between two configurations.

    Attributes:
        path: The file.
        others: What replaced some of its values, as it was written.
        overridden: Last keys of those.
    """

    path: Path = field(compare=False)
    others: Sequence[str] = field(compare=False)
    overridden: Set[str] = field(compare=False)

    def of(self, keys: Sequence[str | int], mentioned: str = "") -> str:
        """Name file and line of the way to a key, or of a key further in that a text quotes."""
        elsewhere = {keys[-1], *re.findall(r"'(\w+)'", mentioned)} & self.overridden
        line = None if elsewhere else line_of(self.path, keys, mentioned)
        place = f"'{self.path}'" if line is None else f"'{self.path}', line {line}"
        return " with ".join([place, *self.others])


class SearchConfig(Section):
    """Everything that `autocompress search` needs to know.

    Attributes:
        model: How to make the trained model.
        task: How to make the task, with its data.
        target: The device.
        objectives: "accuracy" and the costs to minimise.
        constraints: Limits by name, absolute or in percent of the original.
        space: Name of a preset, or path of a search space.
        budget: What may be spent in total.
        training: How candidates are cut and quantised while they are trained;
            keys as in `TrainingConfig`.
        quantisation: How grids are chosen; keys as in `QuantisationConfig`.
        teachers: Models that teach beside the original, made as it is.
        executor: Where trials run.
        storage: Where a new study keeps its trials; a file in its folder by default.
        sampler: What proposes candidates.
        warm_start: Folders of earlier studies, to learn from.
        device: The torch device that trains and evaluates.
        seed: Seed of the run.
        study_dir: Folder of the study; `runs/<name of the file>` by default.
        folder: Where factories, weights and spaces are looked for; the
            folder of the file by default.
    """

    model: ModelSection
    task: FactorySection
    target: TargetSection = TargetSection()
    objectives: tuple[str, ...] = Field(default=("accuracy", "latency_ms"), strict=False)
    constraints: dict[str, Any] = Field(default_factory=dict)
    space: str = "cnn"
    budget: BudgetSection
    training: dict[str, Any] = Field(default_factory=dict)
    quantisation: dict[str, Any] = Field(default_factory=dict)
    teachers: tuple[ModelSection, ...] = Field(default=(), strict=False)
    executor: ExecutorSection = ExecutorSection()
    storage: str | None = None
    sampler: Literal["joint", "tpe", "random", "nsga2", "gp", "haq"] = "joint"
    warm_start: tuple[str, ...] = Field(default=(), strict=False)
    device: str = "cpu"
    seed: int = 0
    study_dir: str
    folder: str

    _source: Source | None = PrivateAttr(None)

    @field_validator("target", "executor", mode="before")
    @classmethod
    def _name_stands_for_section(cls, value: object) -> object:
        return {"name": value} if isinstance(value, str) else value

    def make_target(self) -> Target | Path:
        """Look the target up; a profile's path stands for the target it was made for."""
        section = self.target
        named = section.describe(Path(self.folder))
        if section.profile is None:
            return named
        from autocompress.cost.resolve import load_profile

        path = Path(self.folder) / section.profile
        profiled = load_profile(path).target
        if replace(profiled, round_to=named.round_to, saturates=named.saturates) != named:
            raise InvalidInputError(
                explain(
                    "key 'target.profile'",
                    expected=f"a profile of {named.to_json()}",
                    got=f"one of {profiled.to_json()}",
                    remedy="give the keys of 'target' that it was made with, but for 'profile'",
                )
            )
        return path

    def make_budget(self) -> Budget:
        """Return the budget as the search takes it."""
        return Budget(**self.budget.model_dump())

    def make_executor(self) -> Executor:
        """Return the executor as the search takes it."""
        return Executor(**self.executor.model_dump())

    def make_training(self) -> TrainingConfig:
        """Return the schedule as the search takes it."""
        return TrainingConfig.from_mapping(self.training)

    def make_quantisation(self) -> QuantisationConfig:
        """Return the choice of grids as the search takes it."""
        return QuantisationConfig.from_mapping(self.quantisation)

    def make_model(self) -> "nn.Module":
        """Call the model factory, and load the weights if there are any."""
        return self._make(self.model, "model")

    def make_teachers(self) -> "list[nn.Module]":
        """Make the models that teach beside the original."""
        return [self._make(section, "teachers", at) for at, section in enumerate(self.teachers)]

    def _make(self, section: ModelSection, *keys: str | int) -> "nn.Module":
        from torch import nn

        with self._located(*keys, "factory"):
            model = call_factory(section.factory, section.args, Path(self.folder), what="model")
            if not isinstance(model, nn.Module):
                raise _wrong_result(section, expected="a torch.nn.Module", got=model)
        if section.weights is not None:
            with self._located(*keys, "weights"):
                load_weights(model, Path(self.folder) / section.weights)
        return model

    def make_task(self) -> "Task":
        """Call the task factory."""
        from autocompress.evaluation.task import Task

        section = self.task
        with self._located("task", "factory"):
            task = call_factory(section.factory, section.args, Path(self.folder), what="task")
            if not isinstance(task, Task):
                raise _wrong_result(section, expected="an autocompress.Task", got=task)
        return task

    @contextmanager
    def _located(self, *keys: str | int) -> Iterator[None]:
        """Begin an error about what a key stands for with the file and the line of the key."""
        try:
            yield
        except (InvalidInputError, MissingFileError, WrongTypeError) as error:
            if self._source is None:
                raise
            raise type(error)(f"{self._source.of(keys, str(error))}, {error}") from error

    def space_name_or_path(self) -> str:
        """Return the preset's name, or the path of a space beside the file."""
        path = Path(self.folder) / self.space
        return str(path) if path.suffix in (".yaml", ".yml") else self.space

    def to_yaml(self) -> str:
        """Return the resolved configuration, which `load_config` reads again."""
        return dump_yaml(self.model_dump())


def load_config(
    path: str | Path,
    *,
    study_dir: str | None = None,
    trials: int | None = None,
    minutes: float | None = None,
    executor: str | None = None,
    address: str | None = None,
    workers: int | None = None,
    storage: str | None = None,
    sampler: str | None = None,
    warm_start: Sequence[str] = (),
    seed: int | None = None,
) -> SearchConfig:
    """Read and check the configuration of a search.

    Args:
        path: The YAML file.
        study_dir: Replaces the file's value, if given; likewise the others.
        trials: Replaces the budget's trials.
        minutes: Replaces the budget's minutes.
        executor: Replaces the executor's name.
        address: Replaces the executor's address; without a name, that of Ray.
        workers: Likewise, its workers.
        storage: Replaces the storage.
        sampler: Replaces the sampler.
        warm_start: Replaces the folders of earlier studies, if there are any.
        seed: Replaces the seed.

    Returns:
        The configuration; study directory and folder are absolute paths.

    Raises:
        MissingFileError: If there is no such file.
        InvalidInputError: If it is not YAML, or a key or value is wrong.
        WrongTypeError: If a value has a type that cannot be read.
    """
    path = Path(path)
    record = read_yaml(path)
    variables = read_overrides(os.environ)
    for keys, value in variables.items():
        record = override(record, keys, value)
    replaced = _given(study_dir=study_dir, storage=storage, sampler=sampler, seed=seed)
    record |= replaced
    places = _given(executor=executor, address=address, workers=workers)
    if places:
        record["executor"] = _executor(record.get("executor", "inline"), places)
    record |= {"warm_start": list(warm_start)} if warm_start else {}
    limits = _given(trials=trials, minutes=minutes)
    budget = record.get("budget", {})
    if limits and isinstance(budget, dict):
        record["budget"] = budget | limits
    record["study_dir"] = _absolute(record.get("study_dir", f"runs/{path.stem}"), Path.cwd())
    if isinstance(record.get("warm_start"), list):
        record["warm_start"] = [_absolute(f, Path.cwd()) for f in record["warm_start"]]
    record["storage"] = absolute_storage(record.get("storage"), Path.cwd())
    record["folder"] = _absolute(record.get("folder", "."), path.absolute().parent)
    named = [f"{variable_name(keys)}={value}" for keys, value in variables.items()]
    others = [_without_password(text) for text in (*named, *_options(replaced | places | limits))]

    overridden = {*replaced, *limits, *(keys[-1] for keys in variables)}
    source = Source(path=path, others=others, overridden=overridden)
    try:
        config = SearchConfig.model_validate(record)
    except ValidationError as error:
        details = _most_helpful(error)
        raise InvalidInputError(f"{source.of(details['loc'])}, {_sentence(details)}") from error
    config._source = source
    for key, check in _checks(config).items():
        with config._located(key):
            check()
    return config


def _checks(config: SearchConfig) -> dict[str, Callable[[], object]]:
    """List what makes the parts of a search, by key: each refuses wrong values."""

    def check_costs() -> None:
        objectives = parse_objectives(config.objectives)
        target = config.make_target()
        if isinstance(target, Target):
            target.check_costs(cost_names(objectives, parse_constraints(config.constraints)))

    def check_space() -> None:
        from autocompress.space.preset import SearchSpace

        SearchSpace.load(config.space_name_or_path())

    def check_storage() -> None:
        if config.storage is not None:
            from autocompress.controller.storage import check_url

            check_url(config.storage)

    return {
        "target": config.make_target,
        "budget": config.make_budget,
        "executor": config.make_executor,
        "training": config.make_training,
        "quantisation": config.make_quantisation,
        "constraints": lambda: parse_constraints(config.constraints),
        "objectives": check_costs,
        "space": check_space,
        "storage": check_storage,
        "seed": lambda: check_seed(config.seed),
    }


def _executor(configured: object, options: Mapping[str, Any]) -> dict[str, Any]:
    """Apply the options of the command line; another executor than the file's has none of its."""
    section = configured if isinstance(configured, dict) else {"name": configured}
    name = options.get("executor", "ray")
    kept = section if section.get("name") == name else {"name": name}
    return kept | {key: value for key, value in options.items() if key != "executor"}


def _given(**values: Any) -> dict[str, Any]:
    return {key: value for key, value in values.items() if value is not None}


def _options(replaced: Mapping[str, Any]) -> list[str]:
    """Write replaced values as the options of the command line, in one string if any."""
    written = [f"--{key.replace('_', '-')} {value}" for key, value in replaced.items()]
    return [" ".join(written)] if written else []


def _without_password(text: str) -> str:
    """Hide what stands for a password in the addresses of a text.

    Example:
        >>> _without_password("--storage mysql://me:secret@host/trials")
        '--storage mysql://me:...@host/trials'
    """
    return re.sub(r"(://[^\s:/@]*):\S*@", r"\1:...@", text)


def _wrong_result(section: FactorySection, *, expected: str, got: object) -> WrongTypeError:
    return WrongTypeError(
        explain(
            f"what '{section.factory}' returns",
            expected=expected,
            got=type(got).__name__,
            remedy="correct the function, or name another one",
        )
    )


def _absolute(value: object, base: Path) -> object:
    return str(base / value) if isinstance(value, str) else value


SECTIONS: Mapping[str, type[BaseModel]] = {
    "": SearchConfig,
    "model": ModelSection,
    "teachers": ModelSection,
    "task": FactorySection,
    "target": TargetSection,
    "budget": BudgetSection,
    "executor": ExecutorSection,
}
"""Sections of the file by their key; the whole of it under ""."""


def _most_helpful(refusal: ValidationError) -> "ErrorDetails":
    """Pick what pydantic found first; a misspelt key is also a missing one, and helps more."""
    return min(refusal.errors(), key=lambda details: details["type"] != "extra_forbidden")


def _sentence(error: "ErrorDetails") -> str:
    """Word what pydantic found in one sentence of ours."""
    location = [str(part) for part in error["loc"]]
    key = f"key '{'.'.join(location)}'"
    if error["type"] == "extra_forbidden":
        section = ".".join(part for part in location[:-1] if not part.isdigit())
        what = f"section '{section}', key" if section else "key"
        return unknown_name(what, location[-1], SECTIONS[section].model_fields)
    if error["type"] == "missing":
        return explain(key, expected="a value", got="nothing", remedy="add the key")
    return explain(
        key, expected=expected_value(error), got=repr(error["input"]), remedy="correct the value"
    )
