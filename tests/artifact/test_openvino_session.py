from pathlib import Path

import numpy as np
import pytest
import torch

import autocompress as ac
from autocompress.artifact.openvino_session import OpenVinoSession
from autocompress.errors import InvalidInputError, MissingFileError

pytest.importorskip("openvino", reason="the extra 'openvino' is not installed")


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    inputs = torch.randn(2, 12)
    model = torch.nn.Sequential(torch.nn.Linear(12, 8), torch.nn.ReLU(), torch.nn.Linear(8, 4))
    path = tmp_path_factory.mktemp("openvino") / "model.onnx"
    ac.export(ac.compress(model.eval(), ac.Candidate(), inputs), path, inputs)
    return path


def test_a_file_and_its_content_compute_the_same_at_every_size_of_batch(path: Path) -> None:
    sessions = [OpenVinoSession(model, threads=1) for model in (path, path.read_bytes())]
    (node,) = sessions[0].get_inputs()
    assert (node.type, node.shape) == ("tensor(float)", ("batch", 12))
    rng = np.random.default_rng(0)
    for size in (1, 3, 1):
        feed = {node.name: rng.standard_normal((size, 12)).astype(np.float32)}
        (first,), (second,) = (session.run(None, feed) for session in sessions)
        assert first.shape == (size, 4)
        np.testing.assert_array_equal(first, second)


def test_what_a_run_returned_is_not_changed_by_the_next(path: Path) -> None:
    session = OpenVinoSession(path, threads=1)
    name = session.get_inputs()[0].name
    (zeros,) = session.run(None, {name: np.zeros((1, 12), np.float32)})
    kept = zeros.copy()
    call = session.bind({name: np.ones((1, 12), np.float32)})
    call()
    np.testing.assert_array_equal(zeros, kept)


def test_what_is_no_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match="an ONNX file"):
        OpenVinoSession(tmp_path / "none.onnx", threads=1)
    (tmp_path / "broken.onnx").write_bytes(b"no model")
    with pytest.raises(InvalidInputError, match="OpenVINO can run"):
        OpenVinoSession(tmp_path / "broken.onnx", threads=1)
