"""From a configuration to a run on series: train, evaluate, store; and on from what was stored."""

import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch

from flowbench.data import Split
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.data.series_catalogue import load_series
from flowbench.data.series_dataset import SeriesDataset, TimeSeries
from flowbench.data.series_reading import SeriesColumns
from flowbench.encoding.series_encoder import SeriesEncoder
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError, DamagedFileError, DataError
from flowbench.evaluation.series_evaluation import compute_series_results
from flowbench.models.series.encoded import EncodedSeriesModel
from flowbench.registry import SERIES_MODELS, TRANSFORMS
from flowbench.store import Metric, Run
from flowbench.store.series_file import KIND
from flowbench.training.progress import Progress
from flowbench.training.series_examples import SeriesCriterion, SeriesExamples
from flowbench.training.state import TrainingState, from_arrays, to_arrays
from flowbench.training.trainer import Trainer, make_objectives
from flowbench.workflows.config import with_evaluation
from flowbench.workflows.dataset_rows import split_sizes
from flowbench.workflows.home import Home
from flowbench.workflows.machine import check_device, cpu_threads
from flowbench.workflows.preparation import TRAINING, WEIGHTS, Watch, random_stream
from flowbench.workflows.running import Job, carry_out, check_is_free, describe_start, refuse_finished
from flowbench.workflows.series_config import SeriesConfig

#: What the names of the encoder's tensors begin with in the state of training.
_IN_STATE = "encoder/"


@dataclass(frozen=True)
class StoredSeriesRun:
    """A run on series whose files are read when they are first asked for, each once.

    Properties raise `DamagedFileError` for what this version cannot make sense of.
    """

    run: Run

    @cached_property
    def config(self) -> SeriesConfig:
        """The configuration; raises `ConfigurationError` for a run on rows."""
        if not self.run.is_of_series:
            raise ConfigurationError(f"the run `{self.run.name}` is of rows; this takes runs on time series")
        try:
            return SeriesConfig(**self.run.config)
        except ConfigurationError as error:
            raise DamagedFileError(
                f"the configuration in {self.run.path} was changed, or is of another version of flowbench: "
                f"{error}"
            ) from error

    @cached_property
    def dataset(self) -> Mapping[str, Any]:
        """What run.json says of the data set."""
        return self.run.dataset

    @property
    def columns(self) -> tuple[str, ...]:
        """The names of the columns of values, in order."""
        columns = self.dataset.get("columns")
        if not columns:
            raise DamagedFileError(
                f"{self.run.path / 'run.json'} does not name the columns that the run was fitted on; put "
                "back the file that it was, or fit anew"
            )
        return tuple(columns)

    @property
    def places(self) -> SeriesColumns:
        """The names of the columns of series and times; of a toy, those of its own."""
        return self.config.data.places or SeriesColumns("id", "t")

    @cached_property
    def types(self) -> dict[str, ColumnType]:
        """How the run's table has the values of its columns, and its times."""
        known = self.dataset.get("types", {})
        try:
            return {
                name: ColumnType.of_values(known[name]) if name in known else FLOAT64
                for name in (*self.columns, self.places.time)
            }
        except (ValueError, TypeError) as error:
            raise DamagedFileError(
                f"{self.run.path / 'run.json'}: `types` makes no sense: {error}"
            ) from error

    @cached_property
    def model(self) -> EncodedSeriesModel:
        """The fitted model, on the CPU."""
        arrays, _ = self.run.load_model()
        model = build_model(self.config, self.columns)
        self._load(model, arrays, "the model")
        return model

    def load_state(self, model: EncodedSeriesModel) -> TrainingState | None:
        """The state to go on from, if one was saved; `model` gets the encoder that the run began with."""
        if not self.run.has_resume:
            return None
        arrays, metadata = self.run.load_resume()
        own = {name.removeprefix(_IN_STATE): a for name, a in arrays.items() if name.startswith(_IN_STATE)}
        self._load(model.encoder, own, "the encoder in the state")
        return TrainingState.unpack(arrays, metadata)

    def save_state(self, state: TrainingState, model: EncodedSeriesModel) -> None:
        """Replace the state to go on from."""
        arrays, metadata = state.pack()
        own = {_IN_STATE + name: each for name, each in to_arrays(model.encoder.state_dict()).items()}
        self.run.save_resume(arrays | own, metadata)

    def check(self, dataset: SeriesDataset, split: Split) -> None:
        """Raise `DataError` if data set or split are no longer those that the run recorded."""
        recorded = self.dataset.get("sha256")
        if recorded != dataset.provenance.sha256:
            raise DataError(
                f"the data set `{dataset.name}` has changed since the run {self.run.path} began; put the old "
                "one back, or fit anew"
            )
        begun, now = self.run.info.get("split"), split_sizes(split)
        if begun not in (None, now):
            raise DataError(
                f"the run {self.run.path} began with other parts of its series ({json.dumps(begun)}) than "
                f"are drawn now ({json.dumps(now)}): the table has changed; fit anew"
            )

    def _load(self, module: torch.nn.Module, arrays: Mapping[str, Any], what: str) -> None:
        try:
            module.load_state_dict(from_arrays(arrays))
        except RuntimeError as error:
            raise DamagedFileError(
                f"{what} in {self.run.path} does not fit its configuration: {' '.join(str(error).split())}; "
                "one of them was changed, or the run is of another version of flowbench"
            ) from error


def fit_series(
    config: SeriesConfig,
    *,
    home: Home | None = None,
    name: str | None = None,
    command: Sequence[str] = (),
    watch: Watch | None = None,
) -> Run:
    """Fit a model of series and store everything it says in a new run folder, which is returned.

    As `flowbench.workflows.fit.fit`, whose errors it raises.
    """
    home, watch = home or Home(), watch or Watch()
    check_device(config.device)
    check_is_free(home, name)
    with cpu_threads(config.threads), ExitStack() as held:
        dataset, split = load_split(config, home.datasets)
        for note in dataset.notes:
            (watch.on_table or watch.on_warning)(note)
        model = build_model(config, dataset.column_names)
        make_objectives(config.plan, model.model)
        _fit_encoder(model, dataset, split)
        stem = f"{Path(config.data.dataset).name.partition('.')[0]}-{config.model.name}"
        info = {
            **describe_start(config, command),
            "kind": KIND,
            "model": config.model.name,
            "looks_ahead": model.model.looks_ahead,
            "dataset": describe_series(dataset),
            "split": split_sizes(split),
        }
        run = home.create_run(name, stem, config.to_values(), info, held)
        job = _SeriesJob(StoredSeriesRun(run), config, dataset, split, model, watch)
        carry_out(job, None, watch)
    return run


def resume_series(
    run: Run, *, settings: Sequence[str] = (), home: Home | None = None, watch: Watch | None = None
) -> Run:
    """Go on with a run on series, as `flowbench.workflows.fit.resume` does."""
    home, watch = home or Home(), watch or Watch()
    refuse_finished(run)
    stored = StoredSeriesRun(run)
    config = with_evaluation(stored.config, settings)
    check_device(config.device)
    with cpu_threads(config.threads), run.lock():
        dataset, split = load_split(config, home.datasets)
        stored.check(dataset, split)
        model = build_model(config, dataset.column_names)
        state = stored.load_state(model)
        if state is None:
            _fit_encoder(model, dataset, split)
        if settings:
            run.write_config(config.to_values())
        carry_out(_SeriesJob(stored, config, dataset, split, model, watch), state, watch)
    return run


class _SeriesJob(Job):
    """The fit of a model of series, whose encoder is fitted."""

    def __init__(
        self,
        stored: StoredSeriesRun,
        config: SeriesConfig,
        dataset: SeriesDataset,
        split: Split,
        model: EncodedSeriesModel,
        watch: Watch,
    ) -> None:
        self.run = stored.run
        self._stored = stored
        self._config = config
        self._dataset = dataset
        self._split = split
        self._model = model
        self._watch = watch

    def make_trainer(self, on_validation: Callable[[Progress], None]) -> Trainer[Any, Any]:
        parts = (self._split.train, self._split.validation)
        train, validation = ([self._dataset.series(i) for i in indices] for indices in parts)
        return make_trainer(self._config, self._model, train, validation, self._watch, on_validation)

    def save_state(self, state: TrainingState) -> None:
        self._stored.save_state(state, self._model)

    def save_model(self) -> None:
        self.run.save_model(to_arrays(self._model.state_dict()), {})

    def evaluate(self, training_metrics: dict[str, Metric]) -> dict[str, Any]:
        self._model.model.to("cpu")
        results = compute_series_results(
            self._model,
            self._dataset,
            self._split,
            self._config.evaluation,
            seed=self._config.seed,
            training_metrics=training_metrics,
            provenance={"run": self.run.name, **self.run.dataset, "seed": self._config.seed},
            tell=self._watch.on_stage,
        )
        self.run.write_series_results(results)
        return {"test_series_scored": len(results.ids)}


def make_trainer(
    config: SeriesConfig,
    model: EncodedSeriesModel,
    train: Sequence[TimeSeries],
    validation: Sequence[TimeSeries],
    watch: Watch,
    on_validation: Callable[[Progress], None] = lambda progress: None,
) -> Trainer[Any, Any]:
    """The trainer of a model whose encoder is fitted, on series in data units."""
    parts = []
    for series in (train, validation):
        batch, log_det = model.encode(series)
        parts.append(batch.each(torch.Tensor.float).to(config.device))
    model.model.to(config.device)
    model.model.initialise(parts[0])
    return Trainer(
        model.model,
        config.plan,
        SeriesExamples(*parts),
        generator=random_stream(config.seed, TRAINING, config.device),
        criterion=SeriesCriterion(log_det.mean().item()),
        on_progress=watch.on_progress,
        on_validation=on_validation,
        should_stop=watch.should_stop,
    )


def load_split(config: SeriesConfig, datasets: Path) -> tuple[SeriesDataset, Split]:
    """The series of a configuration and their split; raises as `load_series` and `Split.draw` do."""
    data, split = config.data, config.split
    dataset = load_series(
        data.dataset,
        data.places,
        columns=data.columns,
        count=data.rows,
        seed=data.seed,
        folder=datasets,
        reading=data,
        repeated=data.repeated,
    )
    fractions = (split.train, split.validation, split.test)
    return dataset, Split.draw(len(dataset), fractions, data.seed)


def build_model(config: SeriesConfig, columns: Sequence[str]) -> EncodedSeriesModel:
    """A model of the columns with the initial weights of the run's seed, and an encoder yet to be fitted."""
    encoders = []
    for name in columns:
        transforms = [TRANSFORMS.get(each.name)((name,), each) for each in config.transforms]
        encoders.append(TableEncoder((name,), transforms))
    model = SERIES_MODELS.get(config.model.name)(
        len(columns), config.model, random_stream(config.seed, WEIGHTS)
    )
    return EncodedSeriesModel(SeriesEncoder(encoders), model)


def _fit_encoder(model: EncodedSeriesModel, dataset: SeriesDataset, split: Split) -> None:
    train = dataset.take(split.train)
    model.encoder.fit(torch.tensor(train.times), torch.tensor(train.values))


def describe_series(dataset: SeriesDataset) -> dict[str, Any]:
    """What `run.json` says of a data set of series."""
    types = {column.name: column.type for column in dataset.columns}
    types[dataset.time_column] = dataset.time_type
    return {
        "name": dataset.name,
        **asdict(dataset.provenance),
        "series": len(dataset),
        "observations": len(dataset.times),
        "columns": list(dataset.column_names),
        "id_column": dataset.id_column,
        "time_column": dataset.time_column,
        "types": {name: each.to_values() for name, each in types.items() if each != FLOAT64},
        "notes": list(dataset.notes),
    }
