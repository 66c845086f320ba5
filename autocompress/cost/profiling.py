"""Time single runtime kernels: models of few and of many, subtracted."""

import functools
import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import TensorProto, helper, numpy_helper

from autocompress.artifact.session import bound_call, open_model
from autocompress.core.seeds import derive_seed
from autocompress.core.target import ONNXRUNTIME, Target
from autocompress.cost.kernel_key import INT8, KernelKey
from autocompress.cost.measurement import Call, time_interleaved

COPIES = 6
"""Kernels in the larger of the two models; the smaller has one."""

ROUNDS = 15
"""Rounds that are enough for a median."""

CHUNK_ELEMENTS = 32_000_000
"""Weights held in memory at once, all models of a chunk together."""

NARROW = 16
"""Channels between the convolutions that additions and pools are measured among."""

POOLS = {"maxpool": "MaxPool", "avgpool": "AveragePool"}

SHORTEST_MS = 1e-4
"""What a kernel takes at least, where noise exceeds its time."""

OPSET = 17
IR_VERSION = 8
SCALE = 0.05
"""Scale of the activations, which does not change the time."""


def measure_kernels(
    keys: Sequence[KernelKey],
    *,
    threads: int = 1,
    batch_size: int = 1,
    runtime: str = ONNXRUNTIME,
    seconds: float = 40.0,
    on_progress: Callable[[int, int], None] | None = None,
) -> dict[KernelKey, float]:
    """Measure kernels as they run inside a network, all of them in turns.

    The time of a kernel is the difference between a model of `COPIES` of them
    and a model of one, over `COPIES - 1`; what a call of the runtime costs,
    and the changes of layout at inputs and outputs, cancel.

    Args:
        keys: The kernels.
        threads: Threads that one inference uses, >= 1.
        batch_size: Examples per inference, >= 1.
        runtime: What runs them, one of `RUNTIMES`.
        seconds: Time for all; at least one round of each runs.
        on_progress: Told how many kernels are done, and of how many.

    Returns:
        Milliseconds per kernel and inference.
    """
    distinct = list(dict.fromkeys(keys))
    times: dict[KernelKey, float] = {}
    target = Target(name=runtime, runtime=runtime, threads=threads, batch_size=batch_size)

    def enough(chunk: Sequence[KernelKey], table: npt.NDArray[np.float64]) -> bool:
        if on_progress is not None and len(table) < ROUNDS:
            on_progress(len(times) + len(chunk) * len(table) // ROUNDS, len(distinct))
        return len(table) >= ROUNDS

    for chunk in _chunks(distinct):
        calls = [_runner(key, kernels, target) for key in chunk for kernels in (1, COPIES)]
        table = time_interleaved(
            calls,
            enough=functools.partial(enough, chunk),
            max_seconds=seconds * len(chunk) / len(distinct),
            threads=threads,
        )
        slopes = np.median(table[:, 1::2] - table[:, ::2], axis=0) * 1e3 / (COPIES - 1)
        times |= dict(zip(chunk, np.maximum(slopes, SHORTEST_MS).tolist(), strict=True))
        if on_progress is not None:
            on_progress(len(times), len(distinct))
    return times


def kernel_model(key: KernelKey, kernels: int, *, batch_size: int = 1) -> onnx.ModelProto:
    """Build a model that runs one kernel several times.

    Convolutions run side by side with different weights, additions one after
    the other, so that the runtime merges none. Every convolution's output is
    cut to one pixel, `COPIES` times however many kernels there are, so that
    changes of memory layout at the end cost all models the same. Integer
    kernels are written the way artifacts are: quantised inputs, symmetric
    weights per output channel, and the activation function between the kernel
    and its QuantizeLinear, where the runtime fuses it.

    What runtimes may compute with its neighbours, or in the memory layout of
    these, is measured among them: of `COPIES` pairs of convolutions in a chain,
    as many as there are kernels have their input added to their output; of
    `COPIES` convolutions, as many are pooled; of `COPIES` elementwise
    operations, as many read integers. Attentions run one after the other, each
    with the output of the last for its queries.

    Args:
        key: The kernel.
        kernels: How often it runs, 1 to `COPIES`.
        batch_size: Examples per inference, >= 1.

    Returns:
        The model; its inputs have the type that the kernel computes in.
    """
    builder = _Builder(key, batch_size)
    for index in range(COPIES if builder.among_others else kernels):
        builder.add_kernel(index, counted=index < kernels)
    return builder.finish()


def _chunks(keys: Sequence[KernelKey]) -> Iterator[list[KernelKey]]:
    """Split the kernels so that the models of each part fit in memory."""
    chunk: list[KernelKey] = []
    elements = 0
    for key in keys:
        size = (COPIES + 1) * key.weights
        if chunk and elements + size > CHUNK_ELEMENTS:
            yield chunk
            chunk, elements = [], 0
        chunk.append(key)
        elements += size
    if chunk:
        yield chunk


def _runner(key: KernelKey, kernels: int, target: Target) -> Call:
    if target.file_name.endswith(".pt2"):
        from autocompress.cost.torch_kernels import kernel_call

        return kernel_call(key, kernels, target)
    model = kernel_model(key, kernels, batch_size=target.batch_size)
    session = open_model(model.SerializeToString(), target)
    rng = np.random.default_rng(0)
    feed = {
        node.name: rng.integers(0, 256, node.shape).astype(np.uint8)
        if node.type == "tensor(uint8)"
        else rng.standard_normal(node.shape, dtype=np.float32)
        for node in session.get_inputs()
    }
    return bound_call(session, feed)


class _Builder:
    """Collects the nodes of one kernel model."""

    def __init__(self, key: KernelKey, batch_size: int) -> None:
        self.key = key
        self.batch_size = batch_size
        self.quantised = key.bits == INT8
        self.chained = key.kind == "add" and bool(key.kernel)
        self.among_others = self.chained or key.kind in ("dequantise", *POOLS)
        self.type = TensorProto.UINT8 if self.quantised else TensorProto.FLOAT
        converted = {"quantise": TensorProto.UINT8, "dequantise": TensorProto.FLOAT}
        self.output_type = converted.get(key.kind, self.type)
        self.rng = np.random.default_rng(derive_seed(0, -1, str(key)))
        self.nodes: list[onnx.NodeProto] = []
        self.constants: list[onnx.TensorProto] = []
        self.results: list[str] = []
        self.zero = self._constant("zero", np.zeros((), np.uint8))
        self.scale = self._constant("scale", np.array(SCALE, np.float32))
        self.middle = self._constant("middle", np.array(127, np.uint8))
        self.steps: dict[str, float] = {}
        self.signed_scale = self._constant("signed_scale", np.array(1.7 * SCALE, np.float32))

    def add_kernel(self, index: int, *, counted: bool) -> None:
        """Add the kernel once more, or only what it stands among."""
        key = self.key
        if key.kind not in ("conv", "linear", "add"):
            self.results.append(self._weightless(index, counted=counted))
            return
        before = self.results[-1] if self.results and key.kind == "add" else "x"
        if self.chained:
            if not self.results:  # so that the first addition is to a layer's output too
                before = self._narrowed("x", "start")
                before = self._write(self._node("Relu", self._convolution(before, "s")), "started")
            made = self._convolution(self._narrowed(before, f"narrow{index}"), f"w{index}")
            if counted:
                made = self._node("Add", self._signed(made), self._read(before, f"skip{index}"))
        elif key.kind == "add":
            made = self._node(
                "Add", self._read(before, f"x_read{index}"), self._read("y", f"y_read{index}")
            )
        elif key.kind == "linear":
            shape = (key.out_channels, key.in_channels)
            read = self._read("x", f"x_read{index}")
            made = self._node("Gemm", read, *self._parameters(shape, str(index)), transB=1)
        else:
            made = self._convolution("x", str(index))
        if self.chained:  # runtimes save themselves a step where a sum has its summand's grid
            self.steps[f"result{index}"] = SCALE * (1.1 + 0.1 * index)
        self.results.append(self._write(self._node("Relu", made), f"result{index}"))

    def _weightless(self, index: int, *, counted: bool) -> str:
        """Add a conversion, a pool or an attention, or only what it stands among."""
        kind = self.key.kind
        if kind == "quantise":
            return self._conversion("QuantizeLinear", index)
        if kind == "dequantise":
            read = self._conversion("DequantizeLinear", index) if counted else "y"
            shift = self._constant(f"shift{index}", np.array(1.0 + index, np.float32))
            return self._node("Add", read, shift)
        if kind == "attention":
            return self._attention(self.results[-1] if self.results else "x", index)
        made = self._widened(index)
        return self._pooled(made, index) if counted else made

    def _signed(self, name: str) -> str:
        """Round a tensor to a grid of both signs, as a branch has before it is added."""
        if not self.quantised:
            return name
        grid = (self.signed_scale, self.middle)
        return self._node("DequantizeLinear", self._node("QuantizeLinear", name, *grid), *grid)

    def _narrowed(self, read: str, name: str) -> str:
        """Convolve a tensor to `NARROW` channels."""
        narrow = self._convolution(read, f"{name}_w", outputs=NARROW)
        return self._write(self._node("Relu", narrow), name)

    def _convolution(self, read: str, name: str, outputs: int = 0) -> str:
        """Convolve a tensor with weights of this name; those of additions are narrow inside."""
        key = self.key
        inputs = NARROW if self.chained and not outputs else key.in_channels
        shape = (outputs or key.out_channels, inputs // key.groups, *key.kernel)
        return self._node(
            "Conv",
            self._read(read, f"x_read{name}"),
            *self._parameters(shape, name, self.steps.get(read, SCALE)),
            kernel_shape=key.kernel,
            strides=key.stride,
            group=key.groups,
            pads=self._pads(),
        )

    def _widened(self, index: int) -> str:
        """Convolve the narrow input to what is pooled."""
        ones = [1] * len(self.key.size)
        parameters = self._parameters((self.key.out_channels, NARROW, *ones), f"w{index}")
        made = self._node("Conv", self._read("x", f"x_read{index}"), *parameters, kernel_shape=ones)
        return self._write(self._node("Relu", made), f"wide{index}")

    def _pooled(self, read: str, index: int) -> str:
        """Pool a tensor; all of its pixels are in some window."""
        key, given = self.key, self._read(read, f"read{index}")
        if key.kind == "avgpool" and key.kernel == key.stride and set(key.size) == {1}:
            made = self._node("GlobalAveragePool", given)  # as it is written in files
        else:
            window: dict[str, Any] = {"kernel_shape": key.kernel, "strides": key.stride}
            made = self._node(POOLS[key.kind], given, pads=self._pads(), **window)
        return self._write(made, f"result{index}")

    def _attention(self, queries: str, index: int) -> str:
        """Weigh values by the softmax of the products of queries and keys."""
        factor = self._constant(f"factor{index}", np.array(0.1 + 0.01 * index, np.float32))
        keys = self._read("keys", f"keys{index}")
        scores = self._node("MatMul", self._read(queries, f"queries{index}"), keys)
        weights = self._node("Softmax", self._node("Mul", scores, factor), axis=-1)
        rounded = self._write(weights, f"weights{index}")
        values = self._read("values", f"values{index}")
        mixed = self._node("MatMul", self._read(rounded, f"weights_read{index}"), values)
        return self._write(mixed, f"result{index}")

    def _conversion(self, kind: str, index: int) -> str:
        """Convert the input once more; scales differ, so that conversions are not merged."""
        scale = self._constant(f"scale{index}", np.array(SCALE * (1 + index), np.float32))
        return self._node(kind, "x", scale, self.zero)

    def finish(self) -> onnx.ModelProto:
        """Return the model of the kernels added so far."""
        plain = self.key.kind in ("add", "linear", "attention")
        cut = bool(self.key.size) and (self.chained or not plain)
        if self.chained or self.key.kind == "attention":
            self.results = self.results[-1:]
        outputs = self._pixels() if cut else self.results
        shape = self._input_shape()
        inputs = {"x": self.type}
        if self.key.kind in ("add", "dequantise") and not self.chained:
            inputs["y"] = self.output_type
        shapes = dict.fromkeys(inputs, shape)
        if self.key.kind == "attention":
            inputs |= {"keys": self.type, "values": self.type}
            *outer, _, features = shape
            count = self.key.size[1]
            shapes |= {"keys": [*outer, features, count], "values": [*outer, count, features]}
        graph = helper.make_graph(
            self.nodes,
            "kernel",
            [helper.make_tensor_value_info(n, kind, shapes[n]) for n, kind in inputs.items()],
            [
                helper.make_tensor_value_info(name, self.output_type, [None] * len(shape))
                for name in outputs
            ],
            self.constants,
        )
        opset = [helper.make_opsetid("", OPSET)]
        return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)

    def _pixels(self) -> list[str]:
        """Cut one pixel out of results, with strides that differ so that none are merged."""
        ones = [1] * len(self.key.size)
        sizes = self._input_shape()[2:] if self.key.kind in POOLS else self.key.size
        return [
            self._node(
                "MaxPool",
                self.results[min(index, len(self.results) - 1)],
                kernel_shape=ones,
                strides=[size + index for size in sizes],
            )
            for index in range(COPIES)
        ]

    def _input_shape(self) -> list[int]:
        key = self.key
        if key.kind == "linear":
            return [self.batch_size * math.prod(key.size), key.in_channels]
        if key.kind == "attention":
            return [self.batch_size, key.in_channels, key.size[0], *key.kernel]
        if key.kind not in ("conv", *POOLS):
            return [self.batch_size, key.out_channels, *key.size]
        spatial = [n * s for n, s in zip(key.size, key.stride, strict=True)]
        return [self.batch_size, NARROW if key.kind in POOLS else key.in_channels, *spatial]

    def _pads(self) -> list[int]:
        """Padding that makes the input `size * stride` long on every axis."""
        totals = [max(k - s, 0) for k, s in zip(self.key.kernel, self.key.stride, strict=True)]
        return [*(t - t // 2 for t in totals), *(t // 2 for t in totals)]

    def _parameters(
        self, shape: tuple[int, ...], index: str, step: float = SCALE
    ) -> tuple[str, str]:
        if not self.quantised:
            weight = self.rng.standard_normal(shape, dtype=np.float32)
            bias = self.rng.standard_normal(shape[0], dtype=np.float32)
            return self._constant(f"w{index}", weight), self._constant(f"b{index}", bias)
        codes = self.rng.integers(-127, 128, shape, dtype=np.int8)
        offsets = self.rng.integers(-1000, 1000, shape[0], dtype=np.int32)
        scales = self.rng.uniform(5e-4, 2e-3, shape[0]).astype(np.float32)
        return (
            self._dequantised(f"w{index}", codes, scales),
            self._dequantised(f"b{index}", offsets, (step * scales).astype(np.float32)),
        )

    def _dequantised(
        self, name: str, codes: npt.NDArray[np.integer], scales: npt.NDArray[np.float32]
    ) -> str:
        inputs = (
            self._constant(name, codes),
            self._constant(f"{name}_scale", scales),
            self._constant(f"{name}_zero", np.zeros(scales.shape, codes.dtype)),
        )
        return self._node("DequantizeLinear", *inputs, axis=0)

    def _read(self, name: str, output: str) -> str:
        if not self.quantised:
            return name
        scale = f"{name}_scale" if name in self.steps else self.scale
        return self._node("DequantizeLinear", name, scale, self.zero, output=output)

    def _write(self, name: str, output: str) -> str:
        if not self.quantised:
            return name
        scale = self.scale
        if output in self.steps:
            scale = self._constant(f"{output}_scale", np.array(self.steps[output], np.float32))
        return self._node("QuantizeLinear", name, scale, self.zero, output=output)

    def _constant(self, name: str, value: npt.NDArray[np.generic]) -> str:
        self.constants.append(numpy_helper.from_array(np.asarray(value), name))
        return name

    def _node(self, kind: str, *inputs: str, output: str = "", **attributes: Any) -> str:
        output = output or f"{kind.lower()}_{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output
