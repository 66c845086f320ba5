"""What a candidate costs: counted, predicted and measured."""

from autocompress.cost.analytic import count_costs
from autocompress.cost.correction import Anchor, Correction
from autocompress.cost.kernel_key import KernelKey
from autocompress.cost.kernels import executed_kernels
from autocompress.cost.measurement import (
    LatencyMeasurement,
    device_name,
    example_arrays,
    measure_interleaved,
)
from autocompress.cost.profile import DeviceProfile, profile_device
from autocompress.cost.profiling import measure_kernels

__all__ = [
    "Anchor",
    "Correction",
    "DeviceProfile",
    "KernelKey",
    "LatencyMeasurement",
    "count_costs",
    "device_name",
    "example_arrays",
    "executed_kernels",
    "measure_interleaved",
    "measure_kernels",
    "profile_device",
]
