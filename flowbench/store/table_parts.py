"""The finished parts of a long table, kept beside its path until the whole is there."""

import json
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from filelock import FileLock, Timeout
from numpy.typing import NDArray

from flowbench.errors import ConfigurationError, DamagedFileError, RunLockedError
from flowbench.store.atomic import NAME_SHOWN, atomic_write, file_errors, remove_partials
from flowbench.store.documents import from_json, read_json, to_json, write_json

if TYPE_CHECKING:
    import pyarrow as pa

#: What the folder's name has behind that of the table, and the files in it that are no parts.
SUFFIX = ".parts"
_ABOUT, _LOCK = "about.json", "lock"
#: Where a part holds what was known once it was finished.
_STATE = b"flowbench"

Columns = Mapping[str, NDArray[Any]]
Tell = Callable[[str], None]


class Parts(Protocol):
    """A table in parts, each of equally long columns; the types of a column are alike in all of them."""

    def __len__(self) -> int:
        """The number of parts."""
        ...

    def read(self, names: Sequence[str] | None = None) -> Iterator[Columns]:
        """The parts in their order, or only their columns of these `names`."""
        ...


@dataclass(frozen=True)
class HeldParts:
    """Parts in memory."""

    held: Sequence[Columns]

    def __len__(self) -> int:
        return len(self.held)

    def read(self, names: Sequence[str] | None = None) -> Iterator[Columns]:
        """The parts in their order, or only their columns of these `names`."""
        for part in self.held:
            yield part if names is None else {name: part[name] for name in names}


@dataclass
class StoredParts:
    """Parts in the `folder` beside a table's path; one part is a file, which is there whole or not at all.

    `rows` are in the parts that are there. `state` is what was kept with the last of them: sums over all rows
    so far.
    """

    folder: Path
    count: int = 0
    rows: int = 0
    state: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    @contextmanager
    def of(cls, path: Path, about: Mapping[str, Any], tell: Tell) -> Iterator["StoredParts"]:
        """The parts of the table at `path` that a process has left there, which nobody else may write now.

        `about` says, by word, what the parts depend on. Parts of something else are removed, and `tell` hears
        of what. Raises `RunLockedError` if another process writes the same table, and `ConfigurationError`
        for a folder that flowbench has not made.
        """
        folder = path.with_name(path.name + SUFFIX)
        with file_errors("write", folder):
            there = {each.name for each in folder.iterdir()} if folder.exists() else set()
            is_foreign = bool(there) and not there & {_LOCK, _ABOUT}
            if not is_foreign:
                folder.mkdir(exist_ok=True)
        if is_foreign:
            raise ConfigurationError(
                f"{folder} is in the way, where parts of {path.name} are kept; remove it, or give another "
                "path with `-o`"
            )
        with _locked(folder, path):
            if len(path.name) <= NAME_SHOWN:  # else it may be that of another file
                remove_partials(path.parent, [path.name])
            wanted = json.loads(to_json(about))
            known = read_json(folder / _ABOUT) if (folder / _ABOUT).exists() else None
            if known is not None and known != wanted:
                others = [word for word in wanted if known.get(word) != wanted[word]]
                tell(
                    f"{folder} holds parts from before, with another {' and another '.join(others)}; they "
                    "are removed, and all rows are done anew"
                )
            if known != wanted:
                _empty(folder)
                write_json(folder / _ABOUT, wanted)
            yield cls._opened(folder)

    @classmethod
    def _opened(cls, folder: Path) -> "StoredParts":
        found = cls(folder)
        with file_errors("read", folder):
            while found._path(found.count).exists():
                found.count += 1
        if found.count:
            state = _state_of(found._path(found.count - 1))
            found.rows, found.state = state["rows"], state["state"]
        return found

    def append(self, columns: Columns, state: Mapping[str, Any]) -> None:
        """Keep another part, and the `state` with it: plain values, in which NaN and infinities may stand."""
        import pyarrow as pa
        from pyarrow import feather

        rows = self.rows + len(next(iter(columns.values())))
        arrays = {name: _arrow(values) for name, values in columns.items()}
        metadata = {_STATE: json.dumps({"rows": rows, "state": dict(state)})}
        with atomic_write(self._path(self.count)) as partial:
            table = pa.table(arrays).replace_schema_metadata(metadata)
            feather.write_feather(table, str(partial), compression="lz4")
        self.count, self.rows, self.state = self.count + 1, rows, dict(state)

    def __len__(self) -> int:
        return self.count

    def read(self, names: Sequence[str] | None = None) -> Iterator[Columns]:
        """The parts in their order, or only their columns of these `names`, one or more."""
        for number in range(self.count):
            table = _table_of(self._path(number), names)
            yield {name: _numpy(table.column(name)) for name in table.column_names}

    def discard(self) -> None:
        """Remove the folder with all parts."""
        _empty(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, number: int) -> Path:
        return self.folder / f"{number:08d}.arrow"


def _empty(folder: Path) -> None:
    """Remove what says what the parts are, and then the parts, the last ones first."""
    with file_errors("write", folder):
        (folder / _ABOUT).unlink(missing_ok=True)
        for path in sorted(folder.glob("*.arrow"), reverse=True):
            path.unlink()
        for path in folder.glob(".*.partial"):
            path.unlink()


def _arrow(values: NDArray[Any]) -> "pa.Array":
    import pyarrow as pa

    return pa.array(values, pa.string() if values.dtype.kind == "O" else None)


def _numpy(column: "pa.ChunkedArray") -> NDArray[Any]:
    import pyarrow as pa

    values: NDArray[Any] = column.to_numpy()
    return values.astype(object) if pa.types.is_string(column.type) else np.ascontiguousarray(values)


def _state_of(path: Path) -> dict[str, Any]:
    """The state that was kept with a part, and the rows up to its end."""
    from pyarrow import ipc

    with _reading(path), ipc.open_file(str(path)) as file:
        metadata = file.schema.metadata or {}
    found = from_json(metadata.get(_STATE, b""), f"{path}: its state")
    if not isinstance(found.get("rows"), int) or not isinstance(found.get("state"), dict):
        raise _damaged(path, "it does not say how far it goes")
    return found


def _table_of(path: Path, names: Sequence[str] | None) -> "pa.Table":
    from pyarrow import feather

    with _reading(path):
        columns = None if names is None else list(names)
        return feather.read_table(path, columns=columns, memory_map=False)


@contextmanager
def _reading(path: Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        with file_errors("read", path):
            yield
    except (pa.ArrowInvalid, pa.ArrowKeyError) as error:
        raise _damaged(path, str(error).partition("\n")[0]) from error


def _damaged(path: Path, why: str) -> DamagedFileError:
    return DamagedFileError(f"{path} is damaged ({why}); remove the folder {path.parent}, and begin anew")


@contextmanager
def _locked(folder: Path, path: Path) -> Iterator[None]:
    lock = FileLock(folder / _LOCK)
    with file_errors("write", folder):
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise RunLockedError(
                f"another process is writing {path}; wait for it to end, or give another path with `-o`"
            ) from error
        except NotImplementedError as error:
            raise ConfigurationError(
                f"{folder} is on a file system without locks ({error}); write into another folder with `-o`"
            ) from error
    try:
        yield
    finally:
        lock.release()
