"""From a configuration to a run: prepare, train, evaluate, store; and back from what is stored."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import torch

from flowbench.data import Dataset, Split
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.errors import (
    ConfigurationError,
    DamagedFileError,
    DataError,
    IntegrationError,
    RunExistsError,
    RunFailedError,
)
from flowbench.evaluation.fit_results import compute_results
from flowbench.evaluation.pitfalls import Pitfalls, find_pitfalls
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density_model import DensityModel
from flowbench.report.table_cautions import about_table
from flowbench.store import Metric, Run, check_run_name, is_run_folder
from flowbench.training.progress import Progress
from flowbench.training.state import TrainingState, from_arrays, to_arrays
from flowbench.training.trainer import Trainer
from flowbench.workflows.config import RunConfig, evaluation_with
from flowbench.workflows.environment import describe_host, describe_versions, source_commit
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import (
    EVALUATION,
    Prepared,
    Watch,
    build_model,
    find_dequantiser,
    load_rows,
    make_trainer,
    prepare,
    random_stream,
    rows_to_learn,
)


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
    an end (the best weights are kept, and `resume` goes on from the last validation).
    Raises `DataError`, `ConfigurationError`,
    `RunExistsError` before anything is written; `RunFailedError` if training diverges.
    """
    home, watch = home or Home(), watch or Watch()
    _use_machine(config)
    if name is not None and (path := home.runs / check_run_name(name)).exists():
        if is_run_folder(path):
            raise RunExistsError(f"the run {path} exists already; choose another `--name`, or `--resume` it")
        raise RunExistsError(f"{path} is there already, and is no run; choose another `--name`, or remove it")
    work = _Work.begin(config, home, watch)
    stem = f"{Path(config.data.dataset).name.partition('.')[0]}-{config.flow.name}"
    with ExitStack() as held:
        run = home.create_run(name, stem, config.to_values(), work.describe(command), held)
        _train_and_evaluate(run, work, None, watch)
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
    config = read_config(run)
    if settings:
        config = config.model_copy(update={"evaluation": evaluation_with(config, settings)})
    _use_machine(config)
    with run.lock():
        work = _Work.begin(config, home, watch, run)
        state = TrainingState.unpack(*run.load_resume()) if run.has_resume else None
        if settings:
            run.update_info(asked_evaluation=asked_configuration(run).get("evaluation", {}))
            run.write_config(config.to_values())
        _train_and_evaluate(run, work, state, watch)
    return run


def asked_configuration(run: Run) -> dict[str, Any]:
    """The configuration that a run was begun with, whatever evaluation it was resumed with."""
    asked = run.info.get("asked_evaluation")
    return run.config if asked is None else {**run.config, "evaluation": asked}


def read_config(run: Run) -> RunConfig:
    """The configuration of a run; raises `DamagedFileError` if this version cannot make sense of it."""
    try:
        return RunConfig(**run.config)
    except ConfigurationError as error:
        raise DamagedFileError(
            f"the configuration in {run.path} was changed, or is of another version of flowbench: {error}"
        ) from None


def load_model(run: Run) -> DensityModel:
    """The fitted model of a run; raises `DamagedFileError` if the weights do not fit the configuration."""
    tensors, _ = run.load_model()
    config = read_config(run)
    try:
        model = build_model(config, tuple(run.dataset["columns"]))
        model.load_state_dict(from_arrays(tensors))
    except (RuntimeError, KeyError, TypeError, ConfigurationError) as error:
        raise DamagedFileError(
            f"the model in {run.path} does not fit its configuration: one of them was changed, or the run is "
            f"of another version of flowbench and has to be fitted again: {error}"
        ) from None
    return model


def load_dequantiser(run: Run) -> Dequantiser:
    """How a run's rows were dequantised; raises `DamagedFileError` if its description does not tell."""
    try:
        dataset = run.dataset
        return Dequantiser.of_values(tuple(dataset["columns"]), dataset.get("lattices", {}))
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedFileError(
            f"{run.path / 'run.json'}: `columns` and `lattices` of the data set are not as flowbench writes "
            f"them: {type(error).__name__}: {error}"
        ) from None


def load_types(run: Run) -> dict[str, ColumnType]:
    """How a run's table has the values of its columns.

    Raises `DamagedFileError` if run.json tells something else.
    """
    try:
        columns, known = run.dataset["columns"], run.dataset.get("types", {})
        return {name: ColumnType.of_values(known[name]) if name in known else FLOAT64 for name in columns}
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise DamagedFileError(f"{run.path / 'run.json'}: `types` makes no sense: {error}") from None


def load_model_on_device(run: Run) -> DensityModel:
    """The fitted model of a run, its flow on the device that it learnt on, where there is one here."""
    model, device = load_model(run), read_config(run).device
    if _is_there(device):
        model.flow.to(device)
    return model


def check_data(run: Run, dataset: Dataset) -> None:
    """Raise `DataError` if `dataset` is no longer what the run recorded of it, `DamagedFileError` if that is
    nothing.
    """
    recorded = run.dataset.get("sha256")
    if not isinstance(recorded, str):
        raise DamagedFileError(
            f"{run.path / 'run.json'} does not say which data the run was begun with, so it cannot go on; "
            "put back the file that it was, or fit anew"
        )
    if recorded != dataset.provenance.sha256:
        raise DataError(
            f"the data set `{dataset.name}` has changed since the run {run.path} began; put the old one "
            "back, or fit anew"
        )


def check_split(run: Run, split: Split) -> None:
    """Raise `DataError` if `split` has not the sizes that the run recorded of its own."""
    begun, now = run.info.get("split"), split_sizes(split)
    if begun not in (None, now):
        raise DataError(
            f"the run {run.path} began with other parts of its table ({_sizes(begun)}) than are drawn now "
            f"({_sizes(now)}): it is of another version of flowbench, or the table has changed; fit anew"
        )


def split_sizes(split: Split) -> dict[str, int]:
    """How many rows each part has, as `run.json` has it."""
    return {name: len(getattr(split, name)) for name in ("train", "validation", "test")}


def describe_dataset(dataset: Dataset, dequantiser: Dequantiser) -> dict[str, Any]:
    """What `run.json` says of a data set."""
    return {
        "name": dataset.name,
        **asdict(dataset.provenance),
        "rows": len(dataset.rows),
        "columns": list(dataset.column_names),
        "lattices": dequantiser.to_values(),
        "types": {
            column.name: column.type.to_values() for column in dataset.columns if column.type != FLOAT64
        },
        "notes": list(dataset.notes),
    }


def _sizes(parts: object) -> str:
    if not isinstance(parts, dict):
        return "unknown sizes"
    return ", ".join(f"{name} {number}" for name, number in parts.items())


def _is_there(device: str) -> bool:
    return device == "cpu" or (torch.device(device).index or 0) < torch.cuda.device_count()


def _use_machine(config: RunConfig) -> None:
    torch.set_num_threads(config.threads)
    if not _is_there(config.device):
        raise ConfigurationError(
            f"device `{config.device}` is not there; fit with `--device cpu`, or resume where there is one"
        )


@dataclass(frozen=True)
class _Work:
    """What a run is made of before its first step."""

    config: RunConfig
    dataset: Dataset
    split: Split
    dequantiser: Dequantiser
    pitfalls: Pitfalls | None
    prepared: Prepared

    @classmethod
    def begin(cls, config: RunConfig, home: Home, watch: Watch, run: Run | None = None) -> Self:
        """Load, split and transform the data and build the model; with the cells of a `run` that goes on.

        What is wrong with the table is told where a run is new: it stands in `run.json` from then on.
        """
        dataset, split = load_rows(config, home.datasets)
        pitfalls = None
        if run is None:
            dequantiser = find_dequantiser(config, dataset, split)
            pitfalls = find_pitfalls(dataset, split, dequantiser, config.evaluation.test_rows)
            for text in about_table(asdict(pitfalls), describe_dataset(dataset, dequantiser)):
                (watch.on_table or watch.on_warning)(text)
        else:
            check_data(run, dataset)
            check_split(run, split)
            dequantiser = load_dequantiser(run)
        rows = rows_to_learn(config, dataset, dequantiser)
        train, validation = rows[split.train], rows[split.validation]
        prepared = prepare(config, dataset.column_names, train, validation, watch.on_preparation)
        return cls(config, dataset, split, dequantiser, pitfalls, prepared)

    def describe(self, command: Sequence[str]) -> dict[str, Any]:
        """What `run.json` says of a run that begins."""
        flow, device = self.prepared.model.flow, self.config.device
        divergence = flow.divergence.describe(flow.field) if isinstance(flow, ContinuousFlow) else None
        return {
            "status": "running",
            "command": list(command),
            "model": self.config.flow.name,
            **({"divergence": divergence} if divergence else {}),
            "dataset": describe_dataset(self.dataset, self.dequantiser),
            **({"pitfalls": asdict(self.pitfalls)} if self.pitfalls else {}),
            "split": split_sizes(self.split),
            "seed": self.config.seed,
            "device": device,
            **({} if device == "cpu" else {"gpu": torch.cuda.get_device_name(device)}),
            "started": _now(),
            "versions": describe_versions(),
            "commit": source_commit(),
            "host": describe_host(),
        }


def _train_and_evaluate(run: Run, work: _Work, state: TrainingState | None, watch: Watch) -> None:
    def keep(progress: Progress) -> None:
        run.append_metrics({key: value for key, value in asdict(progress).items() if key not in _UNLOGGED})
        # A state that could not be validated is none to return to, and going on from the one before it
        # leads here again.
        if math.isfinite(progress.validation_nll):
            run.save_resume(*trainer.state().pack())
        watch.on_progress(progress)

    with _status_on_failure(run):
        run.update_info(status="running", error=None)
        watch.on_start(run)
        trainer = make_trainer(work.prepared, watch, keep)
        if state is not None:
            _load(trainer, state, run)
        run.truncate_metrics(trainer.counters.step if state else -1)
        try:
            outcome = trainer.run()
        finally:
            _save_model(run, work.prepared.model)
        if outcome == "interrupted":
            run.update_info(status="interrupted")
            return
        watch.on_stage("evaluating")
        wall_seconds = work.prepared.wall_seconds + trainer.counters.wall_seconds
        cpu_seconds = work.prepared.cpu_seconds + trainer.counters.cpu_seconds
        try:
            results = compute_results(
                work.prepared.model,
                work.dataset,
                work.split,
                work.dequantiser,
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


def _load(trainer: Trainer, state: TrainingState, run: Run) -> None:
    try:
        trainer.load(state)
    except (RuntimeError, ValueError, KeyError) as error:
        raise DamagedFileError(f"the state in {run.path} does not fit its configuration: {error}") from None


#: Of a `Progress`, what only the progress line needs.
_UNLOGGED = {"fraction", "seconds_left", "best_nll"}


def _save_model(run: Run, model: DensityModel) -> None:
    run.save_model(to_arrays(model.state_dict()), {"columns": ",".join(model.columns)})


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
