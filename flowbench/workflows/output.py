"""Where what comes of a run is written, and what stands beside it there."""

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flowbench.data import table_file
from flowbench.errors import ConfigurationError
from flowbench.store import Run, check_table_path, file_errors
from flowbench.workflows.home import Home
from flowbench.workflows.stored_run import StoredRun

#: The columns that stand beside a table's own; those of a run with categories.
LIKELIHOODS = ("log_prob", "log_prob_error")
PARTS = ("log_mass", "log_density")
Floats = NDArray[np.float64]
#: The path of an output that is none.
STDOUT = Path("-")


def check_output(path: Path, run: Run, *tables: str, home: Home | None = None) -> Path:
    """Return `path` if what comes of `run` and `tables` can be written there, to be asked before the work.

    Without `tables`, each a path or a data set's name, draws are meant, which have the run's own columns.
    Raises `ConfigurationError` if the path's ending is unknown or its format cannot hold the columns, if its
    folder is missing or read-only, or if it is one of the tables or the one that the run was fitted on, or
    holds the results of the run. "-", for standard output, always can.
    """
    own = StoredRun(run).read
    named = (StoredRun(run).config.data.dataset, *tables)
    return check_path(path, run, named, () if tables else own, home or Home())


def check_path(path: Path, run: Run, read: Sequence[str], columns: Sequence[str], home: Home) -> Path:
    """`check_output` for a table with these `columns`, which comes of the data sets that are `read`."""
    if path == STDOUT:
        return path
    check_table_path(path, columns)
    files = [table_file(name, home.datasets) for name in read]
    kept = [run.path / "results.h5", *(file.path for file in files if file)]
    with file_errors("write", path):
        if path.exists() and any(one.exists() and path.samefile(one) for one in kept):
            raise ConfigurationError(f"{path} would overwrite what is read; give another path with `-o`")
        if path.is_dir():
            raise ConfigurationError(f"cannot write {path}: it is a folder; give a file's name")
        if not path.parent.is_dir():
            raise ConfigurationError(f"cannot write {path}: there is no folder {path.parent}; make it first")
    if not os.access(path.parent, os.W_OK):
        raise ConfigurationError(f"cannot write {path}: the folder is read-only; name another with `-o`")
    return path


def likelihood_columns(
    log_prob: Floats, error: Floats, log_mass: Floats | None
) -> dict[str, NDArray[np.float64]]:
    """The columns of `LIKELIHOODS`, and of `PARTS` where there is a `log_mass: (n,)`; all in nats."""
    found = dict(zip(LIKELIHOODS, (log_prob, error), strict=True))
    if log_mass is not None:
        found |= dict(zip(PARTS, (log_mass, log_prob - log_mass), strict=True))
    return found


def attributes(run: Run, dequantised: Sequence[str]) -> dict[str, str | int | float]:
    """What a written table says of the run that it comes of."""
    dataset = run.dataset
    return {
        "run": run.name,
        "model": str(run.info.get("model", "")),
        "dataset": str(dataset.get("name", "")),
        "dataset_sha256": str(dataset.get("sha256", "")),
        "dequantised": ", ".join(dequantised),
    }
