"""Run a torch module as a session: eager or compiled, on the CPU or a CUDA device."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from autocompress.artifact.runtime import Array, InputNode
from autocompress.core.target import TORCH_COMPILED, TORCH_CUDA, Target

_NAMES = {
    torch.float64: "tensor(double)",
    torch.float16: "tensor(float16)",
    torch.bfloat16: "tensor(bfloat16)",
    torch.int64: "tensor(int64)",
    torch.int32: "tensor(int32)",
    torch.int16: "tensor(int16)",
    torch.int8: "tensor(int8)",
    torch.uint16: "tensor(uint16)",
    torch.uint8: "tensor(uint8)",
    torch.bool: "tensor(bool)",
}


class TorchSession:
    """A module that is called with arrays by name.

    Args:
        module: Called with its inputs in order.
        nodes: Its inputs.
        target: Threads, device, and whether it is compiled.
    """

    def __init__(self, module: nn.Module, nodes: Sequence[InputNode], target: Target) -> None:
        self._device = torch.device("cuda" if target.runtime == TORCH_CUDA else "cpu")
        self._module: Callable[..., Any] = module.to(self._device)
        if target.runtime == TORCH_COMPILED:
            self._module = torch.compile(module)
        self._nodes, self._threads = list(nodes), target.threads

    @classmethod
    def of_program(
        cls,
        program: "torch.export.ExportedProgram",
        target: Target,
        names: Sequence[str] = (),
    ) -> "TorchSession":
        """Open an exported program; without names for its inputs, they are called as it does."""
        values = {
            node.name: node.meta["val"] for node in program.graph.nodes if node.op == "placeholder"
        }
        inputs = [
            str(name)
            for name in program.graph_signature.user_inputs
            if isinstance(values.get(name), Tensor)
        ]
        nodes = [
            InputNode(
                name=name,
                type=_NAMES.get(values[key].dtype, "tensor(float)"),
                shape=tuple(n if isinstance(n, int) else "batch" for n in values[key].shape),
            )
            for key, name in zip(inputs, names or inputs, strict=True)
        ]
        return cls(program.module(), nodes, target)

    def get_inputs(self) -> Sequence[InputNode]:
        """List the inputs, as ONNX Runtime does."""
        return self._nodes

    def run(self, _: Sequence[str] | None, feed: Mapping[str, Array]) -> list[Array]:
        """Compute all outputs; numpy has no bfloat16, which becomes float32."""
        leaves = [leaf for leaf in tree_leaves(self.bind(feed)()) if isinstance(leaf, Tensor)]
        wide = [leaf.float() if leaf.dtype == torch.bfloat16 else leaf for leaf in leaves]
        return [leaf.cpu().numpy() for leaf in wide]

    def bind(self, feed: Mapping[str, Array]) -> Callable[[], object]:
        """Return a call that runs on one batch, which is on the device already."""
        tensors = [torch.from_numpy(feed[node.name]).to(self._device) for node in self._nodes]

        def call() -> object:
            with _threads(self._threads), torch.inference_mode():
                outputs = self._module(*tensors)
                if self._device.type == "cuda":
                    torch.cuda.synchronize(self._device)
            return outputs

        return call


@contextmanager
def _threads(count: int) -> Iterator[None]:
    """Compute with so many threads, and leave the number as it was."""
    before = torch.get_num_threads()
    if before == count:
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
