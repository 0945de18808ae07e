"""Files: the run folder, and the tables that users ask for. Writes are atomic, reads are checked."""

from flowbench.store.atomic import atomic_write, file_errors
from flowbench.store.condition import Condition, condition_of
from flowbench.store.long_table import write_long_table
from flowbench.store.results import (
    Calibration,
    Certificate,
    Grid,
    Metric,
    Results,
    RowSplit,
    Samples,
    ScoredRows,
    SlicePlanes,
    Slices,
    Trajectory,
)
from flowbench.store.run import Run, check_run_name, is_run_folder, list_runs
from flowbench.store.table_parts import HeldParts, Parts, StoredParts
from flowbench.store.table_writing import check_table_path, table_format, write_csv, write_table

__all__ = [
    "Calibration",
    "Certificate",
    "Condition",
    "Grid",
    "HeldParts",
    "Metric",
    "Parts",
    "Results",
    "RowSplit",
    "Run",
    "Samples",
    "ScoredRows",
    "SlicePlanes",
    "Slices",
    "StoredParts",
    "Trajectory",
    "atomic_write",
    "check_run_name",
    "check_table_path",
    "condition_of",
    "file_errors",
    "is_run_folder",
    "list_runs",
    "table_format",
    "write_csv",
    "write_long_table",
    "write_table",
]
