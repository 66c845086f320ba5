"""Which quantised layers of a file a runtime really computes in integers."""

from collections import defaultdict

from autocompress.core.target import OPENVINO
from autocompress.graph.operations import Inputs, TracedOperation, record_operations
from autocompress.transform.compressed import CompressedModel

FUSED_FUNCTIONS = frozenset(
    {
        *("batch_norm", "relu", "relu_", "relu6", "hardtanh", "hardtanh_", "clamp", "clamp_"),
        *("leaky_relu", "leaky_relu_", "dropout"),
    }
)
"""Operations that runtimes compute with the convolution before them."""


def integer_layers(compressed: CompressedModel, inputs: Inputs, runtime: str) -> frozenset[str]:
    """Name the quantised layers that a runtime computes in integers.

    A layer needs a quantised input. ONNX Runtime's integer convolutions write
    integers too, so that their outputs must be quantised as well, after norm
    and activation function; else it would compute in floating point, from
    weights that it dequantises in every inference.

    Args:
        compressed: A calibrated model.
        inputs: Positional and keyword arguments of one forward call.
        runtime: One of `RUNTIMES`.
    """
    plan = compressed.record.plan
    quantised = [name for name in compressed.record.quantised if name in plan.inputs]
    if runtime == OPENVINO:
        return frozenset(quantised)
    trace = record_operations(compressed.network, inputs)
    sites = {point for site in plan.sites for point in site.points}
    readers: dict[int, list[tuple[TracedOperation, int]]] = defaultdict(list)
    written: dict[str, int] = {}
    number = 0
    for operation in trace.operations:
        for read in operation.inputs:
            readers[read].append((operation, number))
        if operation.kind.startswith("conv") and operation.owner:
            written[operation.owner] = number
        number += operation.outputs
    return frozenset(
        name for name in quantised if name not in written or _reaches(written[name], sites, readers)
    )


def _reaches(
    number: int, sites: set[int], readers: dict[int, list[tuple[TracedOperation, int]]]
) -> bool:
    """Tell whether a tensor is quantised once norm and activation function are applied."""
    while number not in sites:
        after = readers[number]
        if len(after) != 1 or after[0][0].kind not in FUSED_FUNCTIONS:
            return False
        number = after[0][1]
    return True
