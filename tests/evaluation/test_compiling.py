from typing import Any

import pytest
import torch
from torch import nn

from autocompress.core.candidate import Candidate, DistillConfig
from autocompress.core.recipe import Recipe
from autocompress.evaluation import compiling
from autocompress.evaluation.compiling import Compiled, has_compiler, worth_compiling
from autocompress.evaluation.finetune import FineTuneConfig, fine_tune
from autocompress.graph.tracing import trace
from blobs import make_task, trained_model
from seasoned import compressed, pruned, uniform

NEEDS_COMPILER = pytest.mark.skipif(not has_compiler(), reason="there is no C++ compiler")


@pytest.mark.parametrize(
    ("choice", "seconds", "compiler", "quick", "expected"),
    [
        ("on", None, False, False, True),
        ("off", 9999.0, True, True, False),
        ("auto", 9999.0, True, True, True),
        ("auto", 9999.0, True, False, False),
        ("auto", 9999.0, False, True, False),
        ("auto", 60.0, True, True, False),
        ("auto", None, True, True, False),
    ],
)
def test_compiling_waits_for_long_trainings(
    monkeypatch: pytest.MonkeyPatch,
    choice: str,
    seconds: float | None,
    compiler: bool,
    quick: bool,
    expected: bool,
) -> None:
    monkeypatch.setattr(compiling, "has_compiler", lambda: compiler)
    monkeypatch.setattr(compiling, "bfloat16_is_fast", lambda device: quick)
    assert worth_compiling(Recipe(compile=choice), seconds, "cpu") is expected


def test_the_compiler_that_the_environment_names_must_be_there(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert not has_compiler()


@NEEDS_COMPILER
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # within torch's compiler
@pytest.mark.parametrize("bits", [8, 4])
def test_compiled_training_learns_what_eager_training_does(bits: int) -> None:
    task = make_task()  # its last batch is smaller
    teacher = trained_model(task)
    inputs = torch.cat([x for x, _ in task.train])
    graph = trace(teacher, inputs)
    candidate = Candidate(pruning_ratios=pruned(graph, 0.5), layers=uniform(graph, bits))
    weights = []
    for choice in ("on", "off"):
        student = compressed(teacher, inputs, candidate)
        config = FineTuneConfig(images=400, recipe=Recipe(compile=choice, low_precision=False))
        assert student.is_plain is False  # until training turns off the grids of 8 bits
        fine_tune(student, teacher, task, DistillConfig(), config, seed=0)
        weights.append(torch.cat([p.detach().flatten() for p in student.network.parameters()]))
    torch.testing.assert_close(weights[0], weights[1], rtol=1e-3, atol=1e-4)


def test_a_batch_of_another_size_runs_without_compiled_code(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    calls: list[int] = []

    def compile_(model: nn.Module, **_: Any) -> Any:
        def run(x: torch.Tensor) -> Any:
            calls.append(len(x))
            return model(x)

        return run

    monkeypatch.setattr(torch, "compile", compile_)
    model = Compiled(nn.Linear(3, 2), 8)
    for size in (8, 5, 8):
        assert len(model(torch.zeros(size, 3))) == size
    assert calls == [8, 8]


def test_what_cannot_be_compiled_is_said_once_and_runs_as_it_is(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def broken(*_: Any, **__: Any) -> Any:
        raise RuntimeError("no kernel\nand a long trace")

    monkeypatch.setattr(torch, "compile", lambda *_, **__: broken)
    layer = nn.Linear(3, 2)
    model, inputs = Compiled(layer, 4), torch.ones(4, 3)
    with pytest.warns(UserWarning, match="without compiled code: RuntimeError: no kernel$"):
        outputs = model(inputs)
    assert torch.equal(outputs, layer(inputs))
    assert torch.equal(model(inputs), layer(inputs))


def test_an_error_of_the_model_itself_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda model, **_: model)
    with pytest.raises(RuntimeError, match="shapes"):
        Compiled(nn.Linear(3, 2), 4)(torch.zeros(4, 7))
