"""What a search is given, and what makes two searches the same study."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from autocompress.controller.earlier import Earlier
from autocompress.controller.ledger import Ledger
from autocompress.core.budget import Budget
from autocompress.core.candidate import Candidate
from autocompress.core.executor import Executor
from autocompress.core.objective import Constraint, Objective
from autocompress.core.quantisation import QuantisationConfig
from autocompress.core.target import Target
from autocompress.core.training import TrainingConfig
from autocompress.cost.resolve import Profile
from autocompress.errors import InvalidInputError, StudyError, explain
from autocompress.evaluation.original import weights_digest
from autocompress.evaluation.splits import Splits, data_digest
from autocompress.evaluation.task import Task
from autocompress.graph.structure import ModelGraph
from autocompress.space.bound import BoundSpace
from autocompress.transform.criteria import find_criterion


@dataclass(frozen=True, kw_only=True)
class SearchSetup:
    """Everything a search needs, resolved.

    Attributes:
        model: The trained original, in eval mode on `device`; never changed.
        graph: Its structure.
        space: The search space, bound.
        task: The user's task.
        splits: The batches of the study.
        target: Where artifacts run.
        profile: A given profile of the target; None measures one.
        objectives: What is optimised.
        constraints: What front members must meet.
        budget: What may be spent.
        study_dir: Where everything is written.
        epoch_images: Training images of one epoch.
        executor: Where trials run.
        sampler: Name of the sampler.
        earlier: What earlier studies found.
        device: Torch device name.
        seed: The seed of the run.
        designs: Candidates to begin with; none for those that the search chooses.
        training: How candidates are cut and quantised while they are trained.
        quantisation: How grids are chosen.
        teachers: Teachers beside the original.
    """

    model: nn.Module
    graph: ModelGraph
    space: BoundSpace
    task: Task
    splits: Splits
    target: Target
    profile: Profile | None
    objectives: tuple[Objective, ...]
    constraints: tuple[Constraint, ...]
    budget: Budget
    study_dir: Path
    epoch_images: int
    executor: Executor = field(default_factory=Executor)
    sampler: str = "joint"
    earlier: Earlier = field(default_factory=Earlier)
    device: str = "cpu"
    seed: int = 0
    designs: tuple[Candidate, ...] = ()
    training: TrainingConfig = field(default_factory=TrainingConfig)
    quantisation: QuantisationConfig = field(default_factory=QuantisationConfig)
    teachers: tuple[nn.Module, ...] = ()


def check_labels(space: BoundSpace, training: TrainingConfig, *, labelled: bool) -> None:
    """Refuse to read labels where training batches have none.

    Args:
        space: What is searched.
        training: How candidates are trained.
        labelled: Whether training batches have labels.

    Raises:
        InvalidInputError: If the distillation leaves the labels some weight, or
            channels are ranked by them.
    """
    if labelled:
        return
    if space.kd_weight.low < 1.0 or training.teach != "throughout":
        raise InvalidInputError(
            explain(
                "task 'train'",
                expected="targets, which some candidates learn from",
                got="batches of inputs alone",
                remedy="write distillation: {kd_weight: {low: 1, high: 1}} in the search space, "
                "and teach throughout",
            )
        )
    criteria = space.criteria if space.pruning_choices else ()
    for name in criteria:
        if find_criterion(name).needs == "labels":
            raise InvalidInputError(
                explain(
                    "task 'train'",
                    expected=f"targets, which the criterion '{name}' reads",
                    got="batches of inputs alone",
                    remedy="choose criteria that need none, such as l1 or apoz",
                )
            )


def study_settings(
    setup: SearchSetup,
    space: Mapping[str, Any],
    objectives: Sequence[str],
    constraints: Mapping[str, float | str],
) -> dict[str, Any]:
    """Return what a study keeps to be continued with, as JSON takes it.

    Args:
        setup: The search.
        space: Its search space, before it was bound.
        objectives: As they were given.
        constraints: As they were given.
    """
    return {
        "target": setup.target.to_json(),
        "objectives": list(objectives),
        "constraints": dict(constraints),
        "space": dict(space),
        "budget": asdict(setup.budget),
        "executor": asdict(setup.executor),
        "sampler": setup.sampler,
        "warm_start": list(setup.earlier.folders),
        "designs": [candidate.to_json() for candidate in setup.designs],
        "training": asdict(setup.training),
        "quantisation": asdict(setup.quantisation),
        "device": setup.device,
        "seed": setup.seed,
        "profile_given": setup.profile is not None,
    }


def study_identity(setup: SearchSetup, weights: str) -> dict[str, str]:
    """Name what a study belongs to; a study is not continued on anything else.

    Args:
        setup: The search.
        weights: Digest of the original's weights.
    """
    teachers = ", ".join(weights_digest(teacher) for teacher in setup.teachers)
    target = setup.target
    hardware = _hardware_digest(target)
    return {
        **({"teachers": teachers} if teachers else {}),
        **({"hardware": hardware} if hardware else {}),
        "model": setup.graph.fingerprint,
        "weights": weights,
        "space": setup.space.fingerprint,
        "data": data_digest(setup.splits.val),
        "target": f"{target.name}, {target.threads} threads, batch {target.batch_size}",
    }


def _hardware_digest(target: Target) -> str:
    """Digest what simulated hardware consists of, which a name may not tell; "" of a real one."""
    if target.simulation is None:
        return ""
    described = json.dumps(target.simulation.to_json(), sort_keys=True)
    return hashlib.sha256(described.encode()).hexdigest()[:16]


def kept_settings(study_dir: Path) -> dict[str, Any]:
    """Read the settings that a study was started with.

    Raises:
        MissingFileError: If there is no study.
        StudyError: If it is damaged, or has no settings yet.
    """
    ledger = Ledger.read(study_dir / "study.db")
    try:
        settings = ledger.get("settings")
    finally:
        ledger.close()
    if settings is None:
        raise StudyError(
            explain(
                f"study '{study_dir}'",
                expected="the settings of its search",
                got="none",
                remedy="run search with a new study_dir",
            )
        )
    return dict(settings)
