"""Datasets: toy densities that are known exactly, bundled tables, and the user's own."""

from flowbench.data.catalogue import (
    DatasetSummary,
    dataset_names,
    list_datasets,
    load_dataset,
    table_file,
    table_stem,
)
from flowbench.data.dataset import Column, Dataset, Provenance, Split
from flowbench.data.description import ColumnSummary, DatasetDescription, describe_dataset
from flowbench.data.files import TableFile, keep_stream
from flowbench.data.read_options import ReadOptions
from flowbench.data.table_reading import Table, read_table

__all__ = [
    "Column",
    "ColumnSummary",
    "Dataset",
    "DatasetDescription",
    "DatasetSummary",
    "Provenance",
    "ReadOptions",
    "Split",
    "Table",
    "TableFile",
    "dataset_names",
    "describe_dataset",
    "keep_stream",
    "list_datasets",
    "load_dataset",
    "read_table",
    "table_file",
    "table_stem",
]
