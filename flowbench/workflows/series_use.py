"""What a fitted model of series says of tables: likelihoods, draws, predictions, and missing cells."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data.catalogue import find_file, table_file
from flowbench.data.column_type import FLOAT64, ColumnType
from flowbench.data.series_catalogue import load_series
from flowbench.data.series_dataset import Floats, SeriesDataset
from flowbench.data.series_reading import read_points
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError
from flowbench.evaluation.series_evaluation import sample_series
from flowbench.evaluation.series_likelihoods import OnSeries, SeriesLikelihoods, score_series
from flowbench.evaluation.series_predictions import BANDS, predict_series
from flowbench.registry import SERIES_TOYS
from flowbench.store import Run, table_format, write_table
from flowbench.workflows.config import with_evaluation
from flowbench.workflows.home import Home
from flowbench.workflows.machine import cpu_threads
from flowbench.workflows.output import attributes, check_path
from flowbench.workflows.rereading import reading_of
from flowbench.workflows.series_fit import StoredSeriesRun, load_split

#: The band of predictions that is written holds this share of the probability.
BAND = BANDS[-1] - BANDS[0]
#: The most times that `times_of` makes.
MOST_TIMES = 100_000


@dataclass(frozen=True, eq=False)
class ScoredSeriesTable:
    """The log-likelihood of each series of a table; see `SeriesLikelihoods` for what `found` holds."""

    dataset: SeriesDataset
    found: SeriesLikelihoods

    def save(self, path: Path, run: Run) -> None:
        """Write a row for each series, in the format of the path's ending."""
        found, dataset = self.found, self.dataset
        n = len(dataset)
        zero = np.zeros(n)
        table = {
            dataset.id_column: np.array(dataset.ids, dtype=object),
            "log_prob": found.log_prob,
            "standard_error": zero if found.standard_error is None else found.standard_error,
            "solver_error": zero if found.solver_error is None else found.solver_error,
            "observations": dataset.lengths,
            "values": dataset.cells,
        }
        units = dict.fromkeys(("log_prob", "standard_error", "solver_error"), "nats")
        units |= dict.fromkeys((dataset.id_column, "observations", "values"), "1")
        kind = "exact" if found.standard_error is None else "lower bound"
        write_table(path, table, attributes(run, ()) | {"log_prob": kind}, units)


@dataclass(frozen=True, eq=False)
class LongTable:
    """Rows of series: `series: (N,)` names them, `times: (N,)`, and further `columns: (N,)` by name."""

    id_column: str
    time_column: str
    series: NDArray[Any]
    times: Floats
    columns: Mapping[str, Floats]
    types: Mapping[str, ColumnType]

    def save(self, path: Path, run: Run) -> None:
        """Write the rows, in the format of the path's ending; times have the notation of their table."""
        format = table_format(path)
        kind = self.types.get(self.time_column, FLOAT64)
        write = {"csv": kind.text, "hdf5": kind.counted}.get(format, kind.typed)
        times = write(self.times) if kind.unit else self.times
        table = {self.id_column: self.series, self.time_column: times, **self.columns}
        units = {self.id_column: "1"}
        if kind.unit:
            units[self.time_column] = kind.unit
        write_table(path, table, attributes(run, ()), units, types={self.time_column: kind.storage})


def score(
    run: Run,
    table: str,
    *,
    settings: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
    home: Home | None = None,
    on_series: OnSeries = lambda done, total: None,
) -> ScoredSeriesTable:
    """The log-likelihood of every series of `table`, a path or a data set's name, by a run's model.

    Of the toy that a run was fitted on, its test series are scored. `settings`, such as
    "evaluation.draws=1000", change the run's evaluation. Raises `DataError` if columns are missing or a cell
    cannot be read, and `IntegrationError` if a solve fails.
    """
    stored = StoredSeriesRun(run)
    options = with_evaluation(stored.config, settings).evaluation
    dataset = read_as_fitted(stored, table, reading or {}, home or Home())
    series = [dataset.series(i) for i in range(len(dataset))]
    with cpu_threads(stored.config.threads):
        found = score_series(
            stored.model,
            series,
            options,
            seed=stored.config.seed,
            errors=len(series),
            on_series=on_series,
        )
    return ScoredSeriesTable(dataset, found)


def sample(run: Run, n: int, times: Floats, *, seed: int = 0, settings: Sequence[str] = ()) -> LongTable:
    """Draw `n` series, noise included, at increasing `times: (k,)` in the units of the table."""
    if n < 1:
        raise ConfigurationError(f"at least one series is drawn; got n = {n}")
    stored = StoredSeriesRun(run)
    options = with_evaluation(stored.config, settings).evaluation
    with cpu_threads(stored.config.threads):
        drawn = sample_series(stored.model, n, times, options, seed=seed)
    columns = dict(zip(stored.columns, drawn.reshape(-1, drawn.shape[2]).T, strict=True))
    names = np.repeat(np.array([str(i) for i in range(n)], dtype=object), len(times))
    return _long(stored, names, np.tile(times, n), columns)


def predict(
    run: Run,
    table: str,
    *,
    at: str | None = None,
    times: Floats | None = None,
    ahead: float | None = None,
    draws: int = 0,
    seed: int = 0,
    settings: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
    home: Home | None = None,
) -> tuple[LongTable, tuple[str, ...]]:
    """Predict the values of every series of `table`, given all that it holds, and what reading it noted.

    The times are those of the rows of the table `at`, which names series and times; or `times`, the same for
    each series; or up to `ahead` after the last observation of each, in 20 equal steps. For each column there
    are `NAME_mean`, `NAME_lower` and `NAME_upper`, the ends of the central 90% band, and the first `draws`
    draws, `NAME_draw_1` and so on. Raises `DataError` for a series of `at` that the table does not have.
    """
    if sum(each is not None for each in (at, times, ahead)) != 1:
        raise ConfigurationError(
            "say for which times: `--at FILE` with series and times, `--times 0:10:0.5`, or `--ahead 2.5`"
        )
    home = home or Home()
    stored = StoredSeriesRun(run)
    options = with_evaluation(stored.config, settings).evaluation
    if draws > options.predictions:
        options = options.model_copy(update={"predictions": draws})
    dataset = read_as_fitted(stored, table, reading or {}, home)
    asked = _asked(stored, dataset, at, times, ahead, reading or {}, home)
    numbers = [number for number, own in enumerate(asked) if len(own)]
    seen = [dataset.series(number) for number in numbers]
    with cpu_threads(stored.config.threads):
        found = predict_series(stored.model, seen, [asked[number] for number in numbers], options, seed=seed)
    columns: dict[str, Floats] = {}
    for place, name in enumerate(stored.columns):
        columns[f"{name}_mean"] = np.concatenate([each.mean[:, place] for each in found])
        columns[f"{name}_lower"] = np.concatenate([each.bands[0, :, place] for each in found])
        columns[f"{name}_upper"] = np.concatenate([each.bands[-1, :, place] for each in found])
        for draw in range(draws):
            columns[f"{name}_draw_{draw + 1}"] = np.concatenate(
                [each.draws[draw, :, place] for each in found]
            )
    ids = np.array(dataset.ids, dtype=object)
    names = np.concatenate([np.repeat(ids[number : number + 1], len(asked[number])) for number in numbers])
    return _long(stored, names, np.concatenate([asked[number] for number in numbers]), columns), dataset.notes


def impute(
    run: Run,
    table: str,
    *,
    seed: int = 0,
    settings: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
    home: Home | None = None,
) -> tuple[LongTable, int, tuple[str, ...]]:
    """The observations of `table` with means in the place of missing cells, how many, and notes.

    For each column with missing cells there are `NAME_lower` and `NAME_upper` too, the ends of the central
    90% band of what is missing. They are NaN where a cell was observed.
    """
    stored = StoredSeriesRun(run)
    options = with_evaluation(stored.config, settings).evaluation
    dataset = read_as_fitted(stored, table, reading or {}, home or Home())
    series = [dataset.series(number) for number in range(len(dataset))]
    gaps = np.isnan(dataset.values)
    holed = [number for number, each in enumerate(series) if np.isnan(each.values).any()]
    values, lower = dataset.values.copy(), np.full_like(dataset.values, np.nan)
    upper = lower.copy()
    if holed:
        seen = [series[number] for number in holed]
        with cpu_threads(stored.config.threads):
            found = predict_series(stored.model, seen, [each.times for each in seen], options, seed=seed)
        for number, each in zip(holed, found, strict=True):
            part = slice(dataset.starts[number], dataset.starts[number + 1])
            own = gaps[part]
            values[part][own] = each.mean[own]
            lower[part][own] = each.bands[0][own]
            upper[part][own] = each.bands[-1][own]
    columns: dict[str, Floats] = {}
    for place, name in enumerate(dataset.column_names):
        columns[name] = values[:, place]
        if gaps[:, place].any():
            columns |= {f"{name}_lower": lower[:, place], f"{name}_upper": upper[:, place]}
    names = np.array(dataset.ids, dtype=object)[dataset.of_observation]
    return _long(stored, names, dataset.times, columns), int(gaps.sum()), dataset.notes


def times_of(text: str) -> Floats:
    """The times of "0:10:0.5", from the first to the last, which is included, or of "1, 2.5, 7".

    Raises `ConfigurationError` for anything else, and for times that do not increase.
    """
    try:
        if ":" in text:
            start, end, step = (float(each) for each in text.split(":"))
            if not (step > 0 and end >= start) or not np.isfinite([start, end, step]).all():
                raise ValueError
            count = int(np.floor((end - start) / step * (1 + 1e-12))) + 1
            if count > MOST_TIMES:
                raise ConfigurationError(
                    f"`--times {text}` means {count:,} times; take a larger step, for {MOST_TIMES:,} at most"
                )
            return np.asarray(start + step * np.arange(count), dtype=np.float64)
        times = np.array([float(each) for each in re.split(r"[,\s]+", text.strip())])
        if np.any(np.diff(times) <= 0) or not np.isfinite(times).all():
            raise ValueError
    except ValueError:
        raise ConfigurationError(
            f"`--times` takes start:end:step, such as 0:10:0.5, or increasing times with commas; got `{text}`"
        ) from None
    return times


def read_as_fitted(
    stored: StoredSeriesRun, table: str, reading: Mapping[str, Any], home: Home
) -> SeriesDataset:
    """The series of `table`, read as those of the run were."""
    config = stored.config
    if table in SERIES_TOYS.entries:
        if table != config.data.dataset:
            raise ConfigurationError(
                f"the run `{stored.run.name}` was not fitted on the toy `{table}`; give a table's path"
            )
        dataset, split = load_split(config, home.datasets)
        return dataset.take(split.test)
    try:
        return load_series(
            table,
            stored.places,
            columns=stored.columns,
            folder=home.datasets,
            for_fit=False,
            reading=reading_of(config.data, reading, stored.types, table_file(table, home.datasets)),
            types=stored.types,
            repeated=config.data.repeated,
        )
    except UnknownColumnError as error:
        raise DataError(f"{error}; the run was fitted on {', '.join(stored.columns)}") from None


def _asked(
    stored: StoredSeriesRun,
    dataset: SeriesDataset,
    at: str | None,
    times: Floats | None,
    ahead: float | None,
    reading: Mapping[str, Any],
    home: Home,
) -> list[Floats]:
    """The times `(k,)` at which each series is predicted; none for one that is not asked for."""
    if times is not None:
        return [times] * len(dataset)
    if ahead is not None:
        if not (np.isfinite(ahead) and ahead > 0):
            raise ConfigurationError(f"`--ahead` must be positive; got {ahead:g}")
        steps = ahead * np.arange(1, 21) / 20
        return [dataset.series(number).times[-1] + steps for number in range(len(dataset))]
    file = find_file(str(at), home.datasets)
    options = reading_of(stored.config.data, reading, stored.types, file)
    series, own = read_points(file, stored.places, options, stored.types)
    known = {name: number for number, name in enumerate(dataset.ids)}
    if missing := [name for name in dict.fromkeys(series) if name not in known]:
        raise DataError(
            f"{file}: the series `{missing[0]}` is not in the table that is predicted from"
            + (f", nor are {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    numbers = np.array([known[name] for name in series])
    return [np.unique(own[numbers == number]) for number in range(len(dataset))]


def _long(
    stored: StoredSeriesRun, series: NDArray[Any], times: Floats, columns: Mapping[str, Floats]
) -> LongTable:
    places = stored.places
    taken = {places.series, places.time} & set(columns)
    if taken:
        raise DataError(f"the table would have two columns called `{min(taken)}`; rename one and fit anew")
    return LongTable(places.series, places.time, series, times, columns, stored.types)


def default_times(run: Run, count: int) -> Floats:
    """So many times from the first to the last of the train series."""
    encoder = StoredSeriesRun(run).model.encoder
    origin = float(encoder.time_origin)
    return np.linspace(origin, origin + float(encoder.time_scale), count)


def check_series_output(path: Path, run: Run, table: str | None, home: Home) -> Path:
    """`flowbench.workflows.output.check_output` for a run on series."""
    stored = StoredSeriesRun(run)
    read = (stored.config.data.dataset, *([] if table is None else [table]))
    columns = (stored.places.series, stored.places.time, *stored.columns)
    return check_path(path, run, read, columns, home)
