"""Quantisation plans of many candidates of one model, without running each of them."""

from collections.abc import Callable
from functools import cached_property

from torch import nn

from autocompress.core.candidate import Candidate
from autocompress.core.quantisation import QuantisationConfig
from autocompress.graph.operations import Inputs, OperationTrace, record_operations
from autocompress.graph.structure import ModelGraph
from autocompress.transform.discovery import plan_grids
from autocompress.transform.record import QuantisationPlan

Cutter = Callable[[Candidate], nn.Module]

PROBED_RATIO = 0.5
"""Pruning ratio of all groups at which derived operations are compared with recorded ones."""


class Plans:
    """Plans of candidates of one model, derived from one recorded run of it.

    The operations of a candidate are those of the original without its
    dropped blocks. That is compared with what two strong candidates really
    run, all groups pruned and all blocks kept or dropped; should one differ,
    the forward pass depends on the widths, and each candidate is run instead.

    Args:
        model: The original, in eval mode; not changed.
        graph: Its structure.
        inputs: Positional and keyword arguments of one forward call.
        cut: Cuts a copy of the model for a candidate.
        quantisation: Where grids go.
    """

    def __init__(
        self,
        model: nn.Module,
        graph: ModelGraph,
        inputs: Inputs,
        cut: Cutter,
        quantisation: QuantisationConfig = QuantisationConfig(),  # noqa: B008  frozen
    ) -> None:
        self.model, self.graph, self.inputs, self.cut = model, graph, inputs, cut
        self.quantisation = quantisation

    def plan(self, network: nn.Module, candidate: Candidate) -> QuantisationPlan:
        """Plan the grids of one candidate.

        Args:
            network: The model after the candidate's surgery, in eval mode.
            candidate: The candidate, canonical.
        """
        derived = self._derived(candidate.dropped_blocks) if self.derivable else None
        if derived is None:
            derived = record_operations(network, self.inputs)
        return plan_grids(derived, candidate.layers, self.quantisation)

    @cached_property
    def derivable(self) -> bool:
        """Whether candidates run the original's operations, less their dropped blocks."""
        ratios = {group.name: PROBED_RATIO for group in self.graph.groups if group.prunable}
        for blocks in dict.fromkeys(((), self._blocks)):
            probe = Candidate(pruning_ratios=ratios, dropped_blocks=blocks).canonical()
            derived = self._derived(blocks)
            if derived is None or derived != self._recorded(self.cut(probe)):
                return False
        return True

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        return tuple(block.name for block in self.graph.blocks if block.droppable)

    @cached_property
    def _original(self) -> OperationTrace:
        return record_operations(self.model, self.inputs, self._blocks)

    def _derived(self, blocks: tuple[str, ...]) -> OperationTrace | None:
        return self._original.without(blocks, self.graph.branches)

    def _recorded(self, network: nn.Module) -> OperationTrace | None:
        """Record a cut model; None if it does not run, as may be without all its blocks at once."""
        try:
            return record_operations(network.eval(), self.inputs)
        except Exception:  # whatever its forward raises, its candidates will raise again
            return None
