"""From a configuration to a run: load, split, transform, train, evaluate, store."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.config import RunConfig
from flowbench.data import Dataset, Split, load_dataset
from flowbench.data.dequantise import CONTINUOUS, Dequantiser, choose_dequantiser
from flowbench.data.pitfalls import find_pitfalls
from flowbench.environment import describe_host, describe_versions, source_commit
from flowbench.errors import ConfigurationError, DamagedFileError, DataError, RunExistsError
from flowbench.evaluation.evaluate import evaluate
from flowbench.flows.background import Background
from flowbench.flows.density_model import DensityModel
from flowbench.home import Home
from flowbench.registry import FLOWS, TRANSFORMS
from flowbench.store import Metric, Run, check_run_name
from flowbench.training.state import TrainingState, from_arrays, to_arrays
from flowbench.training.stopwatch import Stopwatch
from flowbench.training.trainer import Progress, Trainer, make_objectives

#: Of a budget that is a time, the share that a background may take to be fitted.
BACKGROUND_SHARE = 0.1

#: Independent random streams drawn from a run's seed.
WEIGHTS, TRAINING, EVALUATION, DEQUANTISATION = range(4)


@dataclass(frozen=True)
class Watch:
    """What the caller of a fit wants to hear, and how it asks for an end."""

    on_start: Callable[[Run], None] = lambda run: None
    on_progress: Callable[[Progress], None] = lambda progress: None
    on_stage: Callable[[str], None] = lambda stage: None
    should_stop: Callable[[], bool] = lambda: False


@dataclass(frozen=True)
class Prepared:
    """An untrained model whose transforms are fitted on the train rows, and the rows in model space.

    `reserve` are validation rows beyond those that training is judged by. `validation_log_det` is the mean
    log|det| of the transforms on the `validation` rows. `wall_seconds` and `cpu_seconds` went into the
    transforms, `fit_wall_seconds` and `fit_cpu_seconds` into what of the model is fitted before its first
    step, which is a part of its training.
    """

    config: RunConfig
    model: DensityModel
    train: Tensor
    validation: Tensor
    reserve: Tensor
    validation_log_det: float
    wall_seconds: float
    cpu_seconds: float
    fit_wall_seconds: float
    fit_cpu_seconds: float

    def nll(self, rows: Tensor, log_prob: Tensor) -> Tensor:
        """NLL `(n,)`, nats, of held-out `rows: (n, d)` in model space, from the flow's `log_prob: (n,)`.

        With the background, if there is one, at the shares that suit these rows. The figures are of data
        units in the mean of the validation rows.
        """
        background, log_prob, rows = self.model.background, log_prob.cpu(), rows.cpu()
        if background is not None:
            log_prob = background.mix(log_prob, rows, background.best_shares(log_prob, rows))
        return -log_prob - self.validation_log_det

    def settle(self, rows: Tensor, log_prob: Tensor) -> None:
        """Give the background the shares that suit `rows: (n, d)`, of which the flow says `log_prob`."""
        if self.model.background is not None:
            self.model.background.weigh(log_prob.cpu(), rows.cpu())


def random_stream(seed: int, purpose: int, device: str = "cpu") -> torch.Generator:
    """The generator of one purpose of a run (`WEIGHTS`, `TRAINING`, `EVALUATION`)."""
    state = np.random.SeedSequence([seed, purpose]).generate_state(1, np.uint64)
    return torch.Generator(device).manual_seed(int(state[0]))


def build_model(config: RunConfig, columns: tuple[str, ...]) -> DensityModel:
    """A model of `columns` with unfitted transforms and the initial weights of the run's seed."""
    transforms = [TRANSFORMS.get(options.name)(columns, options) for options in config.transforms]
    generator = random_stream(config.seed, WEIGHTS)
    flow = FLOWS.get(config.flow.name)(len(columns), config.flow, generator)
    background = Background(len(columns)) if config.background else None
    return DensityModel(columns, transforms, flow, background)


def prepare(
    config: RunConfig, columns: tuple[str, ...], train: NDArray[np.float64], validation: NDArray[np.float64]
) -> Prepared:
    """A model of `columns`, ready to train on rows `(n, d)` and validate on rows `(m, d)`, data units."""
    stopwatch = Stopwatch()
    model = build_model(config, columns)
    make_objectives(config.plan, model.flow)  # refuses an impossible plan before anything is written
    rows = torch.tensor(train)
    for transform in model.transforms:
        transform.fit(rows)  # type: ignore[operator]
        rows, _ = transform.to_model(rows)  # type: ignore[operator]
    judged, reserved = config.plan.divide(len(validation))
    held_out, log_det = model.to_model(torch.tensor(validation[: judged + reserved]))
    before, fitting = (stopwatch.wall(), stopwatch.cpu()), Stopwatch()
    train_rows, held_out = (part.float().to(config.device) for part in (rows, held_out))
    model.flow.to(config.device).initialise(train_rows, config.plan.seconds)
    if model.background is not None:
        model.background.fit(rows, BACKGROUND_SHARE * (config.plan.seconds or math.inf))
    return Prepared(
        config,
        model,
        train=train_rows,
        validation=held_out[:judged],
        reserve=held_out[judged:],
        validation_log_det=log_det[:judged].mean().item(),
        wall_seconds=before[0],
        cpu_seconds=before[1],
        fit_wall_seconds=fitting.wall(),
        fit_cpu_seconds=fitting.cpu(),
    )


def make_trainer(
    prepared: Prepared, watch: Watch, on_validation: Callable[[Progress], None] = lambda progress: None
) -> Trainer:
    """The trainer of a prepared model, drawing from the run's own random stream."""
    config = prepared.config
    return Trainer(
        prepared.model.flow,
        config.plan,
        prepared.train,
        prepared.validation,
        reserve=prepared.reserve,
        nll=prepared.nll,
        settle=prepared.settle,
        generator=random_stream(config.seed, TRAINING, config.device),
        on_progress=watch.on_progress,
        on_validation=on_validation,
        should_stop=watch.should_stop,
        clock=Stopwatch(prepared.fit_wall_seconds, prepared.fit_cpu_seconds),
    )


def load_rows(config: RunConfig, datasets: Path) -> tuple[Dataset, Split]:
    """The data set of a configuration and its split; raises as `load_dataset` does."""
    data, split = config.data, config.split
    dataset = load_dataset(
        data.dataset, columns=data.columns, rows=data.rows, seed=data.seed, folder=datasets
    )
    return dataset, Split.draw(len(dataset.rows), (split.train, split.validation, split.test), data.seed)


def dequantise(config: RunConfig, dataset: Dataset, split: Split) -> tuple[Dequantiser, NDArray[np.float64]]:
    """The configuration's dequantiser of a data set, and the rows `(n, d)` that a model learns from."""
    dequantiser = CONTINUOUS
    if config.data.dequantise:
        dequantiser = choose_dequantiser(dataset, dataset.rows[split.train], config.data.spacings)
    random = np.random.default_rng((config.data.seed, DEQUANTISATION))
    return dequantiser, dequantiser.jitter(dataset.rows, random)


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
        raise RunExistsError(f"the run {path} exists already; choose another `--name`, or `--resume` it")
    work = _Work.begin(config, home)
    stem = f"{Path(config.data.dataset).name.partition('.')[0]}-{config.flow.name}"
    run = home.create_run(name, stem, config.to_values(), work.describe(command))
    with run.lock():
        _train_and_evaluate(run, work, None, watch)
    return run


def resume(run: Run, *, home: Home | None = None, watch: Watch | None = None) -> Run:
    """Go on with a run that was interrupted or killed, from its last saved state.

    With a budget in steps and one thread, the weights end up the same, bit for bit, as those of a run that
    was never interrupted. Raises `RunExistsError` if the run is finished, `RunLockedError` if it is under
    way, `DataError` if the table has changed since.
    """
    home, watch = home or Home(), watch or Watch()
    if run.info.get("status") == "finished":
        raise RunExistsError(f"the run {run.path} is finished; there is nothing to resume")
    config = read_config(run)
    _use_machine(config)
    with run.lock():
        work = _Work.begin(config, home)
        check_data(run, work.dataset)
        state = TrainingState.unpack(*run.load_resume()) if run.has_resume else None
        _train_and_evaluate(run, work, state, watch)
    return run


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
        model = build_model(config, tuple(run.info["dataset"]["columns"]))
        model.load_state_dict(from_arrays(tensors))
    except (RuntimeError, KeyError, TypeError, ConfigurationError) as error:
        raise DamagedFileError(
            f"the model in {run.path} does not fit its configuration: one of them was changed, or the run is "
            f"of another version of flowbench and has to be fitted again: {error}"
        ) from None
    return model


def load_dequantiser(run: Run) -> Dequantiser:
    """How a run's rows were dequantised; raises `DamagedFileError` if its description does not tell."""
    dataset = run.info["dataset"]
    try:
        return Dequantiser.of_values(tuple(dataset["columns"]), dataset.get("lattices", {}))
    except (ValueError, TypeError, KeyError) as error:
        raise DamagedFileError(f"{run.path / 'run.json'}: `lattices` was changed: {error}") from None


def check_data(run: Run, dataset: Dataset) -> None:
    """Raise `DataError` if `dataset` is no longer what the run recorded of it."""
    recorded = run.info.get("dataset")
    if not isinstance(recorded, Mapping) or recorded.get("sha256") != dataset.provenance.sha256:
        raise DataError(
            f"the data set `{dataset.name}` has changed since the run {run.path} began; put the old one "
            "back, or fit anew"
        )


def _use_machine(config: RunConfig) -> None:
    torch.set_num_threads(config.threads)
    if config.device != "cpu" and (torch.device(config.device).index or 0) >= torch.cuda.device_count():
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
    prepared: Prepared

    @classmethod
    def begin(cls, config: RunConfig, home: Home) -> Self:
        """Load, split and transform the data and build the model."""
        dataset, split = load_rows(config, home.datasets)
        dequantiser, rows = dequantise(config, dataset, split)
        prepared = prepare(config, dataset.column_names, rows[split.train], rows[split.validation])
        return cls(config, dataset, split, dequantiser, prepared)

    def describe(self, command: Sequence[str]) -> dict[str, Any]:
        """What `run.json` says of a run that begins."""
        return {
            "status": "running",
            "command": list(command),
            "model": self.config.flow.name,
            "dataset": {
                "name": self.dataset.name,
                **asdict(self.dataset.provenance),
                "rows": len(self.dataset.rows),
                "columns": list(self.dataset.column_names),
                "lattices": self.dequantiser.to_values(),
            },
            "pitfalls": asdict(
                find_pitfalls(self.dataset, self.split, self.dequantiser, self.config.evaluation.test_rows)
            ),
            "split": {
                "train": len(self.split.train),
                "validation": len(self.split.validation),
                "test": len(self.split.test),
            },
            "seed": self.config.seed,
            "device": self.config.device,
            "started": _now(),
            "versions": describe_versions(),
            "commit": source_commit(),
            "host": describe_host(),
        }


def _train_and_evaluate(run: Run, work: _Work, state: TrainingState | None, watch: Watch) -> None:
    def keep(progress: Progress) -> None:
        run.append_metrics({key: value for key, value in asdict(progress).items() if key not in _UNLOGGED})
        run.save_resume(*trainer.state().pack())
        watch.on_progress(progress)

    with _status_on_failure(run):
        run.update_info(status="running")
        watch.on_start(run)
        trainer = make_trainer(work.prepared, watch, keep)
        if state is not None:
            _load(trainer, state, run)
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
        results = evaluate(
            work.prepared.model.cpu(),
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
            provenance={"run": run.name, **run.info["dataset"], "seed": work.config.seed},
        )
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
    run.truncate_metrics(state.counters.step)


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
