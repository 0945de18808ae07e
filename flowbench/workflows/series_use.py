"""What a fitted model of series says of tables: likelihoods, draws, predictions, and missing cells."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data.catalogue import find_file, table_file
from flowbench.data.column_type import ColumnType
from flowbench.data.series_catalogue import load_series
from flowbench.data.series_dataset import Floats, SeriesDataset
from flowbench.data.series_reading import read_points
from flowbench.errors import ConfigurationError, DataError, UnknownColumnError
from flowbench.evaluation.series_evaluation import sample_series
from flowbench.evaluation.series_likelihoods import OnSeries, score_series
from flowbench.evaluation.series_predictions import BANDS, predict_series
from flowbench.registry import SERIES_TOYS
from flowbench.store import Run
from flowbench.workflows.config import with_evaluation
from flowbench.workflows.home import Home
from flowbench.workflows.machine import cpu_threads
from flowbench.workflows.output import check_path
from flowbench.workflows.rereading import reading_of
from flowbench.workflows.series_fit import StoredSeriesRun, load_split
from flowbench.workflows.series_output import LongTable, ScoredSeriesTable

#: The band of predictions that is written holds this share of the probability.
BAND = BANDS[-1] - BANDS[0]


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
    asked, notes = _asked(stored, dataset, at, times, ahead, reading or {}, home)
    numbers = [number for number, own in enumerate(asked) if len(own)]
    if not numbers:
        raise ConfigurationError("no time is asked for that the table's times can hold; ask for later ones")
    notes += _beyond(stored, np.concatenate(asked))
    seen = [dataset.series(number) for number in numbers]
    with cpu_threads(stored.config.threads):
        found = predict_series(stored.model, seen, [asked[number] for number in numbers], options, seed=seed)
    columns: dict[str, Floats] = {}
    for place, name in enumerate(stored.columns):
        for word, parts in (
            ("mean", [each.mean for each in found]),
            ("lower", [each.bands[0] for each in found]),
            ("upper", [each.bands[-1] for each in found]),
        ):
            _add(columns, f"{name}_{word}", np.concatenate(parts)[:, place])
        for draw in range(draws):
            drawn = np.concatenate([each.draws[draw, :, place] for each in found])
            _add(columns, f"{name}_draw_{draw + 1}", drawn)
    ids = np.array(dataset.ids, dtype=object)
    names = np.concatenate([np.repeat(ids[number : number + 1], len(asked[number])) for number in numbers])
    return _long(stored, names, np.concatenate([asked[number] for number in numbers]), columns), (
        *dataset.notes,
        *notes,
    )


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
    home = home or Home()
    dataset = read_as_fitted(stored, table, reading or {}, home)
    series = [dataset.series(number) for number in range(len(dataset))]
    every = _every_time(stored, dataset, table, reading or {}, home)
    parts: list[tuple[Floats, Floats, Floats]] = []
    for own, at in zip(series, every, strict=True):
        held = np.full((len(at), len(dataset.columns)), np.nan)
        held[np.searchsorted(at, own.times)] = own.values
        parts.append((held, np.full_like(held, np.nan), np.full_like(held, np.nan)))
    gaps = [np.isnan(held) for held, _, _ in parts]
    holed = [number for number, each in enumerate(gaps) if each.any()]
    if holed:
        seen = [series[number] for number in holed]
        times = [every[number] for number in holed]
        with cpu_threads(stored.config.threads):
            found = predict_series(stored.model, seen, times, options, seed=seed)
        for number, each in zip(holed, found, strict=True):
            for filled, guess in zip(parts[number], (each.mean, each.bands[0], each.bands[-1]), strict=True):
                filled[gaps[number]] = guess[gaps[number]]
    values, lower, upper = (np.concatenate(each) for each in zip(*parts, strict=True))
    missing = np.concatenate(gaps)
    columns: dict[str, Floats] = dict(zip(dataset.column_names, values.T, strict=True))
    for place, name in enumerate(dataset.column_names):
        if missing[:, place].any():
            _add(columns, f"{name}_lower", lower[:, place])
            _add(columns, f"{name}_upper", upper[:, place])
    names = np.repeat(np.array(dataset.ids, dtype=object), [len(times) for times in every])
    return _long(stored, names, np.concatenate(every), columns), int(missing.sum()), dataset.notes


def _add(columns: dict[str, Floats], name: str, values: Floats) -> None:
    """Add a column; raises `DataError` for a name that is taken."""
    if name in columns:
        raise DataError(f"the table has a column called `{name}`, which would be overwritten; rename it")
    columns[name] = values


def _every_time(
    stored: StoredSeriesRun, dataset: SeriesDataset, table: str, reading: Mapping[str, Any], home: Home
) -> list[Floats]:
    """The times of all rows of each series of a table, also of those without a value."""
    own = [dataset.series(number).times for number in range(len(dataset))]
    if table in SERIES_TOYS.entries:
        return own
    file = find_file(table, home.datasets)
    options = reading_of(stored.config.data, reading, stored.types, file)
    ids, times = read_points(file, stored.places, options, stored.types)
    of_series: dict[str, list[float]] = {}
    for name, time in zip(ids, times.tolist(), strict=True):
        of_series.setdefault(name, []).append(time)
    return [np.unique([*each, *of_series.get(name, [])]) for name, each in zip(dataset.ids, own, strict=True)]


def _beyond(stored: StoredSeriesRun, times: Floats) -> tuple[str, ...]:
    """A note if some times lie outside those that the model has learnt from."""
    encoder, kind = stored.model.encoder, stored.types[stored.places.time]
    low = float(encoder.time_origin)
    high = low + float(encoder.time_scale)
    count = int(((times < low) | (times > high)).sum())
    if not count:
        return ()
    ends = kind.text(np.array([low, high])) if kind.unit else [f"{low:g}", f"{high:g}"]
    return (
        f"{count:,} of {len(times):,} predictions lie outside the times of the train series, {ends[0]} to "
        f"{ends[1]}; nothing there was learnt",
    )


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
        found = load_series(
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
    check_times(found, stored.types[stored.places.time])
    return found


def check_times(dataset: SeriesDataset, known: ColumnType) -> None:
    """Raise `DataError` if the times of series are dates where numbers are `known`, or the reverse."""
    own, other = (each or "plain numbers" for each in (dataset.time_type.unit, known.unit))
    if own != other:
        raise DataError(
            f"{dataset.name}: the times in `{dataset.time_column}` are {own}, where the model was fitted on "
            f"{other}; write them as they were"
        )


def _asked(
    stored: StoredSeriesRun,
    dataset: SeriesDataset,
    at: str | None,
    times: Floats | None,
    ahead: float | None,
    reading: Mapping[str, Any],
    home: Home,
) -> tuple[list[Floats], tuple[str, ...]]:
    """The times `(k,)` at which each series is predicted, none for one that is not asked for, and notes.

    Times that the table's notation cannot hold are rounded to those that it can.
    """
    kind = stored.types[stored.places.time]
    if times is not None:
        return [np.unique(kind.restore(times) if kind.unit else times)] * len(dataset), ()
    if ahead is not None:
        if not (np.isfinite(ahead) and ahead > 0):
            raise ConfigurationError(f"`--ahead` must be positive; got {ahead:g}")
        notes = (f"`--ahead` counts {kind.unit.partition(' ')[0]}",) if kind.unit else ()
        steps = ahead * np.arange(1, 21) / 20
        found = []
        for number in range(len(dataset)):
            last = dataset.series(number).times[-1]
            own = np.unique(kind.restore(last + steps) if kind.unit else last + steps)
            found.append(own[own > last])
        return found, notes
    file = find_file(str(at), home.datasets)
    options = reading_of(stored.config.data, reading, stored.types, file)
    series, own = read_points(file, stored.places, options, stored.types)
    known = {name: number for number, name in enumerate(dataset.ids)}
    if missing := [name for name in dict.fromkeys(series) if name not in known]:
        raise DataError(
            f"{file}: the series `{missing[0]}` is not in the table that is predicted from, or has no value "
            "there" + (f", nor are {len(missing) - 1} more" if len(missing) > 1 else "")
        )
    numbers = np.array([known[name] for name in series])
    found = [np.unique(own[numbers == number]) for number in range(len(dataset))]
    repeats = len(own) - sum(map(len, found))
    notes = (f"{file.path.name}: {repeats:,} rows ask twice, and are answered once",) if repeats else ()
    return found, notes


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


def time_unit(run: Run) -> str | None:
    """The unit of a run's times, if they are dates or times of day."""
    stored = StoredSeriesRun(run)
    return stored.types[stored.places.time].unit


def shown_times(run: Run, times: Floats) -> str:
    """The first and the last of some times, as the table of a run has them."""
    stored = StoredSeriesRun(run)
    kind = stored.types[stored.places.time]
    first, last = kind.text(kind.restore(times[[0, -1]])) if kind.unit else (f"{t:g}" for t in times[[0, -1]])
    return f"{first} to {last}"


def check_series_output(path: Path, run: Run, table: str | None, home: Home) -> Path:
    """`flowbench.workflows.output.check_output` for a run on series."""
    stored = StoredSeriesRun(run)
    read = (stored.config.data.dataset, *([] if table is None else [table]))
    columns = (stored.places.series, stored.places.time, *stored.columns)
    return check_path(path, run, read, columns, home)
