"""The published steps from the files of an archive to the benchmark tables, in which their oddities are kept.

The steps are those of gpapamak/maf, datasets/*.py (Papamakarios et al. 2017), which rtqichen/ffjord repeats.
`flowbench.data.benchmarks` says them in words.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data.formats import reading_errors
from flowbench.data.frame_pickle import read_frame
from flowbench.data.raw_table import check_size, numbered
from flowbench.errors import DataError

Floats = NDArray[np.floating[Any]]

#: Columns that correlate by more than this are left out of GAS.
_TOO_ALIKE = 0.98
#: Columns of HEPMASS are left out if their smallest value stands in more rows than this.
_MOST_REPEATS = 5
_POWER_COLUMNS = (
    "global_active_power",
    "voltage",
    "sub_metering_1",
    "sub_metering_2",
    "sub_metering_3",
    "time",
)


@dataclass(frozen=True, eq=False)
class BenchmarkRows:
    """The names of d columns, and train, validation and test rows: `(n, d)` float32."""

    names: tuple[str, ...]
    train: NDArray[np.float32]
    validation: NDArray[np.float32]
    test: NDArray[np.float32]

    @property
    def parts(self) -> tuple[NDArray[np.float32], ...]:
        """Train, validation and test rows."""
        return self.train, self.validation, self.test


def preprocess(name: str, files: Sequence[Path]) -> BenchmarkRows:
    """The rows of the benchmark `name` from the `files` of its archive.

    Raises `DataError` for files that are damaged or not those of the benchmark.
    """
    rows = _STEPS[name](files)
    for part, values in zip(("train", "validation", "test"), rows.parts, strict=True):
        if not len(values):
            raise DataError(f"{files[0]}: it has too few rows for {part} rows")
        if not np.isfinite(values).all():
            raise DataError(f"{files[0]}: it makes {part} rows with values that are not finite")
    return rows


def _power(files: Sequence[Path]) -> BenchmarkRows:
    data = _matrix(files[0], 8)
    generator = np.random.RandomState(42)  # the old generator, whose numbers were published
    generator.shuffle(data)
    n = len(data)
    data = np.delete(data, [1, 3], axis=1)
    # In this order, so that the draws are those of the published code.
    voltage, power, meters = generator.rand(n, 1), generator.rand(n, 1), generator.rand(n, 3)
    data += np.hstack([0.001 * power, 0.01 * voltage, meters, np.zeros((n, 1))])
    return _standardised(_POWER_COLUMNS, data)


def _miniboone(files: Sequence[Path]) -> BenchmarkRows:
    data = _matrix(files[0], None)
    return _standardised(numbered(data.shape[1]), data)


def _gas(files: Sequence[Path]) -> BenchmarkRows:
    import pandas as pd

    columns = read_frame(files[0])
    unused = ("Meth", "Eth", "Time")
    if lacking := [name for name in unused if name not in columns]:
        raise DataError(f"{files[0]}: it has no column `{lacking[0]}`")
    frame = pd.DataFrame({name: values for name, values in columns.items() if name not in unused})
    correlations = frame.corr().to_numpy()
    kept = list(range(len(correlations)))
    # Leaving a column out does not change the correlations of the others.
    while (alike := (correlations[np.ix_(kept, kept)] > _TOO_ALIKE).sum(axis=1) > 1).any():
        del kept[int(np.flatnonzero(alike)[0])]
    frame = frame.iloc[:, kept]
    values = ((frame - frame.mean()) / frame.std()).to_numpy()
    return _rows(tuple(map(str, frame.columns)), *_last_tenths(values))


def _hepmass(files: Sequence[Path]) -> BenchmarkRows:
    known, test = (_signal(path) for path in files)
    names = tuple(known)
    if len(test) != len(names) + 1:
        raise DataError(
            f"{files[1]}: it has {len(test)} columns beside the class, and should have one more than the "
            f"{len(names)} of {files[0].name}"
        )
    rows, test_rows = (np.column_stack(list(each.values())) for each in (known, test))
    mean, sd = rows.mean(axis=0), rows.std(axis=0, ddof=1)
    rows, test_rows = (rows - mean) / sd, (test_rows[:, :-1] - mean) / sd
    kept = (rows == rows.min(axis=0)).sum(axis=0) <= _MOST_REPEATS
    count = int(0.1 * len(rows))
    end = len(rows) - count
    return _rows(
        tuple(name for name, is_kept in zip(names, kept, strict=True) if is_kept),
        rows[:end, kept],
        rows[end:, kept],
        test_rows[:, kept],
    )


def _bsds300(files: Sequence[Path]) -> BenchmarkRows:
    import h5py

    path = files[0]
    parts = []
    with reading_errors(path), h5py.File(path, "r") as file:
        for name in ("train", "validation", "test"):
            if not isinstance(file.get(name, getlink=True), h5py.HardLink):
                raise DataError(f"it has no `{name}` of its own")
            part = file[name]
            if not isinstance(part, h5py.Dataset) or part.is_virtual or part.external or part.ndim != 2:
                raise DataError(f"`{name}` is no table")
            check_size(part.size * part.dtype.itemsize)
            parts.append(part[()])
    return _rows(numbered(parts[0].shape[1]), *parts)


_STEPS: Mapping[str, Callable[[Sequence[Path]], BenchmarkRows]] = {
    "power": _power,
    "gas": _gas,
    "hepmass": _hepmass,
    "miniboone": _miniboone,
    "bsds300": _bsds300,
}


def _matrix(path: Path, columns: int | None) -> NDArray[np.float64]:
    """The matrix of numbers in an NPY file, which has `columns`, if they are given."""
    with reading_errors(path):
        # Mapping checks that the file has the size that its header declares.
        array = np.lib.format.open_memmap(path, mode="r")
        if array.ndim != 2 or array.dtype.kind != "f" or columns not in (None, array.shape[1]):
            raise DataError(f"it holds an array of {array.dtype}, shape {array.shape}, and no such table")
        return np.array(array, dtype=np.float64)


def _signal(path: Path) -> dict[str, NDArray[np.float64]]:
    """The columns of the rows of a CSV file whose first column is 1, without that column."""
    import pandas as pd

    with reading_errors(path):
        frame = pd.read_csv(path, index_col=False)
        signal = frame[frame.iloc[:, 0] == 1]
        return {str(name).strip(): signal[name].to_numpy(dtype=np.float64) for name in frame.columns[1:]}


def _last_tenths(data: Floats) -> tuple[Floats, Floats, Floats]:
    """Train, validation and test rows: the last tenth for the test, and the last tenth of the others."""
    test = len(data) - int(0.1 * len(data))
    validation = test - int(0.1 * test)
    return data[:validation], data[validation:test], data[test:]


def _standardised(names: tuple[str, ...], data: NDArray[np.float64]) -> BenchmarkRows:
    """Tenths of the rows, standardised by the train and validation rows."""
    *known, test = _last_tenths(data)
    seen = data[: len(data) - len(test)]
    mean, sd = seen.mean(axis=0), seen.std(axis=0)
    return _rows(names, *((part - mean) / sd for part in (*known, test)))


def _rows(names: tuple[str, ...], train: Floats, validation: Floats, test: Floats) -> BenchmarkRows:
    return BenchmarkRows(names, *(np.asarray(part, dtype=np.float32) for part in (train, validation, test)))
