"""Which reader takes which table file, and the errors that all of them share.

Files are untrusted: nothing is unpickled, and sizes are bounded before anything is read.
"""

import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from flowbench.data.csv_table import read_csv
from flowbench.data.hdf5_table import read_hdf5
from flowbench.data.raw_table import RawTable, check_size
from flowbench.errors import DataError, FlowbenchError


@contextmanager
def file_errors(path: Path) -> Iterator[None]:
    """Make every error of reading `path` a `DataError` that names the file.

    The package's other errors pass unchanged, and so do a library that is not installed and a lack of memory.
    """
    try:
        yield
    except DataError as error:
        raise DataError(f"{path}: {error}") from None
    except (FlowbenchError, ImportError, MemoryError):
        raise
    except PermissionError:
        raise DataError(f"{path}: no permission to read it") from None
    # What the formats' libraries raise for a damaged file is no closed list: numpy alone raises ValueError,
    # SyntaxError and tokenize.TokenError.
    except Exception as error:
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise DataError(f"{path}: it is damaged, or not what its suffix says ({reason})") from error


def read_raw_table(path: Path) -> RawTable:
    """Read the file at `path` by its suffix; to be called within `file_errors`.

    Raises `DataError` if it is missing, no file, of an unknown suffix or too large, and whatever the
    format's library raises if it is damaged.
    """
    if path.is_dir():
        raise DataError("it is a folder; give the path of a table file in it")
    if not path.exists():
        raise DataError("there is no such file" + ("" if path.is_absolute() else f" in {Path.cwd()}"))
    if not path.is_file():
        raise DataError("it is not a regular file")
    if path.stat().st_size == 0:
        raise DataError("the file is empty")
    suffix = table_suffix(path)
    if suffix is None:
        raise DataError(f"it is of no kind that can be read; known suffixes: {', '.join(_READERS)}")
    return _READERS[suffix](path)


def table_suffix(path: Path) -> str | None:
    """The suffix by which `path` is known as a table file, such as ".csv.gz"; None if it is not."""
    return next((suffix for suffix in _READERS if path.name.lower().endswith(suffix)), None)


def _read_parquet(path: Path) -> RawTable:
    from pyarrow import parquet

    with parquet.ParquetFile(path) as file:
        names = tuple(file.schema_arrow.names)
        check_size(file.metadata.num_rows * len(names) * 8)
        return RawTable.from_arrow(names, file.read())


def _read_npy(path: Path) -> RawTable:
    # Mapping the file compares the size that it declares with the one that it has.
    return RawTable.from_array(np.lib.format.open_memmap(path, mode="r"))


def _read_npz(path: Path) -> RawTable:
    with zipfile.ZipFile(path) as archive:
        check_size(sum(member.file_size for member in archive.infolist()))
    with np.load(path, allow_pickle=False) as arrays:
        if not arrays.files:
            raise DataError("it holds no arrays")
        return RawTable.from_arrays({name: arrays[name] for name in arrays.files})


_READERS: dict[str, Callable[[Path], RawTable]] = {
    ".csv": read_csv,
    ".csv.gz": read_csv,
    ".parquet": _read_parquet,
    ".npy": _read_npy,
    ".npz": _read_npz,
    ".h5": read_hdf5,
    ".hdf5": read_hdf5,
}
