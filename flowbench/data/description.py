"""What a table's columns look like, in a few numbers."""

from dataclasses import dataclass

import numpy as np

from flowbench.data.dataset import Dataset, Provenance


@dataclass(frozen=True)
class ColumnSummary:
    """A column's range, mean and standard deviation (n - 1) in data units, and its distinct values."""

    name: str
    minimum: float
    maximum: float
    mean: float
    sd: float
    distinct: int


@dataclass(frozen=True)
class DatasetDescription:
    """A dataset in numbers; `entropy` is that of its density in nats, None where it is not known."""

    name: str
    rows: int
    columns: tuple[ColumnSummary, ...]
    entropy: float | None
    provenance: Provenance


def describe_dataset(dataset: Dataset) -> DatasetDescription:
    """Summarise every column of `dataset`."""
    columns = tuple(
        ColumnSummary(
            name=column.name,
            minimum=float(values.min()),
            maximum=float(values.max()),
            mean=float(values.mean()),
            sd=float(values.std(ddof=1)),
            distinct=len(np.unique(values)),
        )
        for column, values in zip(dataset.columns, dataset.rows.T, strict=True)
    )
    entropy = dataset.density.entropy if dataset.density is not None else None
    return DatasetDescription(dataset.name, len(dataset.rows), columns, entropy, dataset.provenance)
