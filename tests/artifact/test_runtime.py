from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from autocompress.artifact.runtime import InputNode, bind_inputs, open_session
from autocompress.errors import InvalidInputError, MissingFileError

WEIGHT = np.arange(6, dtype=np.float32).reshape(3, 2)


def _model() -> bytes:
    """`y = a @ WEIGHT + b`."""
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["a", "w"], ["product"]),
            helper.make_node("Add", ["product", "b"], ["y"]),
        ],
        "affine",
        [
            helper.make_tensor_value_info("a", TensorProto.FLOAT, ["n", 3]),
            helper.make_tensor_value_info("b", TensorProto.FLOAT, ["n", 2]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [numpy_helper.from_array(WEIGHT, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    model: onnx.ModelProto = helper.make_model(graph, opset_imports=opset, ir_version=8)
    return model.SerializeToString()


def test_inputs_are_bound_in_order_and_cast() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((4, 3)), rng.standard_normal((4, 2))
    session = open_session(_model(), threads=1)
    (outputs,) = session.run(None, bind_inputs(session, (a, b)))
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, a @ WEIGHT + b, rtol=1e-5, atol=1e-5)


def test_a_file_and_its_content_run_alike(tmp_path: Path) -> None:
    path = tmp_path / "model.onnx"
    path.write_bytes(_model())
    batch = {"b": np.ones((1, 2)), "a": np.ones((1, 3))}
    for source, threads in ((path, 2), (_model(), 1)):
        session = open_session(source, threads=threads)
        (outputs,) = session.run(None, bind_inputs(session, batch))
        np.testing.assert_array_equal(outputs, [[7.0, 10.0]])


def test_a_session_runs_as_it_was_asked_to() -> None:
    options = open_session(_model(), threads=2).get_session_options()
    assert options.intra_op_num_threads == 2
    assert options.inter_op_num_threads == 1


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingFileError, match=r"none\.onnx"):
        open_session(tmp_path / "none.onnx", threads=1)


@pytest.mark.parametrize("content", [b"", b"no ONNX at all", _model()[:40]])
def test_what_is_not_onnx_is_refused_in_one_line(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.onnx"
    path.write_bytes(content)
    for source in (path, content):
        with pytest.raises(InvalidInputError, match="expected an ONNX model") as caught:
            open_session(source, threads=1)
        assert "\n" not in str(caught.value)


def test_threads_below_one_are_refused() -> None:
    with pytest.raises(InvalidInputError, match="'threads'"):
        open_session(_model(), threads=0)


def test_inputs_must_have_the_names_and_number_of_the_model() -> None:
    session = open_session(_model(), threads=1)
    with pytest.raises(InvalidInputError, match=r"2 arrays \(a, b\)"):
        bind_inputs(session, np.ones((1, 3)))
    with pytest.raises(InvalidInputError, match=r"a, b, got a, c"):
        bind_inputs(session, {"a": np.ones((1, 3)), "c": np.ones((1, 2))})


def test_threads_rest_between_the_runs_of_a_session() -> None:
    options = open_session(_model(), threads=2).get_session_options()
    assert options.get_session_config_entry("session.force_spinning_stop") == "1"


def test_a_provider_that_does_not_load_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Session:
        """What ONNX Runtime opens where the libraries of CUDA are missing."""

        def __init__(self, *_: object, providers: list[str]) -> None:
            self.asked = providers

        def get_providers(self) -> list[str]:
            return ["CPUExecutionProvider"]

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    with pytest.raises(InvalidInputError, match="on CUDAExecutionProvider, got one on CPU"):
        open_session(_model(), threads=1, providers=["CUDAExecutionProvider"])
    session = open_session(_model(), threads=1)
    assert session.asked == ["CPUExecutionProvider"]


def test_inputs_keep_their_number_of_axes() -> None:
    node = InputNode(name="x", type="tensor(float)", shape=())

    class Scalar:
        def get_inputs(self) -> list[InputNode]:
            return [node]

    found = bind_inputs(Scalar(), {"x": np.float64(2.0)})["x"]
    assert (found.shape, found.dtype) == ((), np.float32)
    rows = np.asfortranarray(np.ones((2, 3), np.float32))
    assert bind_inputs(Scalar(), rows)["x"].flags.c_contiguous


def test_a_model_whose_names_are_no_text_is_refused() -> None:
    document = onnx.load_from_string(_model())
    content = document.SerializeToString().replace(b"MatMul", b"Mat\xff\xfel")
    with pytest.raises(InvalidInputError, match="expected an ONNX model"):
        open_session(content, threads=1)
