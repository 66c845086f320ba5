import multiprocessing
import os
import signal

import pytest
import torch
from torch.utils.data import DataLoader, TensorDataset

from autocompress.cli.interruption import Interruption
from autocompress.core.candidate import Candidate
from autocompress.core.evaluation import Evaluation
from autocompress.core.events import Event, Stop

TRIAL = Evaluation(slot=3, candidate=Candidate(), origin="tpe")


def event(stage: str = "trials", **values: object) -> Event:
    known = {"stage": stage, "message": "", "elapsed_s": 1.0}
    return Event(**(known | values))  # type: ignore[arg-type]


def test_the_first_interruption_waits_for_the_trial(capsys: pytest.CaptureFixture[str]) -> None:
    with Interruption() as interruption:
        interruption(event())
        signal.raise_signal(signal.SIGINT)
        assert "after the running trial" in capsys.readouterr().err
        interruption(event(progress=0.5))
        interruption(event(message="member 0003 is on disk"))
        assert not interruption.stopped
        with pytest.raises(Stop):
            interruption(event(evaluation=TRIAL))
    assert interruption.stopped


def test_the_second_interruption_stops_at_once() -> None:
    with Interruption() as interruption:
        interruption(event("finalists"))
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


@pytest.mark.parametrize("stage", ["baseline", "profile", "sensitivity", "measure"])
def test_stages_that_continue_anyway_stop_at_once(stage: str) -> None:
    with Interruption() as interruption:
        interruption(event(stage))
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


def test_ctrl_c_is_given_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with Interruption():
        assert signal.getsignal(signal.SIGINT) != before
    assert signal.getsignal(signal.SIGINT) is before


def test_a_trial_that_failed_has_ended_too() -> None:
    with Interruption() as interruption:
        interruption(event())
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(Stop):
            interruption(event(failure="its worker died"))


def test_a_trial_that_was_stopped_by_its_costs_has_ended_too() -> None:
    with Interruption() as interruption:
        interruption(event(trials_done=3))
        signal.raise_signal(signal.SIGINT)
        interruption(event(trials_done=3))
        with pytest.raises(Stop):
            interruption(event(trials_done=4))


def test_workers_of_loaders_leave_ctrl_c_to_the_search(capfd: pytest.CaptureFixture[str]) -> None:
    images = TensorDataset(torch.arange(8.0))
    with Interruption() as interruption:
        loader = DataLoader(
            images,
            num_workers=2,
            persistent_workers=True,
            multiprocessing_context="fork",
        )
        assert len(list(loader)) == 8
        for worker in multiprocessing.active_children():
            os.kill(worker.pid or 0, signal.SIGINT)
        interruption(event())
        assert len(list(loader)) == 8
    assert capfd.readouterr().err == ""
