"""What stands in for a search behind the command line, and how a verb is called."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from click.testing import Result
from typer.testing import CliRunner

from autocompress.cli import app
from autocompress.controller.preflight import report_on
from autocompress.core.candidate import Candidate
from autocompress.core.events import Event, Stop
from autocompress.front_member import FrontMember
from autocompress.graph.inputs import ModelInputs
from autocompress.graph.structure import Layer, ModelGraph
from autocompress.report.preflight import CheckReport
from autocompress.space.preset import SearchSpace

USER = """
import torch
from autocompress.evaluation.task import Task

def make_model():
    return torch.nn.Linear(4, 2)

def make_task():
    batch = (torch.zeros(3, 4), torch.zeros(3, dtype=torch.long))
    return Task(train=[batch], val=[batch])
"""


MEMBER = FrontMember(
    id="0042",
    candidate=Candidate(),
    predicted={"accuracy": 0.88, "latency_ms": 0.5},
    measured={"val_accuracy": 0.87, "accuracy": 0.86, "latency_ms": 0.6, "size_bytes": 9000},
    path=Path("front/0042/model.onnx"),
)


class FakeApi(SimpleNamespace):
    """Stands in for the search; everything around it is real."""

    def __init__(self) -> None:
        super().__init__(calls=[], front=[MEMBER], nearest_infeasible=[], error=None)
        self.interrupt: Callable[[Event], None] | None = None
        self.baseline = {"fp32": {"val_accuracy": 0.9, "accuracy": 0.91, "latency_ms": 1.0}}

    def result(self, study_dir: Path) -> SimpleNamespace:
        return SimpleNamespace(
            study_dir=study_dir,
            front=self.front,
            nearest_infeasible=self.nearest_infeasible,
            members=[*self.front, *self.nearest_infeasible],
            baseline=self.baseline,
            constraints={"accuracy_drop": 0.02},
            report=lambda: study_dir / "report.html",
        )

    def search(self, model: Any, task: Any, **options: Any) -> SimpleNamespace:
        self.calls.append(options)
        if self.error is not None:
            raise self.error
        try:
            for callback in options["callbacks"]:
                callback(Event(stage="baseline", message="measured the original", elapsed_s=1.0))
            if self.interrupt is not None:
                for stage in ("trials", "finalists"):
                    event = Event(stage=stage, message="", elapsed_s=1.0)
                    options["callbacks"][-1](event)
                    if stage == "trials":
                        self.interrupt(event)
        except Stop:
            pass
        return self.result(Path(options["study_dir"]))

    def open(self, study_dir: Path) -> SimpleNamespace:
        return self.result(study_dir)

    def check(self, model: Any, example_inputs: ModelInputs, **options: Any) -> CheckReport:
        self.calls.append(options)
        (inputs,) = example_inputs.tensors
        layer = Layer(
            name="fc",
            type=type(model).__name__,
            input_shape=tuple(inputs.shape[1:]),
            output_shape=(2,),
            weight_shape=(2, 4),
            quantisable=False,
            reason="too small",
        )
        other = replace(layer, name="head", quantisable=True, reason="")
        graph = ModelGraph(
            layers=(layer, other),
            operations=(),
            groups=(),
            blocks=(),
            parameters=10,
            fingerprint="0",
        )
        return CheckReport.of(report_on(graph, SearchSpace.load("mlp"), 120.0))


def invoke(*arguments: object) -> Result:
    return CliRunner().invoke(app, [str(argument) for argument in arguments])
