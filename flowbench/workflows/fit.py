"""From a configuration to a run: train, evaluate, store; and on from what was stored."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import torch

from flowbench.data import Dataset, Split
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import DamagedFileError, IntegrationError, RunExistsError, RunFailedError
from flowbench.evaluation.fit_results import compute_results
from flowbench.evaluation.pitfalls import Pitfalls
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.givens import Givens
from flowbench.store import Metric, Run, check_run_name, is_run_folder
from flowbench.training.progress import Progress
from flowbench.training.state import TrainingState
from flowbench.training.trainer import Trainer
from flowbench.workflows.config import RunConfig, with_evaluation
from flowbench.workflows.dataset_rows import (
    describe_dataset,
    find_dequantiser,
    load_rows,
    split_sizes,
    tell_pitfalls,
)
from flowbench.workflows.environment import describe_host, describe_versions, source_commit
from flowbench.workflows.home import Home
from flowbench.workflows.machine import check_device, cpu_threads
from flowbench.workflows.preparation import (
    EVALUATION,
    Prepared,
    Watch,
    build_encoder,
    build_givens,
    make_trainer,
    place_rows,
    prepare,
    random_stream,
)
from flowbench.workflows.stored_run import StoredRun


def fit(
    config: RunConfig,
    *,
    home: Home | None = None,
    name: str | None = None,
    command: Sequence[str] = (),
    watch: Watch | None = None,
) -> Run:
    """Fit a model and store everything it says in a new run folder, which is returned.

    The run's status tells how it ended: "finished", or "interrupted" where `watch.should_stop` asked for
    an end (the best weights are kept, and `resume` goes on from the last validation). Raises `DataError`,
    `ConfigurationError` and `RunExistsError` before anything is written, and `RunFailedError` if training
    diverges.
    """
    home, watch = home or Home(), watch or Watch()
    check_device(config.device)
    if name is not None and (path := home.runs / check_run_name(name)).exists():
        if is_run_folder(path):
            raise RunExistsError(f"the run {path} exists already; choose another `--name`, or `--resume` it")
        raise RunExistsError(f"{path} is there already, and is no run; choose another `--name`, or remove it")
    with cpu_threads(config.threads), ExitStack() as held:
        dataset, split = load_rows(config, home.datasets)
        dequantiser = find_dequantiser(config, dataset, split)
        pitfalls = tell_pitfalls(config, dataset, split, dequantiser, watch.on_table or watch.on_warning)
        encoder = build_encoder(config, dataset.target_names, dequantiser)
        givens = build_givens(config, dataset.given)
        work = _Work.begin(config, dataset, split, encoder, givens, watch)
        stem = f"{Path(config.data.dataset).name.partition('.')[0]}-{config.flow.name}"
        run = home.create_run(name, stem, config.to_values(), work.describe(command, pitfalls), held)
        _train_and_evaluate(StoredRun(run), work, None, watch)
    return run


def resume(
    run: Run, *, settings: Sequence[str] = (), home: Home | None = None, watch: Watch | None = None
) -> Run:
    """Go on with a run that was interrupted or killed, or whose evaluation failed, from its last saved state.

    With a budget in steps and one thread, the weights end up the same, bit for bit, as those of a run that
    was never interrupted. `settings`, such as "evaluation.integrator.rtol=1e-5", change its evaluation, and
    its configuration on disk. Raises `RunExistsError` if the run is finished, `RunLockedError` if it is under
    way, `DataError` if the table has changed since.
    """
    home, watch = home or Home(), watch or Watch()
    if run.info.get("status") == "finished":
        lost = (
            "" if run.has_results else ", and does not bring back its results.h5, which is missing: fit anew"
        )
        raise RunExistsError(f"the run {run.path} is finished; there is nothing to resume{lost}")
    stored = StoredRun(run)
    config = stored.config
    if settings:
        config = with_evaluation(config, settings)
    check_device(config.device)
    with cpu_threads(config.threads), run.lock():
        dataset, split = load_rows(config, home.datasets)
        stored.check(dataset, split)
        saved = stored.load_state()
        work = _Work.begin(config, dataset, split, saved.encoder, saved.givens, watch, saved.seconds)
        if settings:
            run.update_info(asked_evaluation=asked_configuration(run).get("evaluation", {}))
            run.write_config(config.to_values())
        _train_and_evaluate(stored, work, saved.training, watch)
    return run


def asked_configuration(run: Run) -> dict[str, Any]:
    """The configuration that a run was begun with, whatever evaluation it was resumed with."""
    asked = run.info.get("asked_evaluation")
    return run.config if asked is None else {**run.config, "evaluation": asked}


@dataclass(frozen=True)
class _Work:
    """What a run is made of before its first step."""

    config: RunConfig
    dataset: Dataset
    split: Split
    prepared: Prepared

    @classmethod
    def begin(
        cls,
        config: RunConfig,
        dataset: Dataset,
        split: Split,
        encoder: TableEncoder,
        givens: Givens | None,
        watch: Watch,
        spent: tuple[float, float] | None = None,
    ) -> Self:
        """Fit the encoders, unless seconds were `spent` on that already, and build the model."""
        rows = place_rows(encoder, dataset, config.data.seed)
        train, validation = (rows[torch.from_numpy(part)] for part in (split.train, split.validation))
        del rows  # as large as the table
        prepared = prepare(
            config,
            encoder,
            train,
            validation,
            watch.on_preparation,
            givens=givens,
            spent=spent,
        )
        if prepared.chosen:
            watch.on_choice(prepared.chosen)
        for text in prepared.model.flow.remarks:
            watch.on_warning(text)
        return cls(config, dataset, split, prepared)

    def describe(self, command: Sequence[str], pitfalls: Pitfalls) -> dict[str, Any]:
        """What `run.json` says of a run that begins."""
        model, device = self.prepared.model, self.config.device
        flow = model.flow
        divergence = flow.divergence.describe(flow.field) if isinstance(flow, ContinuousFlow) else None
        return {
            "status": "running",
            "command": list(command),
            "model": self.config.flow.name,
            **({"divergence": divergence} if divergence else {}),
            "dataset": describe_dataset(self.dataset, model.encoder.dequantiser),
            "pitfalls": asdict(pitfalls),
            "split": split_sizes(self.split),
            "seed": self.config.seed,
            "device": device,
            **({} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)}),
            "started": _now(),
            "versions": describe_versions(),
            "commit": source_commit(),
            "host": describe_host(),
        }


def _train_and_evaluate(stored: StoredRun, work: _Work, state: TrainingState | None, watch: Watch) -> None:
    run, model = stored.run, work.prepared.model

    def keep(progress: Progress) -> None:
        run.append_metrics({key: value for key, value in asdict(progress).items() if key not in _UNLOGGED})
        # A state that could not be validated is none to return to, and going on from the one before it
        # leads here again.
        if math.isfinite(progress.validation_nll):
            stored.save_state(trainer.state(), model, work.prepared.encoder_seconds)
        watch.on_progress(progress)

    with _status_on_failure(run):
        run.update_info(status="running", error=None)
        if state is None:
            # Also of a run that was killed before it saved a state, and is prepared anew.
            told = {"chosen": work.prepared.chosen, "remarks": list(model.flow.remarks)}
            run.update_info(**{name: value or None for name, value in told.items()})
        watch.on_start(run)
        trainer = make_trainer(work.prepared, watch, keep)
        if state is not None:
            _load(trainer, state, run)
        run.truncate_metrics(trainer.counters.step if state else -1)
        try:
            outcome = trainer.run()
        finally:
            stored.save_model(model)
        if outcome == "interrupted":
            run.update_info(status="interrupted")
            return
        watch.on_stage("evaluating")
        wall_seconds = work.prepared.encoder_seconds[0] + trainer.counters.wall_seconds
        cpu_seconds = work.prepared.encoder_seconds[1] + trainer.counters.cpu_seconds
        try:
            results = compute_results(
                model,
                work.dataset,
                work.split,
                work.config.evaluation,
                random_stream(work.config.seed, EVALUATION),
                training_metrics={
                    "validation_nll": Metric(trainer.counters.best_nll, "nats"),
                    "cpu_seconds": Metric(cpu_seconds, "seconds"),
                    "wall_seconds": Metric(wall_seconds, "seconds"),
                },
                provenance={"run": run.name, **run.dataset, "seed": work.config.seed},
                warn=watch.on_warning,
            )
        except IntegrationError as error:
            raise RunFailedError(
                f"the evaluation failed: {error}; the weights are kept: go on with `--resume` and "
                "`--set evaluation.integrator.…`, or use them with `score` and `sample`"
            ) from None
        run.write_results(results)
        run.update_info(
            status="finished",
            outcome=outcome,
            finished=_now(),
            wall_seconds=wall_seconds,
            cpu_seconds=cpu_seconds,
            test_rows_scored=len(results.scored.row),
        )


def _load(trainer: Trainer[Any, Any], state: TrainingState, run: Run) -> None:
    try:
        trainer.load(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise DamagedFileError(f"the state in {run.path} does not fit its configuration: {error}") from error


#: Of a `Progress`, what only the progress line needs.
_UNLOGGED = {"fraction", "seconds_left", "best_nll"}


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


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
