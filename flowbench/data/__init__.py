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
from flowbench.data.schema import Atom, ColumnSchema, Level, Relation, Support, TableSchema
from flowbench.data.schema_document import schema_to_toml, settings_from_values
from flowbench.data.schema_settings import ColumnSettings
from flowbench.data.table_check import check_table
from flowbench.data.table_reading import Table, read_table

__all__ = [
    "Atom",
    "Column",
    "ColumnSchema",
    "ColumnSettings",
    "ColumnSummary",
    "Dataset",
    "DatasetDescription",
    "DatasetSummary",
    "Level",
    "Provenance",
    "ReadOptions",
    "Relation",
    "Split",
    "Support",
    "Table",
    "TableFile",
    "TableSchema",
    "check_table",
    "dataset_names",
    "describe_dataset",
    "keep_stream",
    "list_datasets",
    "load_dataset",
    "read_table",
    "schema_to_toml",
    "settings_from_values",
    "table_file",
    "table_stem",
]
