"""What a study ran on."""

import platform
from datetime import datetime, timezone
from importlib.metadata import version
from typing import Any

import onnxruntime
import torch

from autocompress.core.target import Target
from autocompress.cost.measurement import device_name


def environment(target: Target, device: str, seed: int) -> dict[str, Any]:
    """Describe the host, the versions and the settings that figures depend on."""
    packages = ("autocompress", "torch", "optuna", "onnx", "numpy")
    return {
        "processor": device_name(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "threads": torch.get_num_threads(),
        "target": f"{target.name}, threads: {target.threads}, batch: {target.batch_size}",
        "device": device,
        "seed": seed,
        "started": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        **{name: version(name) for name in packages},
        "onnxruntime": onnxruntime.__version__,  # of a package that may have another name
    }
