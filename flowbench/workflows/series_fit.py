"""From a configuration to a run on series: train, evaluate, store; and on from what was stored."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar

import torch

from flowbench.data import Split
from flowbench.data.column_type import FLOAT64
from flowbench.data.series_catalogue import load_series
from flowbench.data.series_dataset import SeriesDataset, TimeSeries
from flowbench.data.series_reading import SeriesColumns
from flowbench.encoding.series_encoder import SeriesEncoder
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.evaluation.series_evaluation import compute_series_results
from flowbench.models.series.encoded import EncodedSeriesModel
from flowbench.registry import SERIES_MODELS, TRANSFORMS
from flowbench.store import Metric, Run
from flowbench.store.series_file import KIND
from flowbench.training.progress import Progress
from flowbench.training.series_examples import SeriesCriterion, SeriesExamples
from flowbench.training.state import TrainingState, from_arrays, to_arrays
from flowbench.training.trainer import Trainer, make_objectives
from flowbench.workflows.config import Configuration, with_evaluation
from flowbench.workflows.dataset_rows import split_sizes
from flowbench.workflows.home import Home
from flowbench.workflows.machine import check_device, cpu_threads
from flowbench.workflows.preparation import TRAINING, WEIGHTS, Watch, random_stream
from flowbench.workflows.running import (
    Job,
    carry_out,
    check_is_free,
    describe_start,
    keep_evaluation,
    refuse_finished,
)
from flowbench.workflows.series_config import SeriesConfig
from flowbench.workflows.stored_files import StoredFiles

#: What the names of the encoder's tensors begin with in the state of training.
_IN_STATE = "encoder/"


@dataclass(frozen=True)
class StoredSeriesRun(StoredFiles[SeriesConfig]):
    """A run on time series."""

    config_class: ClassVar[type[Configuration]] = SeriesConfig
    of_series: ClassVar[bool] = True

    @property
    def typed(self) -> tuple[str, ...]:
        """The columns of values, and the times last."""
        return (*self.columns, self.places.time)

    @property
    def places(self) -> SeriesColumns:
        """The names of the columns of series and times; of a toy, those of its own."""
        return self.config.data.places or SeriesColumns("id", "t")

    @cached_property
    def model(self) -> EncodedSeriesModel:
        """The fitted model, on the CPU."""
        arrays, _ = self.run.load_model()
        model = build_model(self.config, self.columns)
        self.load(model, from_arrays(arrays), "the model")
        return model

    def load_state(self, model: EncodedSeriesModel) -> TrainingState | None:
        """The state to go on from, if one was saved; `model` gets the encoder that the run began with."""
        if not self.run.has_resume:
            return None
        arrays, metadata = self.run.load_resume()
        own = {name.removeprefix(_IN_STATE): a for name, a in arrays.items() if name.startswith(_IN_STATE)}
        self.load(model.encoder, from_arrays(own), "the encoder in the state")
        return TrainingState.unpack(arrays, metadata)

    def save_state(self, state: TrainingState, model: EncodedSeriesModel) -> None:
        """Replace the state to go on from."""
        arrays, metadata = state.pack()
        own = {_IN_STATE + name: each for name, each in to_arrays(model.encoder.state_dict()).items()}
        self.run.save_resume(arrays | own, metadata)


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
            keep_evaluation(run, config)
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
