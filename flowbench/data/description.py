"""What a table's columns look like, in a few numbers."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flowbench.data.catalogue import file_provenance, load_dataset, table_file, table_stem
from flowbench.data.dataset import Provenance
from flowbench.data.raw_table import Array
from flowbench.data.tables import read_cells


@dataclass(frozen=True)
class ColumnSummary:
    """A column's range, mean and standard deviation (n - 1) in data units, and its distinct values.

    These are of its finite numbers, and None where it has none (the deviation: one); of a column of text, how
    many texts are distinct. `unfit` cells are missing, infinite or no numbers, so that no model takes them.
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
    """A dataset in numbers; `entropy` is that of its density in nats, None where it is not known."""

    name: str
    rows: int
    columns: tuple[ColumnSummary, ...]
    entropy: float | None
    provenance: Provenance


def describe_dataset(
    name_or_path: str, *, columns: Sequence[str] | None = None, folder: Path = Path("datasets")
) -> DatasetDescription:
    """Summarise every column of a dataset, or those in `columns`, whether a model can take it or not.

    Raises as `load_dataset` does, but not for cells.
    """
    path = table_file(name_or_path, folder)
    if path is None:
        dataset = load_dataset(name_or_path, columns=columns, folder=folder)
        cells = dict(zip(dataset.column_names, dataset.rows.T, strict=True))
        name, provenance = dataset.name, dataset.provenance
        entropy = dataset.density.entropy if dataset.density is not None else None
    else:
        cells = read_cells(path, columns)
        name, provenance, entropy = table_stem(path), file_provenance(path), None
    rows = len(next(iter(cells.values())))
    summaries = tuple(_summarise(column, values) for column, values in cells.items())
    return DatasetDescription(name, rows, summaries, entropy, provenance)


def _summarise(name: str, cells: Array) -> ColumnSummary:
    if cells.dtype.kind not in "iuf":
        distinct = len({str(cell) for cell in cells.tolist() if cell is not None})
        return ColumnSummary(name, None, None, None, None, distinct, len(cells))
    numbers = cells.astype(np.float64)
    finite = numbers[np.isfinite(numbers)]
    distinct, unfit = len(np.unique(finite)), len(numbers) - len(finite)
    if not len(finite):
        return ColumnSummary(name, None, None, None, None, distinct, unfit)
    sd = float(finite.std(ddof=1)) if len(finite) > 1 else None
    low, high, mean = float(finite.min()), float(finite.max()), float(finite.mean())
    return ColumnSummary(name, low, high, mean, sd, distinct, unfit)
