import json
from importlib.metadata import PackageNotFoundError, version

import onnxruntime
import pytest
import torch

from autocompress.core.target import Target
from autocompress.report import environment as environment_module
from autocompress.report.environment import environment


def test_the_runtime_may_come_in_a_package_of_another_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def known(name: str) -> str:
        if name == "onnxruntime":  # only onnxruntime-gpu is there
            raise PackageNotFoundError(name)
        return version(name)

    monkeypatch.setattr(environment_module, "version", known)
    found = environment(Target.named("onnxruntime-cpu"), "cpu", seed=7)
    assert found["onnxruntime"] == onnxruntime.__version__


def test_processor_versions_and_seed_are_named_in_plain_json() -> None:
    found = environment(Target.named("onnxruntime-cpu", threads=2), "cpu", seed=7)
    assert json.loads(json.dumps(found)) == found
    assert found["seed"] == 7
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["target"] == "onnxruntime-cpu, threads: 2, batch: 1"
    assert found["processor"]
