"""Datasets by name: toys, scikit-learn's tables, and table files."""

import hashlib
import os
import shlex
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flowbench.data.benchmark_record import FetchedTable, find_fetched, read_record
from flowbench.data.benchmarks import PART_COLUMN, PublishedFigure
from flowbench.data.cell_faults import join_names, leave_out_hint
from flowbench.data.column_type import ColumnType
from flowbench.data.dataset import Column, Dataset, Provenance
from flowbench.data.files import TableFile, table_suffix, unchanged
from flowbench.data.formats import read_raw_table, reading_errors
from flowbench.data.markers import find_markers
from flowbench.data.read_options import AUTOMATIC, ReadOptions
from flowbench.data.row_draw import RowDraw
from flowbench.data.sklearn_tables import SKLEARN_TABLES
from flowbench.data.table_reading import Table, read_table, select_columns
from flowbench.errors import ConfigurationError, DataError, UnknownNameError, unknown_name
from flowbench.registry import BENCHMARKS, TOYS

# Enough rows that a flow cannot memorise them. Measured: benchmarks/DEFAULTS.md#rows-of-toys.
DEFAULT_TOY_ROWS = 1_000_000
# Fewer rows cannot be split into 80, 10 and 10 per cent.
FEWEST_ROWS = 10
_TOY_COLUMNS = ("x", "y")
# Files up to this size are read to list their numbers of rows and columns.
_QUICK_TO_READ_BYTES = 2**20


@dataclass(frozen=True)
class _Facts:
    source: str
    licence: str
    description: str


# Keyed by the sha256 of the file's bytes, so that a changed file does not inherit the facts.
_KNOWN_FILES = {
    "35755e109446ec911891b1eae5cb33bc2f18367ce712145e4f9d27d19f575bad": _Facts(
        "Azzalini and Bowman (1990), via R's `datasets`",
        "facts; no claim known",
        "eruptions of Old Faithful: duration and waiting time, in minutes",
    ),
    "f204db2c753b0937caac3cb35258562c14f073e4bbc76be24b4c51ce22767a93": _Facts(
        "Gorman, Williams and Fraser (2014); Horst, Hill and Gorman (2020), `palmerpenguins`",
        "CC0",
        "three species of penguins; 11 rows have missing cells",
    ),
    "2a321b62b260cc06d9c200381fa5e708dda856be4544c7dff9d5a4f904bc2661": _Facts(
        "Kaslow et al. (1987), via R's `refund`",
        "GPL-2.0-or-later",
        "time series: CD4 counts of 366 men by month since seroconversion",
    ),
    "1d272da5808928bba8aa6e0acdf33080aaa261249eb7d89ee76a01b4fa38a00e": _Facts(
        "Murtaugh et al. (1994); Fleming and Harrington (1991), via R's `survival`",
        "LGPL-2.0-or-later",
        "time series: visits of 312 patients of the Mayo Clinic, with blood values; cells are missing",
    ),
}


@dataclass(frozen=True)
class DatasetSummary:
    """A line of the list of datasets; `rows` and `columns` are None if they are not known without reading."""

    name: str
    kind: Literal["toy", "scikit-learn", "file", "benchmark"]
    rows: int | None
    columns: int | None
    description: str


def load_dataset(
    name_or_path: str,
    *,
    columns: Sequence[str] | None = None,
    rows: int | None = None,
    seed: int = 0,
    folder: Path = Path("datasets"),
    for_fit: bool = True,
    reading: ReadOptions = AUTOMATIC,
    types: Mapping[str, ColumnType] | None = None,
) -> Dataset:
    """A toy, a table of scikit-learn, a file of `folder` by its name, or any table file by its path.

    "file.h5:group/table" is one of the tables in a file. `columns` selects columns, in this order. Without
    it, columns that only number the rows are left out, and the data set's notes say so. `reading` sets how a
    file is read, and `types` are the known types of columns. `rows` is how many rows to draw with `seed`: of
    a toy's density (default 1,000,000), or at random of the rows of a table (default all). `for_fit` also
    refuses a file that no density can be learnt from: fewer than ten rows, a constant column, or a value so
    far from the others that it may mean "missing". Without `for_fit` a single row is enough.

    Raises `UnknownNameError` for a name or column that is not there, `ConfigurationError` for an option that
    does not apply, and `DataError` for a file that cannot be read or used.
    """
    for option in ("group", "split_column", "weights", "categories", "levels"):
        if getattr(reading, option) and not is_file(name_or_path):
            raise ConfigurationError(
                f"`{option}` speaks of columns of a table file, and `{name_or_path}` is none; leave it out"
            )
    if name_or_path in TOYS.entries:
        return _draw_toy(name_or_path, columns, DEFAULT_TOY_ROWS if rows is None else rows, seed)
    draw = RowDraw.asked(rows, seed)
    if name_or_path in SKLEARN_TABLES:
        return _load_sklearn(name_or_path, columns, draw)
    return _load_file(find_file(name_or_path, folder), columns, for_fit, reading, types, draw)


def is_file(name_or_path: str) -> bool:
    """Whether a data set is read from a table file, and neither drawn nor scikit-learn's."""
    return name_or_path not in TOYS.entries and name_or_path not in SKLEARN_TABLES


def table_file(name_or_path: str, folder: Path = Path("datasets")) -> TableFile | None:
    """The file that `load_dataset` would read, or None."""
    if not is_file(name_or_path):
        return None
    with suppress(ConfigurationError, DataError):
        return find_file(name_or_path, folder)
    return None


def list_datasets(folder: Path = Path("datasets")) -> list[DatasetSummary]:
    """Every dataset that has a name: toys, scikit-learn's tables, and the table files of `folder`.

    Benchmarks come last that are not fetched yet.
    """
    toys = [DatasetSummary(name, "toy", None, 2, TOYS.get(name).description) for name in TOYS.names()]
    tables = [
        DatasetSummary(name, "scikit-learn", table.rows, table.columns, table.description)
        for name, table in SKLEARN_TABLES.items()
    ]
    files = [_summarise_file(path) for path in _table_files(folder)]
    there = {each.name for each in files}
    others = [_summarise_benchmark(name) for name in BENCHMARKS.names() if name not in there]
    return toys + tables + files + others


def dataset_names(folder: Path = Path("datasets")) -> list[str]:
    """The names that `list_datasets` would give, without opening a file."""
    return [*TOYS.names(), *SKLEARN_TABLES, *(table_stem(TableFile(path)) for path in _table_files(folder))]


def _draw_toy(name: str, columns: Sequence[str] | None, rows: int, seed: int) -> Dataset:
    if rows < FEWEST_ROWS:
        raise ConfigurationError(f"`rows` must be at least {FEWEST_ROWS}; got {rows}")
    density = TOYS.get(name)()
    wanted = select_columns(_TOY_COLUMNS, columns, name)
    sample = density.sample(rows, np.random.default_rng(seed))[:, wanted]
    provenance = Provenance(
        source=f"drawn with seed {seed} from the density of FFJORD's toy (Grathwohl et al. 2019)",
        sha256=_sha256_of_rows(sample),
        description=density.description,
    )
    return Dataset(
        name,
        tuple(Column(_TOY_COLUMNS[index]) for index in wanted),
        sample,
        provenance,
        density if wanted == [0, 1] else None,
    )


def _load_sklearn(name: str, columns: Sequence[str] | None, draw: RowDraw | None) -> Dataset:
    facts = SKLEARN_TABLES[name]
    table = facts.load()
    wanted = select_columns(table.names, columns, name)
    rows = table.rows[:, wanted]
    provenance = Provenance(facts.source, _sha256_of_rows(rows), facts.licence, facts.description)
    drawn = None if draw is None else draw.rows(len(rows))
    return Dataset(
        name,
        tuple(Column(table.names[index]) for index in wanted),
        rows if drawn is None else rows[drawn],
        provenance,
        notes=() if draw is None else (draw.note(len(rows)),),
        row_numbers=drawn,
    )


def _load_file(
    file: TableFile,
    columns: Sequence[str] | None,
    for_fit: bool,
    reading: ReadOptions,
    types: Mapping[str, ColumnType] | None,
    draw: RowDraw | None,
) -> Dataset:
    with unchanged(file.path):
        fetched = find_fetched(file.path)
        reading, notes = as_fetched(file, reading, fetched, draw)
        table = read_table(
            file,
            columns,
            reading=reading,
            may_leave_out=for_fit,
            types=types,
            # The columns of a benchmark are those of a density.
            few_are_categories=fetched is None,
            draw=draw,
        )
        provenance = file_provenance(file, fetched)
    if for_fit:
        with reading_errors(file):
            _check_can_be_fitted(table, reading.keep or ())
    published = _published(fetched, table, reading)
    if published:
        notes = (*notes, "values are taken as points, as by the published figures, unless spacings are given")
    return Dataset(
        table_stem(file),
        tuple(
            Column(
                name,
                "categorical" if name in table.categories else "continuous",
                type=table.types[name],
                levels=table.levels.get(name),
            )
            for name in table.names
        ),
        table.rows,
        provenance,
        notes=(*table.notes, *notes),
        row_numbers=table.row_numbers,
        groups=table.groups,
        parts=table.parts,
        published=published,
        weights=table.weights,
    )


def as_fetched(
    file: TableFile, reading: ReadOptions, fetched: FetchedTable | None, draw: RowDraw | None
) -> tuple[ReadOptions, tuple[str, ...]]:
    """How a `file` that was `fetched` is read, and notes on that; any other is read as `reading` says.

    Raises `ConfigurationError` for a `draw` of rows of a fetched table.
    """
    if fetched is not None and draw is not None:
        raise ConfigurationError(
            f"`{table_stem(file)}` is a benchmark, whose train, validation and test rows are published; "
            "leave `rows` out"
        )
    if fetched is None or reading.split_column not in (None, PART_COLUMN):
        return reading, ()
    notes = [f"train, validation and test rows are those published, in the column `{PART_COLUMN}`"]
    if fetched.shortcoming:
        notes.append(f"published figures are not shown: {fetched.shortcoming}")
    return reading.model_copy(update={"split_column": PART_COLUMN}), tuple(notes)


def _published(
    fetched: FetchedTable | None, table: Table, reading: ReadOptions
) -> tuple[PublishedFigure, ...]:
    """The published figures, if the `table` has every column and row that they are of."""
    if fetched is None or reading.split_column != PART_COLUMN or table.row_numbers is not None:
        return ()
    return fetched.figures if len(table.names) == fetched.benchmark.columns else ()


def file_provenance(file: TableFile, fetched: FetchedTable | None = None) -> Provenance:
    """The provenance of a table file, which may be one that was `fetched`.

    Raises `DataError` if it cannot be read.
    """
    with reading_errors(file), file.path.open("rb") as content:
        sha256 = hashlib.file_digest(content, "sha256").hexdigest()
    facts = _KNOWN_FILES.get(sha256, _Facts(str(file), "", ""))
    if fetched is not None:
        benchmark = fetched.benchmark
        facts = _Facts(benchmark.source, benchmark.archive.licence, benchmark.description)
    return Provenance(facts.source, sha256, facts.licence, facts.description)


def _check_can_be_fitted(table: Table, keep: Sequence[str]) -> None:
    n = len(table.rows)
    if n < FEWEST_ROWS:
        raise DataError(f"{n} rows are too few to learn a density from; at least {FEWEST_ROWS} are needed")
    varies = np.nanmax(table.rows, axis=0) > np.nanmin(table.rows, axis=0)
    constant = [name for name, kept in zip(table.names, varies, strict=True) if not kept]
    if constant:
        value = _shown(table, constant[0], float(np.nanmax(table.rows[:, table.names.index(constant[0])])))
        also = f"; so are {', '.join(f'`{name}`' for name in constant[1:])}" if constant[1:] else ""
        hint = leave_out_hint(table.names, constant) or "give a table with columns that vary"
        raise DataError(f"column `{constant[0]}` is constant: {value} from row 1 to row {n}{also}; {hint}")
    for name, values in zip(table.names, table.rows.T, strict=True):
        if name not in (*keep, *table.categories) and (markers := find_markers(values)):
            each = [
                f"row {_row(table, marker.row)}: {_shown(table, name, marker.value)}"
                + (f" (in {marker.count:,} cells)" if marker.count > 1 else "")
                for marker in markers
            ]
            options = " ".join(
                f"--missing-value {shlex.quote(_shown(table, name, marker.value))}" for marker in markers
            )
            raise DataError(
                f"column `{name}`, {'; '.join(each)} stands apart from the other values, {markers[0].low:g} "
                f"to {markers[0].high:g}, as a mark of missing cells does; say `{options}` if it is one, or "
                f"`--keep {shlex.quote(join_names([name]))}` to learn it as a value"
            )


def _row(table: Table, number: int) -> int:
    """The row number in the file, counted from 1."""
    return number if table.row_numbers is None else int(table.row_numbers[number - 1]) + 1


def _shown(table: Table, name: str, value: float) -> str:
    """A value in the notation of its column."""
    kind = table.types.get(name)
    has_notation = kind is not None and (kind.unit or kind.levels)
    return str(kind.text(np.array([value]))[0]) if kind is not None and has_notation else _exact(value)


def _exact(value: float) -> str:
    return f"{value:.0f}" if value == np.rint(value) and abs(value) < 1e15 else repr(value)


def find_file(name: str, folder: Path) -> TableFile:
    """The file with this path, or with this name in `folder`; raises `UnknownNameError` without one."""
    file = TableFile.of(name)
    exists = os.path.exists(name) or file.inside is not None
    if os.sep in name or file.inside is not None or (table_suffix(file.path) and exists):
        return file
    named = [path for path in _table_files(folder) if name in (table_stem(TableFile(path)), path.name)]
    if len(named) > 1:
        choices = ", ".join(str(path) for path in named)
        raise ConfigurationError(f"the dataset `{name}` could be any of {choices}; give the path of one")
    if not named and (table_suffix(file.path) or exists):
        return file
    if not named and name in BENCHMARKS.entries:
        size = BENCHMARKS.get(name).archive.size
        raise UnknownNameError(
            f"the benchmark `{name}` is not in {folder} yet; `flowbench datasets fetch {name}` downloads it, "
            f"{size}"
        )
    if not named:
        known = unknown_name("dataset", name, dataset_names(folder))
        raise UnknownNameError(f"{known}; or give the path of a table file")
    return TableFile(named[0])


def _table_files(folder: Path) -> list[Path]:
    if not folder.is_dir():
        return []
    with reading_errors(folder):
        return sorted(path for path in folder.iterdir() if table_suffix(path) and path.is_file())


def _summarise_benchmark(name: str) -> DatasetSummary:
    benchmark = BENCHMARKS.get(name)
    how = f"{benchmark.description}; `flowbench datasets fetch {name}` downloads {benchmark.archive.size}"
    return DatasetSummary(name, "benchmark", sum(benchmark.rows), benchmark.columns, how)


def _summarise_file(path: Path) -> DatasetSummary:
    rows = columns = None
    with suppress(DataError):
        if record := read_record(path):
            description = BENCHMARKS.get(record.name).description
            return DatasetSummary(path.stem, "file", sum(record.rows), record.columns, description)
    description = f"{path.stat().st_size / 2**20:.1f} MiB"
    if path.stat().st_size <= _QUICK_TO_READ_BYTES:
        try:
            with reading_errors(path):
                content = path.read_bytes()
                raw = read_raw_table(TableFile(path), AUTOMATIC)
            rows, columns = raw.n_rows, len(raw.names)
            facts = _KNOWN_FILES.get(hashlib.sha256(content).hexdigest())
            description = facts.description if facts else path.name
        except DataError as error:
            description = f"cannot be read: {error}"
    return DatasetSummary(table_stem(TableFile(path)), "file", rows, columns, description)


def table_stem(file: TableFile) -> str:
    """The name of a table file without its suffix, followed by that of the table inside it, if any."""
    name = file.path.name
    stem = name[: len(name) - len(table_suffix(file.path) or "")] or name
    return stem if file.inside is None else f"{stem}-{file.inside.replace('/', '-')}"


def _sha256_of_rows(rows: NDArray[np.float64]) -> str:
    return hashlib.sha256(np.ascontiguousarray(rows).tobytes()).hexdigest()
