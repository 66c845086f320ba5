"""The order in which the channels of each group go, computed once per model."""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.graph.structure import ChannelGroup, ModelGraph
from autocompress.transform.criteria import Evidence, Subject, check_evidence, find_criterion

Key = tuple[str, str, tuple[tuple[str, str], ...]]


class Ranks:
    """Scores and orders of the channels of one model, kept once computed.

    Args:
        model: The original model; its weights must not change any more.
        graph: Its structure.
        gather: Observes the model on data; called once, when a criterion
            first needs it. None has no data.
        seed: Draws random scores.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ModelGraph,
        *,
        gather: Callable[[], Evidence] | None = None,
        seed: int = 0,
    ) -> None:
        self.modules, self.graph, self.seed = dict(model.named_modules()), graph, seed
        self._gather = gather
        self._evidence: Evidence | None = None
        self._scores: dict[Key, NDArray[np.float64]] = {}
        self._orders: dict[Key, list[int]] = {}

    def scores(self, criterion: str, group: ChannelGroup) -> NDArray[np.float64]:
        """Score the channels of a group; the lowest go first.

        Args:
            criterion: Name of the criterion.
            group: The group, as the graph has it or with members left out.

        Raises:
            InvalidInputError: If the criterion is unknown, or needs data or
                labels that there are none of.
        """
        key = _key(criterion, group)
        if key not in self._scores:
            evidence = self._observed(criterion)
            subject = Subject(modules=self.modules, group=group, evidence=evidence, seed=self.seed)
            self._scores[key] = find_criterion(criterion).score(subject).numpy()
        return self._scores[key]

    def order(self, criterion: str, group: ChannelGroup) -> list[int]:
        """List the channels of a group, the first to go first.

        Channels of equal score go by the L1 norm of their filters, then by position.
        """
        key = _key(criterion, group)
        if key not in self._orders:
            norms = self.scores("l1", group)
            self._orders[key] = np.lexsort((norms, self.scores(criterion, group))).tolist()
        return self._orders[key]

    def _observed(self, criterion: str) -> Evidence:
        """Return what a criterion may read."""
        if find_criterion(criterion).needs == "weights":
            return Evidence()
        if self._evidence is None:
            self._evidence = Evidence() if self._gather is None else self._gather()
        check_evidence(criterion, self._evidence)
        return self._evidence


def _key(criterion: str, group: ChannelGroup) -> Key:
    return criterion, group.name, tuple((m.module, m.axis) for m in group.members)


def remaining(group: ChannelGroup, candidate: Candidate) -> ChannelGroup:
    """Leave out the members of a group that lie in dropped blocks."""
    if not candidate.dropped_blocks:
        return group
    members = tuple(m for m in group.members if not candidate.drops(m.module))
    return group if len(members) == len(group.members) else replace(group, members=members)
