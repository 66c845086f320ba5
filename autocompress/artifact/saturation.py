"""Whether a runtime's integer kernels clip the sums of products, found by running one.

Without VNNI, x86 processors multiply 8-bit integers by an instruction that adds two products in
16 bits; of 8-bit weights and activations they need 17. ONNX Runtime and OpenVINO use it still,
since it is twice as fast as what is exact.
"""

import functools
from dataclasses import replace

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from autocompress.artifact.runtime import Array
from autocompress.artifact.session import check_available, open_model
from autocompress.core.quantisation import AUTO, OFF, ON, QuantisationConfig
from autocompress.core.target import ONNXRUNTIME, OPENVINO, Target

CHANNELS = 32
"""Channels of the probe, enough for every kernel that is specialised."""

TOLERANCE = 0.01
"""Difference of the probe's output, as a fraction, that is not clipping."""

OPSET, IR_VERSION = 13, 8


def probe_model() -> onnx.ModelProto:
    """Return a 1x1 convolution of ones whose weights and activations have the largest codes.

    It takes CHANNELS x 4 x 4 ones and returns as many ones, unless sums are clipped.
    """
    constants: dict[str, Array] = {
        "step": np.array(1 / 255, np.float32),
        "zero": np.array(0, np.uint8),
        "codes": np.full((CHANNELS, CHANNELS, 1, 1), 127, np.int8),
        "steps": np.full(CHANNELS, 1 / (127 * CHANNELS), np.float32),
        "zeros": np.zeros(CHANNELS, np.int8),
    }
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "step", "zero"], ["x_codes"]),
        helper.make_node("DequantizeLinear", ["x_codes", "step", "zero"], ["x_read"]),
        helper.make_node("DequantizeLinear", ["codes", "steps", "zeros"], ["weight"], axis=0),
        helper.make_node("Conv", ["x_read", "weight"], ["sums"], kernel_shape=[1, 1]),
        helper.make_node("QuantizeLinear", ["sums", "step", "zero"], ["y_codes"]),
        helper.make_node("DequantizeLinear", ["y_codes", "step", "zero"], ["y"]),
    ]
    shape = [1, CHANNELS, 4, 4]
    graph = helper.make_graph(
        nodes,
        "saturation",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, shape)],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    opset = [helper.make_opsetid("", OPSET)]
    return helper.make_model(graph, opset_imports=opset, ir_version=IR_VERSION)


def saturates(target: Target) -> bool:
    """Tell whether sums of 8-bit products are clipped on a target, as profiled or on this host.

    Args:
        target: One whose profile was made elsewhere says itself what it found there. This host
            counts too, since accuracy is measured here.

    Raises:
        MissingExtraError: If the runtime is not installed.
    """
    if target.runtime not in (ONNXRUNTIME, OPENVINO):
        return False
    return target.saturates or _saturates_here(target.runtime)


def resolve_range(quantisation: QuantisationConfig, target: Target) -> QuantisationConfig:
    """Decide whether 8-bit weights keep to 7 bits, where that is left to the target.

    Args:
        quantisation: Returned as it is unless its `reduce_range` is "auto".
        target: Where the files run.
    """
    if quantisation.reduce_range != AUTO:
        return quantisation
    return replace(quantisation, reduce_range=ON if saturates(target) else OFF)


@functools.cache
def _saturates_here(runtime: str) -> bool:
    target = Target(name=runtime, runtime=runtime)
    check_available(target)
    ones = np.ones((1, CHANNELS, 4, 4), np.float32)
    session = open_model(probe_model().SerializeToString(), target)
    [found] = session.run(None, {"x": ones})
    return bool(np.abs(np.asarray(found) - 1.0).max() > TOLERANCE)
