"""Series by name: toys, and the long tables of files."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from flowbench.data.catalogue import find_file
from flowbench.data.cell_faults import listed
from flowbench.data.column_type import ColumnType
from flowbench.data.read_options import AUTOMATIC, ReadOptions
from flowbench.data.series_dataset import SeriesDataset
from flowbench.data.series_reading import Repeated, SeriesColumns, read_series
from flowbench.data.table_reading import select_columns
from flowbench.errors import ConfigurationError, DataError
from flowbench.registry import SERIES_TOYS

#: Enough series that a model cannot know them by heart, few enough that an epoch takes seconds.
DEFAULT_TOY_SERIES = 1000
#: Fewer series cannot be split into 80, 10 and 10 per cent.
FEWEST_SERIES = 10


def load_series(
    name_or_path: str,
    places: SeriesColumns | None = None,
    *,
    columns: Sequence[str] | None = None,
    count: int | None = None,
    seed: int = 0,
    folder: Path = Path("datasets"),
    for_fit: bool = True,
    reading: ReadOptions = AUTOMATIC,
    types: Mapping[str, ColumnType] | None = None,
    repeated: Repeated = "average",
) -> SeriesDataset:
    """A toy, a file of `folder` by its name, or any table file by its path, as series.

    `places` say which columns of a file name the series and hold the times. `columns` hold the values, by
    default all others. `count` is how many series of a toy to draw (default 1,000), with `seed`. The rest is
    that of `read_series`. `for_fit` also refuses fewer than ten series.

    Raises `UnknownNameError` for a name or a column that is not there, `ConfigurationError` for an option
    that does not apply, and `DataError` for a file that cannot be read or used.
    """
    if name_or_path in SERIES_TOYS.entries:
        if places is not None:
            raise ConfigurationError(
                f"`{name_or_path}` is drawn, and has its series and times already; leave `--series` and "
                "`--time` out"
            )
        return _drawn(name_or_path, columns, DEFAULT_TOY_SERIES if count is None else count, seed)
    if places is None:
        raise ConfigurationError(
            f"`{name_or_path}` is a table; say which column names the series and which holds the times, "
            "with `--series` and `--time`"
        )
    if count is not None:
        raise ConfigurationError(f"`rows` is for toys; `{name_or_path}` is a table, used whole")
    found = read_series(
        find_file(name_or_path, folder),
        places,
        columns,
        reading=reading,
        types=types,
        repeated=repeated,
        for_fit=for_fit,
    )
    if for_fit:
        _check_can_be_fitted(found)
    return found


def _drawn(name: str, columns: Sequence[str] | None, count: int, seed: int) -> SeriesDataset:
    if count < FEWEST_SERIES:
        raise ConfigurationError(f"`rows` must be at least {FEWEST_SERIES} series; got {count}")
    found: SeriesDataset = SERIES_TOYS.get(name)().draw(count, seed)
    wanted = select_columns(found.column_names, columns, name)
    if wanted == list(range(len(found.columns))):
        return found
    truth = None if found.truth is None else np.ascontiguousarray(found.truth[:, wanted])
    return replace(
        found,
        columns=tuple(found.columns[i] for i in wanted),
        values=np.ascontiguousarray(found.values[:, wanted]),
        truth=truth,
        log_prob=None,
    )


def _check_can_be_fitted(found: SeriesDataset) -> None:
    if len(found) < FEWEST_SERIES:
        raise DataError(
            f"{found.name}: {len(found)} series are too few to learn from; at least {FEWEST_SERIES} are "
            f"needed, and `{found.id_column}` names {listed([f'`{each}`' for each in found.ids[:4]])}"
        )
    if np.all(found.lengths == 1):
        raise DataError(
            f"{found.name}: every series has a single observation, so nothing is known of how they change; "
            f"does `{found.id_column}` name the series?"
        )
