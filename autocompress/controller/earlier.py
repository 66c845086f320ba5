"""What earlier studies found, for a search that starts warm."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from autocompress.controller.current import EARLIER
from autocompress.controller.ledger import Ledger
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.core.pareto import non_dominated_rank
from autocompress.cost.analytic import count_costs
from autocompress.errors import WrongTypeError, explain
from autocompress.space.bound import BoundSpace

SAME = ("model", "weights", "data")
"""What must be equal for an accuracy to hold here too: targets may differ."""

DESIGNS = 8
"""Candidates of each earlier study that are tried here."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Earlier:
    """What earlier studies give to a search.

    Attributes:
        evaluations: What is known of candidates of this space, where the
            study was of the same weights and data; costs are left out.
        designs: Candidates to try: the best of each study, as near as this
            space comes to them.
        folders: Where those studies are, or were.
    """

    evaluations: tuple[Evaluation, ...] = ()
    designs: tuple[Candidate, ...] = ()
    folders: tuple[str, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """Return a JSON object."""
        return {
            "evaluations": [
                {
                    "candidate": evaluation.candidate.to_json(),
                    "fidelities": {
                        level: found.to_json() for level, found in evaluation.fidelities.items()
                    },
                }
                for evaluation in self.evaluations
            ],
            "designs": [design.to_json() for design in self.designs],
            "folders": list(self.folders),
        }

    @classmethod
    def from_json(cls, record: Mapping[str, Any]) -> "Earlier":
        """Read what `to_json` returned."""
        return cls(
            evaluations=tuple(
                Evaluation(
                    slot=-1 - index,
                    candidate=Candidate.from_json(known["candidate"]),
                    origin=EARLIER,
                    fidelities={
                        int(level): FidelityResult.from_json(found)
                        for level, found in known["fidelities"].items()
                    },
                )
                for index, known in enumerate(record["evaluations"])
            ),
            designs=tuple(Candidate.from_json(text) for text in record["designs"]),
            folders=tuple(record["folders"]),
        )


def read_earlier(
    folders: Sequence[str | Path], space: BoundSpace, identity: Mapping[str, str]
) -> Earlier:
    """Read earlier studies, of the same model or of a similar one.

    Args:
        folders: Their folders.
        space: The space of the search that starts.
        identity: What that search belongs to, see `study_identity`.

    Raises:
        MissingFileError: If there is no study in a folder.
        StudyError: If one is damaged.
        WrongTypeError: If the folders are no list.
    """
    if not isinstance(folders, (list, tuple)):
        raise WrongTypeError(
            explain(
                "'warm_start'",
                expected="a list of folders",
                got=repr(folders),
                remedy="write ['runs/earlier']",
            )
        )
    known: dict[str, Evaluation] = {}
    designs: dict[str, Candidate] = {}
    for folder in folders:
        ledger = Ledger.read(Path(folder) / "study.db")
        try:
            found = [e for e in ledger.evaluations() if e.fidelities and not e.failed]
            theirs = ledger.get("identity", {})
        finally:
            ledger.close()
        if all(theirs.get(key) == identity[key] for key in SAME):
            for evaluation in found:
                if fitted(evaluation.candidate, space) == evaluation.candidate:
                    known[evaluation.candidate.to_json()] = evaluation
        for candidate in _best(found, space):
            designs.setdefault(candidate.to_json(), candidate)
    read = Earlier(
        evaluations=tuple(known.values()),
        designs=tuple(designs.values()),
        folders=tuple(str(folder) for folder in folders),
    )
    return Earlier.from_json(json.loads(json.dumps(read.to_json())))  # as a resumed search has it


def keep_earlier(ledger: Ledger, earlier: Earlier) -> Earlier:
    """Keep what a new study was given, or return what one that goes on has kept."""
    kept = ledger.get("earlier")
    if kept is None:
        ledger.set("earlier", earlier.to_json())
        return earlier
    return Earlier.from_json(kept)


def fitted(candidate: Candidate, space: BoundSpace) -> Candidate:
    """Return the candidate of a space that is nearest to one of a similar model.

    What only the other model has is left out.
    """
    graph = space.graph
    return space.canonical(
        replace(
            candidate,
            pruning_ratios={
                name: ratio
                for name, ratio in candidate.pruning_ratios.items()
                if name in graph.group_by_name
            },
            dropped_blocks=tuple(n for n in candidate.dropped_blocks if n in space.blocks),
            layers={n: c for n, c in candidate.layers.items() if n in graph.layer_by_name},
            criterion=candidate.criterion
            if candidate.criterion in space.criteria
            else space.criteria[0],
        )
    )


def _best(evaluations: Sequence[Evaluation], space: BoundSpace) -> list[Candidate]:
    """Choose candidates of high accuracy for what they compute and store, far apart."""
    fits = [fitted(evaluation.candidate, space) for evaluation in evaluations]
    costs = [count_costs(space.graph, candidate) for candidate in fits]
    table = np.array(
        [
            [-_accuracy(evaluation), cost["bops"], cost["size_bytes"]]
            for evaluation, cost in zip(evaluations, costs, strict=True)
        ]
    ).reshape(-1, 3)
    front = np.flatnonzero(non_dominated_rank(table) == 0)
    front = front[np.argsort(table[front, 0], kind="stable")]
    spread = np.linspace(0, len(front) - 1, min(DESIGNS, len(front))).round().astype(int)
    return [fits[index] for index in front[spread]]


def _accuracy(evaluation: Evaluation) -> float:
    if evaluation.predicted_accuracy is not None and 2 not in evaluation.fidelities:
        return evaluation.predicted_accuracy
    return evaluation.fidelities[max(evaluation.fidelities)].accuracy
