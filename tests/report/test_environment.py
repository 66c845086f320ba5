import json

import torch

from autocompress.core.target import Target
from autocompress.report.environment import environment


def test_processor_versions_and_seed_are_named_in_plain_json() -> None:
    found = environment(Target.named("onnxruntime-cpu", threads=2), "cpu", seed=7)
    assert json.loads(json.dumps(found)) == found
    assert found["seed"] == 7
    assert found["torch"].split("+")[0] == torch.__version__.split("+")[0]
    assert found["target"] == "onnxruntime-cpu, threads: 2, batch: 1"
    assert found["processor"]
