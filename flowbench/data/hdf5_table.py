"""Reading a table from an HDF5 file that may come from anywhere."""

from pathlib import Path
from typing import TYPE_CHECKING

from flowbench.data.raw_table import LAYOUTS, RawTable, check_size
from flowbench.errors import DataError

if TYPE_CHECKING:
    import h5py


def read_hdf5(path: Path) -> RawTable:
    """Read the datasets at the root of an HDF5 file as one table; dimension scales are not columns.

    Raises `DataError` for links out of the root, external or virtual storage, types that are no plain
    numbers or text, and sizes above the bound; `OSError` for a file that is not HDF5.
    """
    import h5py

    with h5py.File(path, "r") as file:
        datasets = {name: member for name in file if (member := _column_like(file, name)) is not None}
        if not datasets:
            raise DataError(f"it has no dataset at its root; {LAYOUTS}")
        check_size(sum(dataset.size * dataset.dtype.itemsize for dataset in datasets.values()))
        return RawTable.from_arrays({name: dataset[()] for name, dataset in datasets.items()})


def _column_like(file: "h5py.File", name: str) -> "h5py.Dataset | None":
    import h5py

    if not isinstance(file.get(name, getlink=True), h5py.HardLink):
        raise DataError(f"`{name}` is a link to somewhere else; links are not followed")
    dataset = file[name]
    if not isinstance(dataset, h5py.Dataset) or dataset.is_scale:
        return None
    if dataset.is_virtual or dataset.external:
        raise DataError(f"`{name}` keeps its values in another file; store them in this one")
    if dataset.shape is None:
        raise DataError(f"`{name}` is empty")
    kinds = {dataset.dtype[field].kind for field in dataset.dtype.names or ()} or {dataset.dtype.kind}
    # Text of variable length is refused too: where it is damaged the library may loop for ever.
    if not kinds <= set("iufbS"):
        raise DataError(f"`{name}` holds neither plain numbers nor text of fixed length")
    return dataset
