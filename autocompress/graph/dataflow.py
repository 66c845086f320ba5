"""What a running model makes of its tensors: the branch that a residual sum adds."""

from collections.abc import Sequence

from torch import Tensor
from torch.utils.weak import WeakTensorKeyDictionary


class Dataflow:
    """Remembers which tensors each tensor was made from, and inside which modules.

    Tensors are numbered as they appear; one that is changed in place gets a
    new number. Modules are called by numbers too, those of their executions.
    """

    def __init__(self) -> None:
        self._number = WeakTensorKeyDictionary()
        self._sources: list[frozenset[int]] = []
        self._running: list[tuple[int, ...]] = []
        self._carried: dict[int, int] = {}

    def note(self, made: Sequence[Tensor], given: Sequence[Tensor], running: Sequence[int]) -> None:
        """Note one operation.

        Args:
            made: The tensors that it returned.
            given: The tensors that it took.
            running: The executions around it, outermost first.
        """
        sources = frozenset(self._find(tensor) for tensor in given)
        for tensor in made:
            self._add(tensor, sources, running)

    def note_sum(self, total: Tensor) -> None:
        """Note that an operation, already noted, is a sum: it carries its older operand on."""
        self._carried[self._number[total]] = min(self._sources[self._number[total]])

    def branch(self, operands: Sequence[Tensor], running: Sequence[int]) -> list[int] | None:
        """Find the executions that made one operand of a sum from the other.

        Where the older operand is a sum itself, what its own older operand
        was made into counts too, as in two branches side by side.

        Args:
            operands: The two operands.
            running: The executions around the sum.

        Returns:
            The outermost executions in which operations of the branch lie, in
            order; those around the sum, too, do not count. None if neither
            operand was made from the other.
        """
        shortcut, end = sorted(self._find(tensor) for tensor in operands)
        starts = {shortcut}
        while shortcut in self._carried:
            shortcut = self._carried[shortcut]
            starts.add(shortcut)
        above, waiting = {end}, [end]
        while waiting:
            for source in self._sources[waiting.pop()]:
                if source > shortcut and source not in above and source not in starts:
                    above.add(source)
                    waiting.append(source)
        path: set[int] = set()
        for number in sorted(above):
            if not self._sources[number].isdisjoint(starts | path):
                path.add(number)
        if end not in path:
            return None
        inside = ([run for run in self._running[n] if run not in running] for n in path)
        return sorted({runs[0] for runs in inside if runs})

    def _find(self, tensor: Tensor) -> int:
        if tensor not in self._number:
            self._add(tensor, frozenset(), ())
        number: int = self._number[tensor]
        return number

    def _add(self, tensor: Tensor, sources: frozenset[int], running: Sequence[int]) -> None:
        self._number[tensor] = len(self._sources)
        self._sources.append(sources)
        self._running.append(tuple(running))
