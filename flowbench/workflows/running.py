"""What the fits of all kinds of data share: the log, the saved states, and how a run ends."""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from flowbench.errors import DamagedFileError, IntegrationError, RunExistsError, RunFailedError
from flowbench.store import Metric, Run, check_run_name, is_run_folder
from flowbench.training.progress import Progress
from flowbench.training.state import TrainingState
from flowbench.training.trainer import Trainer
from flowbench.workflows.config import Configuration
from flowbench.workflows.environment import describe_host, describe_versions, source_commit
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch

#: Of a `Progress`, what only the progress line needs.
_UNLOGGED = {"fraction", "seconds_left", "best_nll", "noun"}


class Job(ABC):
    """The work of one run: what it trains, and what it keeps.

    `seconds`, wall and CPU, went into what was fitted before training and is no part of its budget.
    """

    run: Run
    seconds: tuple[float, float] = (0.0, 0.0)

    @abstractmethod
    def make_trainer(self, on_validation: Callable[[Progress], None]) -> Trainer[Any, Any]:
        """The trainer at the start of the run."""

    @abstractmethod
    def save_state(self, state: TrainingState) -> None:
        """Replace the state to go on from."""

    @abstractmethod
    def save_model(self) -> None:
        """Replace the fitted model."""

    @abstractmethod
    def evaluate(self, training_metrics: dict[str, Metric]) -> dict[str, Any]:
        """Judge the model and write the results; returns what else run.json says of them."""

    def begin_told(self) -> dict[str, Any]:
        """What run.json says of a run that begins anew, beside what it was made with."""
        return {}


def carry_out(job: Job, state: TrainingState | None, watch: Watch) -> None:
    """Train, from `state` if there is one, and evaluate; the run's files say at any time how far it is.

    Raises `RunFailedError` if training diverges or the evaluation fails.
    """
    run = job.run

    def keep(progress: Progress) -> None:
        run.append_metrics({key: value for key, value in asdict(progress).items() if key not in _UNLOGGED})
        # A state that could not be validated is none to return to, and going on from the one before it
        # leads here again.
        if math.isfinite(progress.validation_nll):
            job.save_state(trainer.state())
        watch.on_progress(progress)

    with _status_on_failure(run):
        run.update_info(status="running", error=None)
        if state is None:
            # Also of a run that was killed before it saved a state, and is prepared anew.
            run.update_info(**job.begin_told())
        watch.on_start(run)
        trainer = job.make_trainer(keep)
        if state is not None:
            _load(trainer, state, run)
        run.truncate_metrics(trainer.counters.step if state else -1)
        try:
            outcome = trainer.run()
        finally:
            job.save_model()
        if outcome == "interrupted":
            run.update_info(status="interrupted")
            return
        watch.on_stage("evaluating")
        wall_seconds = job.seconds[0] + trainer.counters.wall_seconds
        cpu_seconds = job.seconds[1] + trainer.counters.cpu_seconds
        training_metrics = {
            "validation_nll": Metric(trainer.counters.best_nll, "nats"),
            "cpu_seconds": Metric(cpu_seconds, "seconds"),
            "wall_seconds": Metric(wall_seconds, "seconds"),
        }
        try:
            told = job.evaluate(training_metrics)
        except IntegrationError as error:
            raise RunFailedError(
                f"the evaluation failed: {error}; the weights are kept: go on with `--resume` and "
                "`--set evaluation.integrator.…`, or use them with `score` and `sample`"
            ) from None
        run.update_info(
            status="finished",
            outcome=outcome,
            finished=_now(),
            wall_seconds=wall_seconds,
            cpu_seconds=cpu_seconds,
            **told,
        )


def describe_start(config: Configuration, command: Sequence[str]) -> dict[str, Any]:
    """What `run.json` says of any run that begins: its command, seed and machine."""
    device = config.device
    return {
        "status": "running",
        "command": list(command),
        "seed": config.seed,
        "device": device,
        **({} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)}),
        "started": _now(),
        "versions": describe_versions(),
        "commit": source_commit(),
        "host": describe_host(),
    }


def check_is_free(home: Home, name: str | None) -> None:
    """Raise `RunExistsError` if there is something called `name` among the runs; None is always free."""
    if name is None or not (path := home.runs / check_run_name(name)).exists():
        return
    if is_run_folder(path):
        raise RunExistsError(f"the run {path} exists already; choose another `--name`, or `--resume` it")
    raise RunExistsError(f"{path} is there already, and is no run; choose another `--name`, or remove it")


def refuse_finished(run: Run) -> None:
    """Raise `RunExistsError` if a run that is to go on is finished."""
    if run.info.get("status") == "finished":
        lost = (
            "" if run.has_results else ", and does not bring back its results.h5, which is missing: fit anew"
        )
        raise RunExistsError(f"the run {run.path} is finished; there is nothing to resume{lost}")


def asked_configuration(run: Run) -> dict[str, Any]:
    """The configuration that a run was begun with, whatever evaluation it was resumed with."""
    asked = run.info.get("asked_evaluation")
    return run.config if asked is None else {**run.config, "evaluation": asked}


def keep_evaluation(run: Run, config: Configuration) -> None:
    """Write the configuration of a run that goes on with another evaluation than it was begun with."""
    run.update_info(asked_evaluation=asked_configuration(run).get("evaluation", {}))
    run.write_config(config.to_values())


@contextmanager
def _status_on_failure(run: Run) -> Iterator[None]:
    try:
        yield
    except KeyboardInterrupt:
        run.update_info(status="interrupted")
        raise
    except Exception as error:
        run.update_info(status="failed", error=str(error))
        raise


def _load(trainer: Trainer[Any, Any], state: TrainingState, run: Run) -> None:
    try:
        trainer.load(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise DamagedFileError(f"the state in {run.path} does not fit its configuration: {error}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
