"""Compress one model many times: what no candidate changes is computed once."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.core.quantisation import QuantisationConfig
from autocompress.graph.operations import Inputs
from autocompress.graph.structure import ModelGraph
from autocompress.transform.compress import compress_model
from autocompress.transform.compressed import CompressedModel
from autocompress.transform.criteria import Evidence
from autocompress.transform.plans import Plans
from autocompress.transform.ranks import Ranks
from autocompress.transform.surgery import cut_model, plan_cuts


class Surgeon:
    """Applies candidates to copies of one model.

    Scores, orders of channels and the model's operations are kept, so that
    another candidate costs little more than the copy of what it keeps. The
    results are those of `compress_model`.

    Args:
        model: The original, in eval mode; never changed, and not to be
            changed by others either.
        graph: Its structure.
        inputs: Positional and keyword arguments of one forward call.
        gather: Observes the model on data, for criteria that need it.
        seed: Draws random scores.
        quantisation: Where grids go, and how far weights reach.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ModelGraph,
        inputs: Inputs,
        *,
        gather: Callable[[], Evidence] | None = None,
        seed: int = 0,
        quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
    ) -> None:
        self.model, self.graph, self.inputs = model, graph, inputs
        self.quantisation = quantisation
        self.ranks = Ranks(model, graph, gather=gather, seed=seed)
        self.plans = Plans(model, graph, inputs, self._cut, quantisation)

    def compress(self, candidate: Candidate, *, final: Candidate | None = None) -> CompressedModel:
        """Cut a copy of the model and plan its grids; see `compress_model`."""
        return compress_model(
            self.model,
            self.graph,
            candidate,
            self.inputs,
            ranks=self.ranks,
            plans=self.plans,
            final=final,
            quantisation=self.quantisation,
        )

    def scores(self, criterion: str) -> dict[str, NDArray[np.float64]]:
        """Score the channels of every prunable group, by its name; the lowest go first."""
        return {
            group.name: self.ranks.scores(criterion, group)
            for group in self.graph.groups
            if group.prunable
        }

    def _cut(self, candidate: Candidate) -> nn.Module:
        cuts = plan_cuts(self.model, self.graph, candidate, self.ranks)
        return cut_model(self.model, candidate.dropped_blocks, cuts, self.graph.branches)
