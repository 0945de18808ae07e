"""Reads a table from an HDF5 file of unknown origin."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flowbench.data.cells import Array
from flowbench.data.raw_table import LAYOUTS, RawTable, check_size
from flowbench.data.read_options import ReadOptions
from flowbench.errors import DataError

if TYPE_CHECKING:
    import h5py

#: Attributes of the CF conventions that change the stored values.
_SCALED = ("scale_factor", "add_offset")
_FILLED = ("_FillValue", "missing_value")
#: The most groups that a message names.
_MOST_GROUPS = 5


def read_hdf5(path: Path, inside: str | None, reading: ReadOptions, wanted: Sequence[str] | None) -> RawTable:
    """Read the datasets of a group, or one dataset, as a table; dimension scales are not columns.

    `inside` names the group or the dataset; None is the root. If all `wanted` columns are there, only these
    are read. Raises `DataError` for links, external or virtual storage, types that are neither plain numbers
    nor text, and sizes that are too large. Raises `OSError` for a file that is not HDF5.
    """
    import h5py

    with _opened(path) as file:
        parts = [part for part in (inside or "").split("/") if part]
        group = file
        for number, name in enumerate(parts):
            member = _member(group, name)
            if isinstance(member, h5py.Dataset) and number == len(parts) - 1:
                return _read(group, [name], reading, None)
            if not isinstance(member, h5py.Group):
                raise DataError(f"`{name}` is not a group with tables in it")
            group = member
        if "pandas_type" in group.attrs or "axis0" in group:
            raise DataError(
                "it is a table of `pandas.to_hdf`, in PyTables' format; write it with `to_parquet` instead"
            )
        names = [name for name in group if wanted is None or name in wanted or not set(wanted) <= set(group)]
        columns = [name for name in names if _is_column_like(group, name, wanted or ())]
        if not columns:
            where = f"`{inside}`" if inside else "its root"
            tables = [f"{path.name}:{name}" for name in _tables(group, "/".join(parts))]
            hint = f"name the group of one: {', '.join(tables[:_MOST_GROUPS])}" if tables else LAYOUTS
            raise DataError(f"it has no dataset at {where}; {hint}")
        found = _read(group, columns, reading, wanted)
        scales = [name for name in names if name not in columns and _is_column_like(group, name, names)]
        shown = ", ".join(scales[:_MOST_GROUPS])
        note = f"dimension scales are left out, unless `--columns` names them: {shown}"
        return replace(found, notes=(*found.notes, *([note] if scales and scales != ["row"] else [])))


@contextmanager
def _opened(path: Path) -> Iterator["h5py.File"]:
    import h5py

    try:
        file = h5py.File(path, "r")
    except BlockingIOError:
        raise DataError("another program holds it open for writing; close it there, or give a copy") from None
    with file:
        yield file


def _read(
    group: "h5py.Group", names: Sequence[str], reading: ReadOptions, wanted: Sequence[str] | None
) -> RawTable:
    datasets = {name: _checked(name, group[name]) for name in names}
    check_size(sum(dataset.size * dataset.dtype.itemsize for dataset in datasets.values()))
    units = {name: _units(dataset) for name, dataset in datasets.items()}
    arrays = {name: _filled(dataset) for name, dataset in datasets.items()}
    return RawTable.from_arrays(arrays, reading, units, wanted)


def _filled(dataset: "h5py.Dataset") -> Array:
    """The values, with NaN for those that an attribute marks as missing."""
    values: Array = dataset[()]
    for attribute in _FILLED:
        if attribute in dataset.attrs and values.dtype.kind in "iuf":
            missing = np.isin(values, dataset.attrs[attribute])
            if missing.any():
                values = np.where(missing, np.nan, values.astype(np.float64))
    return values


def _units(dataset: "h5py.Dataset") -> str:
    """The attribute `units`, as in the CF conventions."""
    unit = dataset.attrs.get("units", "")
    return unit.decode(errors="replace") if isinstance(unit, bytes) else str(unit)


def _member(group: "h5py.Group", name: str) -> object:
    import h5py

    link = group.get(name, getlink=True)
    if link is None:
        there = ", ".join(f"`{each}`" for each in list(group)[:_MOST_GROUPS]) or "nothing"
        raise DataError(f"it has no `{name}`; there is {there}")
    if not isinstance(link, h5py.HardLink):
        raise DataError(f"`{name}` is a link to somewhere else; links are not followed")
    return group[name]


def _is_column_like(group: "h5py.Group", name: str, wanted: Sequence[str]) -> bool:
    import h5py

    member = _member(group, name)
    return isinstance(member, h5py.Dataset) and (name in wanted or not member.is_scale)


def _checked(name: str, dataset: "h5py.Dataset") -> "h5py.Dataset":
    if dataset.is_virtual or dataset.external:
        raise DataError(f"`{name}` keeps its values in another file; store them in this one")
    for attribute in _SCALED:
        if attribute in dataset.attrs:
            raise DataError(
                f"`{name}` has the attribute `{attribute}`, which is not applied; store its values plainly"
            )
    if dataset.shape is None:
        raise DataError(f"`{name}` is empty")
    kinds = {dataset.dtype[field].kind for field in dataset.dtype.names or ()} or {dataset.dtype.kind}
    # Text of variable length is refused too: if it is damaged, the library may loop for ever.
    if not kinds <= set("iufbS"):
        raise DataError(f"`{name}` holds neither plain numbers nor text of fixed length")
    return dataset


def _tables(group: "h5py.Group", path: str, depth: int = 3) -> Iterator[str]:
    """Paths of the groups below `group` that hold datasets; links are not followed."""
    import h5py

    for name in group:
        if not isinstance(group.get(name, getlink=True), h5py.HardLink):
            continue
        member, below = group[name], f"{path}/{name}" if path else name
        if isinstance(member, h5py.Group):
            if any(
                isinstance(member.get(each, getlink=True), h5py.HardLink)
                and isinstance(member[each], h5py.Dataset)
                for each in member
            ):
                yield below
            elif depth:
                yield from _tables(member, below, depth - 1)
