"""Events in TensorBoard and MLflow."""

from pathlib import Path

import pytest

from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation, FidelityResult
from autocompress.core.events import Event
from autocompress.report.trackers import MLflowTracker, TensorBoardTracker, event_scalars

FOUND = FidelityResult(accuracy=0.75, images=10, trained_images=0, seconds=1.0)
TRIAL = Event(
    stage="trials",
    message="trial 3",
    elapsed_s=2.5,
    trials_done=4,
    evaluation=Evaluation(slot=3, candidate=Candidate(), origin="joint", fidelities={0: FOUND}),
)
PLAIN = Event(stage="profile", message="measuring", elapsed_s=0.5)


def test_numbers_of_trials_are_scalars() -> None:
    assert event_scalars(TRIAL) == {"trial/elapsed_s": 2.5, "trial/accuracy_0": 0.75}
    assert event_scalars(PLAIN) == {}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_tensorboard_reads_what_is_written(tmp_path: Path) -> None:
    events = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator",
        reason="TensorBoard is not installed",
    )
    tracker = TensorBoardTracker(tmp_path)
    for event in (PLAIN, TRIAL):
        tracker(event)
    tracker.close()
    read = events.EventAccumulator(str(tmp_path))
    read.Reload()
    found = read.Scalars("trial/accuracy_0")
    assert [(point.step, point.value) for point in found] == [(4, 0.75)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_mlflow_reads_what_is_written(tmp_path: Path) -> None:
    tracking = pytest.importorskip("mlflow.tracking", reason="MLflow is not installed")
    uri = f"sqlite:///{tmp_path / 'mlflow.db'}"
    with MLflowTracker("searches", "first", uri) as tracker:
        for event in (PLAIN, TRIAL):
            tracker(event)
    client = tracking.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("searches")
    (run,) = client.search_runs([experiment.experiment_id])
    assert run.data.metrics["trial/accuracy_0"] == 0.75
    assert run.info.status == "FINISHED"
