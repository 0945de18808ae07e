"""Reading HDF5 files that may come from anywhere.

An HDF5 file can point outside itself (soft and external links, external storage, virtual datasets). It can
declare more data than any memory holds, ask for filter plug-ins, and have types that are rebuilt as Python
objects. A file that does any of this is refused before its data are read.
"""

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, NoReturn

import h5py
import numpy as np
from numpy.typing import NDArray

from flowbench.errors import DamagedFileError
from flowbench.store.atomic import file_errors, is_of_the_system

#: The most bytes that are read from one file.
MAX_BYTES = 2 * 1024**3
MAX_CHUNK_BYTES = 16 * 1024**2

_CLASSES = {np.float64: h5py.h5t.FLOAT, np.int64: h5py.h5t.INTEGER}
_FILTERS = {h5py.h5z.FILTER_DEFLATE, h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_FLETCHER32}
#: What h5py raises where the HDF5 library finds damage. It has no error class of its own.
_DAMAGE = (OSError, RuntimeError, KeyError, ValueError, TypeError, OverflowError)


class UntrustedFile:
    """An open HDF5 file whose members are checked before they are read.

    A member is named by its path, such as "samples/x". Every method raises `DamagedFileError`, which names
    the file and the member.
    """

    def __init__(self, file: h5py.File, path: Path) -> None:
        self._file = file
        self._path = path
        self._bytes_left = MAX_BYTES

    def members(self, group: str = "") -> list[str]:
        """The names directly inside `group`; the root is ""."""
        with self._reading(group):
            opened = self._open(group)
            if not isinstance(opened, h5py.h5g.GroupID):
                self.refuse(group, "must be a group")
            return list(h5py.Group(opened))

    def array(self, member: str, dtype: type[Any], shape: tuple[int | None, ...]) -> NDArray[Any]:
        """The values of a dataset of float64 or int64; None in `shape` stands for any length."""
        with self._reading(member):
            dataset = self._dataset(member, _CLASSES[dtype])
            if dataset.dtype.newbyteorder("=") != np.dtype(dtype):
                self.refuse(member, f"must hold {np.dtype(dtype)}, and holds {dataset.dtype}")
            found = dataset.shape
            if len(found) != len(shape) or any(n not in (None, m) for n, m in zip(shape, found, strict=True)):
                wanted = ", ".join("any" if n is None else str(n) for n in shape)
                self.refuse(member, f"must have the shape ({wanted}), and has {found}")
            return self._values(member, dataset).astype(dtype, copy=False)

    def texts(self, member: str) -> tuple[str, ...]:
        """The values of a one-dimensional dataset of fixed-length strings."""
        with self._reading(member):
            dataset = self._dataset(member, h5py.h5t.STRING)
            if len(dataset.shape) != 1:
                self.refuse(member, f"must have one axis, and has the shape {dataset.shape}")
            return tuple(value.decode() for value in self._values(member, dataset))

    def has(self, member: str, attribute: str) -> bool:
        """Whether `member` has that attribute."""
        with self._reading(member):
            return bool(h5py.h5a.exists(self._open(member), attribute.encode()))

    def text(self, member: str, attribute: str) -> str:
        """A fixed-length string attribute of `member`."""
        with self._reading(member):
            return bytes(self._attribute(member, attribute, h5py.h5t.STRING)).decode()

    def integer(self, member: str, attribute: str) -> int:
        """An integer attribute of `member`."""
        with self._reading(member):
            return int(self._attribute(member, attribute, h5py.h5t.INTEGER))

    def real(self, member: str, attribute: str) -> float:
        """A floating-point attribute of `member`."""
        with self._reading(member):
            return float(self._attribute(member, attribute, h5py.h5t.FLOAT))

    def refuse(self, member: str, complaint: str) -> NoReturn:
        """Raise a `DamagedFileError` with a `complaint` about `member`."""
        raise DamagedFileError(f"{self._path}: `{member or '/'}` {complaint}")

    def _reading(self, member: str) -> AbstractContextManager[None]:
        return _library_errors(self._path, f"{self._path}: `{member or '/'}` cannot be read")

    def _open(self, member: str) -> Any:
        node = self._file.id
        for name in filter(None, member.split("/")):
            encoded = name.encode()
            # To follow an external link would open another file, so the kind of the link is checked first.
            if not isinstance(node, h5py.h5g.GroupID) or not node.links.exists(encoded):
                self.refuse(member, "is missing")
            if node.links.get_info(encoded).type != h5py.h5l.TYPE_HARD:
                self.refuse(member, "is a soft or external link, which is not allowed")
            node = h5py.h5o.open(node, encoded)
        return node if member else h5py.h5g.open(node, b"/")

    def _values(self, member: str, dataset: h5py.Dataset) -> NDArray[Any]:
        self._spend(member, math.prod(dataset.shape) * dataset.dtype.itemsize)
        return np.asarray(dataset[()])

    def _dataset(self, member: str, type_class: int) -> h5py.Dataset:
        opened = self._open(member)
        if not isinstance(opened, h5py.h5d.DatasetID):
            self.refuse(member, "must be a dataset")
        if not _has_class(opened, type_class):
            self.refuse(member, "has a data type that is not allowed here")
        if opened.get_space().get_simple_extent_type() == h5py.h5s.NULL:
            self.refuse(member, "is empty")
        storage = opened.get_create_plist()
        if storage.get_external_count() > 0:
            self.refuse(member, "keeps its values in another file, which is not allowed")
        if storage.get_layout() == h5py.h5d.VIRTUAL:
            self.refuse(member, "is a virtual dataset, which is not allowed")
        if any(storage.get_filter(i)[0] not in _FILTERS for i in range(storage.get_nfilters())):
            self.refuse(member, "uses a filter other than gzip, shuffle and fletcher32")
        dataset = h5py.Dataset(opened)
        if dataset.chunks is not None:
            size = math.prod(dataset.chunks) * opened.get_type().get_size()
            if size > MAX_CHUNK_BYTES:
                self.refuse(member, f"has chunks of {size} bytes; at most {MAX_CHUNK_BYTES} are allowed")
        return dataset

    def _attribute(self, member: str, name: str, type_class: int) -> Any:
        opened = self._open(member)
        if not h5py.h5a.exists(opened, name.encode()):
            self.refuse(member, f"has no attribute `{name}`")
        attribute = h5py.h5a.open(opened, name.encode())
        if not _has_class(attribute, type_class) or attribute.shape != ():
            self.refuse(member, f"has an attribute `{name}` of a type that is not allowed")
        self._spend(member, attribute.get_type().get_size())
        owner = h5py.Group(opened) if isinstance(opened, h5py.h5g.GroupID) else h5py.Dataset(opened)
        return owner.attrs[name]

    def _spend(self, member: str, size: int) -> None:
        if size > self._bytes_left:
            self.refuse(member, f"declares too much: a file may hold {MAX_BYTES} bytes, uncompressed")
        self._bytes_left -= size


def _has_class(stored: Any, type_class: int) -> bool:
    """Whether a dataset or an attribute is of this class; strings have to be of fixed length.

    The library can loop for ever over damage in the heap, where it keeps values of variable length.
    """
    found = stored.get_type()
    if found.get_class() != type_class:
        return False
    return type_class != h5py.h5t.STRING or not found.is_variable_str()


@contextmanager
def open_untrusted(path: Path) -> Iterator[UntrustedFile]:
    """Open `path` for checked reading; raises `DamagedFileError` if it is not a whole HDF5 file."""
    with _library_errors(path, f"{path} is not a whole HDF5 file"):
        # What Python says of a file that cannot be opened is clearer than what the library says.
        path.open("rb").close()
        # Files are replaced whole and never written in place, so there is nothing to lock against.
        file = h5py.File(path, "r", locking=False)
    with file:
        yield UntrustedFile(file, path)


@contextmanager
def _library_errors(path: Path, complaint: str) -> Iterator[None]:
    """Turn what h5py raises in the block into a `DamagedFileError`, or into what the system refused."""
    with file_errors("read", path):
        try:
            yield
        except _DAMAGE as error:
            if is_of_the_system(error):
                raise
            raise DamagedFileError(f"{complaint}: {error}") from error
