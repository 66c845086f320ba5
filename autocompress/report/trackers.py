"""Callbacks that show a search in TensorBoard or MLflow; the extra `loggers` installs both."""

from pathlib import Path
from types import TracebackType
from typing import Any

from autocompress.core.events import Event
from autocompress.errors import MissingExtraError, explain
from autocompress.report.event_log import event_record


def event_scalars(event: Event) -> dict[str, float]:
    """Return the numbers of a trial or a member by "trial/<name>" or "member/<name>"."""
    kind = "trial" if event.evaluation is not None else "member"
    if event.evaluation is None and event.member is None:
        return {}
    apart = ("slot", "trials_done", "trials_total", "seconds_left", "progress")
    return {
        f"{kind}/{name.removeprefix('measured_')}": float(value)
        for name, value in event_record(event).items()
        if isinstance(value, (int, float)) and name not in apart
    }


class TensorBoardTracker:
    """Writes trials and members as scalars for TensorBoard, one step per trial.

    Args:
        folder: Where the event files go, for example below the study's.

    Raises:
        MissingExtraError: If TensorBoard is not installed.
    """

    def __init__(self, folder: str | Path) -> None:
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError as error:
            raise _missing("TensorBoard", error) from error
        self._writer: Any = SummaryWriter(str(folder))

    def __call__(self, event: Event) -> None:
        """Write what an event tells."""
        for name, value in event_scalars(event).items():
            self._writer.add_scalar(name, value, event.trials_done)
        self._writer.flush()

    def close(self) -> None:
        """Close the files."""
        self._writer.close()


class MLflowTracker:
    """Writes trials and members as metrics of one MLflow run; a context manager.

    Args:
        experiment: The name of the experiment.
        run: The name of the run; None lets MLflow choose one.
        uri: Where MLflow keeps its data; None as MLflow is configured.

    Raises:
        MissingExtraError: If MLflow is not installed.
    """

    def __init__(self, experiment: str, run: str | None = None, uri: str | None = None) -> None:
        try:
            from mlflow.tracking import MlflowClient
        except ImportError as error:
            raise _missing("MLflow", error) from error
        self._client: Any = MlflowClient(tracking_uri=uri)
        known = self._client.get_experiment_by_name(experiment)
        number = known.experiment_id if known else self._client.create_experiment(experiment)
        self._run = self._client.create_run(number, run_name=run).info.run_id

    def __enter__(self) -> "MLflowTracker":
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End the run."""
        self._client.set_terminated(self._run, "FINISHED" if error is None else "FAILED")

    def __call__(self, event: Event) -> None:
        """Write what an event tells."""
        for name, value in event_scalars(event).items():
            self._client.log_metric(self._run, name, value, step=event.trials_done)


def _missing(what: str, error: ImportError) -> MissingExtraError:
    return MissingExtraError(
        explain(
            f"the tracker for {what}",
            expected=f"{what} to be installed",
            got=str(error),
            remedy="pip install 'autocompress[loggers]'",
        )
    )
