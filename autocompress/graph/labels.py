"""Labels of channels: which of them a model ties together, and why some must stay."""

from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Marks: TypeAlias = NDArray[np.int64]
"""One label per position of an axis."""

Axes: TypeAlias = tuple[Marks | None, ...]
"""Labels of each axis of a tensor; None where nothing can be removed."""

OUTPUT = "output layer"


class Labels:
    """A union-find forest over labels, with a reason for every class that must stay whole.

    A label stands for one channel wherever it appears; labels in one class
    can only be removed together. Labels of free parameters are weak until
    they meet those of a layer: where two axes are flattened into one, the
    axis that some layer produces is the one that is followed.

    Example:
        >>> labels = Labels()
        >>> a, b = labels.fresh(3), labels.fresh(3)
        >>> labels.union(a, b)
        >>> bool((labels.find(a) == labels.find(b)).all())
        True
    """

    def __init__(self) -> None:
        self.count = 0
        self.parent: Marks = np.arange(1024)
        self.layered: NDArray[np.bool_] = np.zeros(1024, dtype=bool)
        self.refusals: list[tuple[Marks, str, bool]] = []

    def fresh(self, count: int, *, weak: bool = False) -> Marks:
        """Return new labels, each in a class of its own."""
        first, self.count = self.count, self.count + count
        while self.count > len(self.parent):
            size = 2 * len(self.parent)
            self.parent = np.concatenate([self.parent, np.arange(len(self.parent), size)])
            self.layered = np.concatenate([self.layered, np.zeros(size // 2, dtype=bool)])
        self.layered[first : self.count] = not weak
        return np.arange(first, self.count)

    def find(self, marks: NDArray[Any]) -> Marks:
        """Return the representative of each label's class, in the same shape."""
        roots: Marks = self.parent[marks]
        while True:
            above = self.parent[roots]
            if (above == roots).all():
                break
            roots = above
        self.parent[marks] = roots
        return roots

    def union(self, first: NDArray[Any], second: NDArray[Any]) -> None:
        """Tie labels pairwise; the shapes must broadcast."""
        if first is second:
            return
        first, second = np.broadcast_arrays(first, second)
        a, b = first.ravel(), second.ravel()
        while True:
            a, b = self.find(a), self.find(b)
            apart = a != b
            if not apart.any():
                return
            a, b = a[apart], b[apart]
            low, high = np.minimum(a, b), np.maximum(a, b)
            np.logical_or.at(self.layered, low, self.layered[high])
            np.minimum.at(self.parent, high, low)

    def is_layered(self, marks: Marks) -> bool:
        """Whether some layer produces any of these channels."""
        return bool(self.layered[self.find(marks)].any())

    def refuse(self, marks: Marks | None, reason: str, *, certain: bool = True) -> None:
        """Note why the classes of these labels must stay whole.

        Args:
            marks: The labels.
            reason: What speaks against removing them.
            certain: Whether it is known that they must stay; else the mask
                check decides, since nothing may read what changes.
        """
        if marks is not None and len(marks):
            self.refusals.append((marks, reason, certain))

    def reasons(self, *, certain: bool = True) -> dict[int, str]:
        """Return one reason for each class that has any, being an output first."""
        found: dict[int, str] = {}
        for marks, reason, known in sorted(self.refusals, key=lambda entry: entry[1] != OUTPUT):
            if known == certain:
                for root in set(self.find(marks).tolist()):
                    found.setdefault(root, reason)
        return found
