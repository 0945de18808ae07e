"""Writing and reading `results.h5` after the table in `results_layout`."""

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from flowbench.errors import ConfigurationError
from flowbench.store.atomic import atomic_write
from flowbench.store.documents import from_json, to_json
from flowbench.store.results import Certificate, Metric, Results
from flowbench.store.results_layout import LAYOUTS, OPTIONAL_GROUPS, Layout, Member
from flowbench.store.safe_hdf5 import UntrustedFile, open_untrusted

SCHEMA_VERSION = 1
MAX_CHUNK_BYTES = 1024**2
_FILTERS = {"compression": "gzip", "shuffle": True, "fletcher32": True}
#: The file format of HDF5 1.10, the first with checksums on all of its own structures.
LIBRARY_VERSIONS = ("v110", "v110")

_NAME = re.compile(r"[A-Za-z][\w.-]*", re.ASCII)


def write_results(path: Path, results: Results) -> None:
    """Write `results` to `path`, atomically.

    Raises `ConfigurationError` if arrays disagree in shape or a name cannot be stored.
    """
    parts = {
        "log_likelihood": results.scored,
        "samples": results.samples,
        "split": results.split,
        "grid": results.grid,
        "slices": results.slices,
        "slice_planes": results.slice_planes,
        "trajectory": results.trajectory,
        "calibration": results.calibration,
    }
    image = io.BytesIO()
    with h5py.File(image, "w", libver=LIBRARY_VERSIONS) as file:
        file.attrs["schema_version"] = SCHEMA_VERSION
        write_attribute(file, "provenance", to_json(results.provenance))
        scales = {"column": write_names(file, "column", results.columns)}
        if results.given:
            scales["given"] = write_names(file, "given", results.given)
        for name, part in parts.items():
            if part is not None:
                write_group(file.create_group(name), LAYOUTS[name], vars(part), scales)
        write_metrics(file.create_group("metrics"), results.metrics)
        _write_certificates(file.create_group("certificates"), results.certificates)
    write_image(path, image, verify=read_results)


def read_results(path: Path) -> Results:
    """Read `path` as untrusted input; raises `DamagedFileError` that names the file and the member."""
    with open_untrusted(path) as file:
        version = file.integer("", "schema_version")
        if version != SCHEMA_VERSION:
            file.refuse("schema_version", f"is {version}; this flowbench reads version {SCHEMA_VERSION}")
        groups = set(file.members())
        for name in sorted(groups - {"column", "given", "metrics", "certificates", *LAYOUTS}):
            file.refuse(name, "is not part of the layout")
        columns = file.texts("column")
        given = file.texts("given") if "given" in groups else ()
        sizes = {"column": len(columns), "given": len(given)}
        parts = {
            name: read_group(file, name, layout, sizes)
            for name, layout in LAYOUTS.items()
            if name in groups or name not in OPTIONAL_GROUPS
        }
        return Results(
            columns=columns,
            scored=parts["log_likelihood"],
            samples=parts["samples"],
            split=parts["split"],
            metrics=read_metrics(file),
            certificates=_read_certificates(file) if "certificates" in groups else {},
            grid=parts.get("grid"),
            slices=parts.get("slices"),
            slice_planes=parts.get("slice_planes"),
            trajectory=parts.get("trajectory"),
            calibration=parts.get("calibration"),
            provenance=from_json(file.text("", "provenance"), f"{path}: `provenance`"),
            given=given,
        )


def write_image(path: Path, image: io.BytesIO, *, verify: Callable[[Path], object] | None = None) -> None:
    """Write an HDF5 file that was made in memory to `path`, atomically; `verify` reads it back.

    It is made in memory because the HDF5 library crashes the process when it closes a file on a full disk.
    """
    with atomic_write(path, verify=verify) as partial:
        partial.write_bytes(image.getbuffer())


def write_array(
    group: h5py.Group, name: str, values: NDArray[Any], dims: Mapping[str, h5py.Dataset | None], units: str
) -> h5py.Dataset:
    """Store `values` compressed and with checksums.

    `dims` has for each axis the name of its dimension and the dataset that is its scale. None in place of a
    scale means that this array becomes the scale.
    """
    if values.ndim == 0:
        dataset = _create_scalar(group, name, values)
    else:
        filters: dict[str, Any] = {}
        if values.size > 0:
            filters = {"chunks": chunk_shape(values.shape, values.dtype.itemsize), **_FILTERS}
        dataset = group.create_dataset(name, data=values, **filters)
    _describe(dataset, dims, units)
    return dataset


def create_column(
    group: h5py.Group, name: str, n: int, dtype: Any, dims: Mapping[str, h5py.Dataset | None], units: str
) -> h5py.Dataset:
    """A dataset `(n,)`, n >= 1, for values of a `dtype` to be written later, stored as `write_array` does."""
    chunks = chunk_shape((n,), np.dtype(dtype).itemsize)
    dataset = group.create_dataset(name, (n,), dtype, chunks=chunks, **_FILTERS)
    if h5py.check_string_dtype(dataset.dtype) is not None:
        write_attribute(dataset, "_Encoding", "utf-8")
    _describe(dataset, dims, units)
    return dataset


def _describe(dataset: h5py.Dataset, dims: Mapping[str, h5py.Dataset | None], units: str) -> None:
    write_attribute(dataset, "units", units)
    for axis, (dim, scale) in enumerate(dims.items()):
        if scale is None:
            dataset.make_scale(dim)
        else:
            dataset.dims[axis].attach_scale(scale)


def write_texts(
    group: h5py.Group, name: str, texts: Sequence[str], dims: Mapping[str, h5py.Dataset | None], units: str
) -> h5py.Dataset:
    """Store `texts: (n,)`, as `write_array` does; raises `ConfigurationError` for what HDF5 cannot hold."""
    dataset = write_array(group, name, fixed_length(texts), dims, units)
    write_attribute(dataset, "_Encoding", "utf-8")  # tells xarray to show text, not bytes
    return dataset


def write_attribute(owner: h5py.Group | h5py.Dataset, name: str, text: str) -> None:
    """Set the attribute `name` to `text`; raises `ConfigurationError` for text that HDF5 cannot hold."""
    value = fixed_length([text])
    owner.attrs.create(name, value[0], dtype=value.dtype)


def chunk_shape(shape: tuple[int, ...], itemsize: int) -> tuple[int, ...]:
    """The shape of a chunk: that of the array, its leading axes halved until a chunk has at most 1 MiB."""
    chunk = list(shape)
    while math.prod(chunk) * itemsize > MAX_CHUNK_BYTES:
        axis = next(i for i, n in enumerate(chunk) if n > 1)
        chunk[axis] = -(-chunk[axis] // 2)
    return tuple(chunk)


def _create_scalar(group: h5py.Group, name: str, value: NDArray[Any]) -> h5py.Dataset:
    """A dataset of one number, kept in the header: only there does a checksum cover what is not chunked."""
    properties = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    properties.set_layout(h5py.h5d.COMPACT)
    properties.set_obj_track_times(False)  # the same results give the same bytes
    space = h5py.h5s.create(h5py.h5s.SCALAR)
    kind = h5py.h5t.py_create(value.dtype, logical=True)
    dataset = h5py.Dataset(h5py.h5d.create(group.id, name.encode(), kind, space, dcpl=properties))
    dataset[()] = value
    return dataset


def write_names(file: h5py.File, dim: str, names: tuple[str, ...]) -> h5py.Dataset:
    """The scale of a dimension that is counted by names."""
    dataset = file.create_dataset(dim, data=fixed_length(names), fletcher32=True)
    write_attribute(dataset, "_Encoding", "utf-8")  # tells xarray to show text, not bytes
    dataset.make_scale(dim)
    return dataset


def fixed_length(texts: Sequence[str], least: int = 1) -> NDArray[Any]:
    """`texts` as strings of fixed length, `least` bytes or more.

    HDF5 keeps strings of variable length where no checksum is.
    """
    try:
        encoded = [text.encode() for text in texts]
    except UnicodeEncodeError as error:
        raise ConfigurationError(
            f"{error.object!r} cannot be stored in HDF5: it is not valid Unicode"
        ) from error
    if unfit := [text for text in texts if "\0" in text]:
        raise ConfigurationError(f"{unfit[0]!r} cannot be stored in HDF5: there is a zero byte in it")
    length = max([least, *map(len, encoded)])
    return np.array(encoded, dtype=h5py.string_dtype("utf-8", length))


def write_group(
    group: h5py.Group, layout: Layout, values: Mapping[str, Any], shared: Mapping[str, h5py.Dataset]
) -> None:
    """Write the members of a group; `shared` are scales that lie elsewhere.

    Raises `ConfigurationError` if arrays disagree in shape.
    """
    scales = dict(shared)
    sizes = {name: len(scale) for name, scale in shared.items()}
    for member in layout.members:
        array = _values(member, values)
        if array is None:
            continue
        expected = tuple(sizes.setdefault(dim, n) for dim, n in zip(member.dims, array.shape, strict=False))
        if array.ndim != len(member.dims) or array.shape != expected:
            raise ConfigurationError(
                f"`{group.name[1:]}/{member.name}` has the shape {array.shape}; its axes are "
                f"({', '.join(member.dims)}), of lengths {expected}"
            )
        dims = {dim: scales.get(dim) for dim in member.dims}
        dataset = write_array(group, member.name, array, dims, member.units)
        if member.dims == (member.name,):
            scales[member.name] = dataset


def _values(member: Member, values: Mapping[str, Any]) -> NDArray[Any] | None:
    if member.numbers is not None:
        numbered, axis = member.numbers
        if values[numbered] is None and member.optional:
            return None
        return np.arange(np.shape(values[numbered])[axis], dtype=member.dtype)
    value = values[member.name]
    if value is None and member.optional:
        return None
    return np.asarray(value, dtype=member.dtype)


def read_group(file: UntrustedFile, group: str, layout: Layout, shared: Mapping[str, int]) -> Any:
    """The part that `layout` describes; `shared` are the lengths of dimensions whose scales lie elsewhere."""
    found = set(file.members(group))
    for name in sorted(found - {member.name for member in layout.members}):
        file.refuse(f"{group}/{name}", "is not part of the layout")
    sizes = dict(shared)
    arrays = {}
    for member in layout.members:
        if member.optional and member.name not in found:
            continue
        shape = tuple(sizes.get(dim) for dim in member.dims)
        array = file.array(f"{group}/{member.name}", member.dtype, shape)
        sizes.update(zip(member.dims, array.shape, strict=True))
        if member.numbers is None:
            arrays[member.name] = array
    return layout.part(**arrays)


def write_metrics(group: h5py.Group, metrics: Mapping[str, Metric]) -> None:
    """Write each metric as a number with its units; raises `ConfigurationError` for an unfit name."""
    for name, metric in metrics.items():
        if not _NAME.fullmatch(name):
            raise ConfigurationError(
                f"a metric cannot be called `{name}`: use letters, digits, `_`, `.` and `-`, a letter first"
            )
        write_array(group, name, np.asarray(metric.value, dtype=np.float64), {}, metric.units)


def read_metrics(file: UntrustedFile) -> dict[str, Metric]:
    """What `write_metrics` wrote into the group `metrics`."""
    found = {}
    for name in file.members("metrics"):
        member = f"metrics/{name}"
        found[name] = Metric(float(file.array(member, np.float64, ())), file.text(member, "units"))
    return found


def _write_certificates(group: h5py.Group, certificates: Mapping[str, Certificate]) -> None:
    """Write each certificate's value, with its bound, its outcome and its text as attributes."""
    for name, each in certificates.items():
        if not _NAME.fullmatch(name):
            raise ConfigurationError(f"a certificate cannot be called `{name}`")
        dataset = write_array(group, name, np.asarray(each.value, dtype=np.float64), {}, each.units)
        dataset.attrs["bound"] = np.float64(each.bound)
        dataset.attrs["passed"] = int(each.passed)
        dataset.attrs["settled"] = int(each.settled)
        write_attribute(dataset, "text", each.text)


def _read_certificates(file: UntrustedFile) -> dict[str, Certificate]:
    found = {}
    for name in file.members("certificates"):
        member = f"certificates/{name}"
        found[name] = Certificate(
            value=float(file.array(member, np.float64, ())),
            bound=file.real(member, "bound"),
            units=file.text(member, "units"),
            passed=bool(file.integer(member, "passed")),
            text=file.text(member, "text"),
            # Older files hold settled certificates only, and do not say so.
            settled=not file.has(member, "settled") or bool(file.integer(member, "settled")),
        )
    return found
