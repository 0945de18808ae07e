"""Summary statistics of a table's columns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from flowbench.data.benchmark_record import find_fetched
from flowbench.data.benchmarks import PublishedFigure
from flowbench.data.catalogue import as_fetched, file_provenance, load_dataset, table_file, table_stem
from flowbench.data.cells import Cells
from flowbench.data.dataset import Provenance
from flowbench.data.read_options import AUTOMATIC, ReadOptions
from flowbench.data.row_draw import RowDraw
from flowbench.data.table_reading import read_columns


@dataclass(frozen=True)
class ColumnSummary:
    """Range, mean, standard deviation (n - 1) in data units, and number of distinct values of a column.

    They are of the finite numbers. They are None if there are none; `sd` is also None for one number.
    `distinct` counts distinct texts too. `unfit` counts the cells that are missing, infinite or not numbers,
    which no model accepts.
    """

    name: str
    minimum: float | None
    maximum: float | None
    mean: float | None
    sd: float | None
    distinct: int
    unfit: int


@dataclass(frozen=True)
class DatasetDescription:
    """Summary of a dataset; `entropy` is that of its density in nats, None if it is not known.

    `notes` say what reading it guessed or left out. `published` are figures of papers on a benchmark.
    """

    name: str
    rows: int
    columns: tuple[ColumnSummary, ...]
    entropy: float | None
    provenance: Provenance
    notes: tuple[str, ...] = ()
    published: tuple[PublishedFigure, ...] = ()


def describe_dataset(
    name_or_path: str,
    *,
    columns: Sequence[str] | None = None,
    folder: Path = Path("datasets"),
    reading: ReadOptions = AUTOMATIC,
) -> DatasetDescription:
    """Summarise every column of a dataset, or those in `columns`, whether a model accepts it or not.

    Raises as `load_dataset` does, except for cells.
    """
    found = read_cells(name_or_path, columns, folder, reading)
    rows = len(next(iter(found.cells.values())).numbers)
    summaries = tuple(_summarise(column, values) for column, values in found.cells.items())
    return DatasetDescription(
        found.name, rows, summaries, found.entropy, found.provenance, found.notes, found.published
    )


@dataclass(frozen=True, eq=False)
class DatasetCells:
    """The cells of a dataset by column, whatever they are.

    `left_out` are columns of a file that a fit leaves out, each with the reason. `entropy` is that of the
    dataset's density in nats, if it is known. `published` are figures of papers on the table, if it is the
    complete one of a benchmark.
    """

    name: str
    cells: Mapping[str, Cells]
    provenance: Provenance
    notes: tuple[str, ...] = ()
    entropy: float | None = None
    left_out: Mapping[str, tuple[Cells, str]] = field(default_factory=dict)
    published: tuple[PublishedFigure, ...] = ()

    @property
    def every(self) -> dict[str, Cells]:
        """The cells of all columns, those that a fit leaves out first."""
        return {**{name: each for name, (each, _) in self.left_out.items()}, **self.cells}


def read_cells(
    name_or_path: str,
    columns: Sequence[str] | None,
    folder: Path,
    reading: ReadOptions,
    draw: RowDraw | None = None,
) -> DatasetCells:
    """The cells of a dataset, of a file those of the rows that are drawn.

    Raises as `load_dataset` does, except for cells.
    """
    file = table_file(name_or_path, folder)
    if file is None:
        dataset = load_dataset(name_or_path, columns=columns, folder=folder)
        cells = {
            name: Cells(values) for name, values in zip(dataset.column_names, dataset.rows.T, strict=True)
        }
        entropy = dataset.density.entropy if dataset.density is not None else None
        return DatasetCells(dataset.name, cells, dataset.provenance, entropy=entropy)
    fetched = find_fetched(file.path)
    reading, notes = as_fetched(file, reading, fetched, draw)
    found = read_columns(file, columns, reading, draw=draw)
    return DatasetCells(
        table_stem(file),
        found.cells,
        file_provenance(file, fetched),
        (*found.notes, *notes),
        left_out=found.left_out,
        published=fetched.figures if fetched else (),
    )


def _summarise(name: str, cells: Cells) -> ColumnSummary:
    numbers = cells.numbers
    finite = numbers[np.isfinite(numbers)]
    unfit = len(numbers) - len(finite)
    texts = {cells.text(int(row)) for row in np.flatnonzero(cells.is_foreign)}
    distinct = len(np.unique(finite)) + len(texts)
    if not len(finite):
        return ColumnSummary(name, None, None, None, None, distinct, unfit)
    sd = float(finite.std(ddof=1)) if len(finite) > 1 else None
    low, high, mean = float(finite.min()), float(finite.max()), float(finite.mean())
    return ColumnSummary(name, low, high, mean, sd, distinct, unfit)
