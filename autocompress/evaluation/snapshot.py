"""A training that was interrupted: all that it needs to go on, in one file."""

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import safetensors
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor, nn

from autocompress.core.files import write_atomic


class Snapshots:
    """The latest state of one training, written now and then.

    Args:
        path: The file; a missing or damaged one, and one of another training,
            means to begin at the beginning.
        identity: JSON values that tell the training from others.
        seconds: Time between two writes.

    Attributes:
        stage: Which stage of the training runs, and what came before it, as JSON values.
        teacher: A teacher that training has made, to be kept with the student; None if
            there is none.
    """

    def __init__(self, path: Path, identity: Mapping[str, Any], seconds: float) -> None:
        self.path, self.seconds = path, seconds
        self.identity = json.loads(json.dumps(identity))
        self.stage: dict[str, Any] = {}
        self.teacher: nn.Module | None = None
        self._written = time.monotonic()

    def read(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the numbers and tensors of the latest write; None if there are none.

        The numbers have the stage under "stage".
        """
        if not self.path.is_file():
            return None
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                found = json.loads((file.metadata() or {})["training"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (SafetensorError, KeyError, ValueError):
            return None
        if found.pop("identity", None) != self.identity:
            return None
        return found, tensors

    def read_stage(self) -> tuple[dict[str, Any], dict[str, Tensor]] | None:
        """Return the same if it is of the stage that runs."""
        found = self.read()
        return found if found is not None and found[0]["stage"] == self.stage else None

    def images(self) -> int:
        """Return the training images behind the latest write; 0 if there is none."""
        found = self.read()
        return 0 if found is None else found[0]["stage"]["trained"] + found[0]["seen"]

    def offer(self, numbers: Mapping[str, Any], tensors: Callable[[], dict[str, Tensor]]) -> None:
        """Write a state if the last one is old enough.

        Args:
            numbers: JSON values.
            tensors: Returns tensors by name; only asked if they are written.
        """
        if time.monotonic() - self._written < self.seconds:
            return
        found = tensors()
        if self.teacher is not None:
            found |= prefixed("taught", self.teacher.state_dict())
        copied = {name: t.detach().cpu().contiguous().clone() for name, t in found.items()}
        text = json.dumps({**numbers, "stage": self.stage, "identity": self.identity})
        write_atomic(
            self.path,
            lambda temporary: save_file(copied, temporary, metadata={"training": text}),
        )
        self._written = time.monotonic()

    def drop(self) -> None:
        """Delete the file: the training has ended."""
        self.path.unlink(missing_ok=True)


def prefixed(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Put a prefix before each name."""
    return {f"{prefix}:{name}": tensor for name, tensor in tensors.items()}


def under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors that `prefixed` named, by their own names.

    Example:
        >>> under("a", {"a:x": 1, "b:y": 2})
        {'x': 1}
    """
    start = f"{prefix}:"
    return {name.removeprefix(start): t for name, t in tensors.items() if name.startswith(start)}
