"""A run: one folder with the configuration, the log, the weights and the results of a fit."""

import errno
import os
import re
import shutil
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from numpy.typing import NDArray

from flowbench.errors import (
    ConfigurationError,
    DamagedFileError,
    FlowbenchError,
    RunExistsError,
    RunLockedError,
    UnknownNameError,
    unknown_name,
)
from flowbench.store.atomic import atomic_write, file_errors, partial_beside, remove_partials, sync_folder
from flowbench.store.documents import from_json, read_json, read_toml, to_json, write_json, write_toml
from flowbench.store.hdf5 import read_results, write_results
from flowbench.store.results import Metric, Results
from flowbench.store.series_file import KIND as SERIES
from flowbench.store.series_file import read_series_results, write_series_results
from flowbench.store.series_results import SeriesResults
from flowbench.store.tensors import Tensors, read_tensors, write_tensors

CONFIG = "config.toml"
INFO = "run.json"
METRICS = "metrics.jsonl"
MODEL = "model.safetensors"
RESUME = "resume.safetensors"
RESULTS = "results.h5"
LOCK = ".lock"
#: Seconds for which a writer waits for the lock: longer than a look at whether it is held takes.
PATIENCE = 1.0
#: Files that only the holder of the lock writes.
LOCKED = (CONFIG, INFO, METRICS, MODEL, RESUME, RESULTS)

#: Characters that separate paths or mean something to a shell or another system's files.
_FORBIDDEN = re.compile(r"""[/\\:*?"<>|]""")
_MAX_NAME_BYTES = 100


def check_run_name(name: str) -> str:
    """Return `name` if a run may be called that; raises `ConfigurationError` otherwise.

    Check names that a user gives before joining them to a folder: a path separator in one is refused here.
    """
    plain = name.isprintable() and name == name.strip() and not _FORBIDDEN.search(name)
    if not plain or not 0 < len(os.fsencode(name)) <= _MAX_NAME_BYTES or name[0] in ".-" or name[-1] == ".":
        raise ConfigurationError(
            f"a run or a report cannot be called {name!r}: use at most {_MAX_NAME_BYTES} bytes of printable "
            'characters other than `/ \\ : * ? " < > |`, and neither a point at an end nor `-` at the start'
        )
    return name


@dataclass(frozen=True)
class Run:
    """The run kept in the folder `path`; every property and method reads or writes the files there.

    Whole files are replaced atomically, so a reader needs no lock; a writer holds `lock()`. Methods raise
    `DamagedFileError` for files that are not as flowbench left them, `ConfigurationError` for files that
    are not there or may not be touched, and `RunFailedError` when the disk is full.
    """

    path: Path

    @classmethod
    def create(
        cls, path: Path, config: Mapping[str, Any], info: Mapping[str, Any], held: ExitStack | None = None
    ) -> "Run":
        """Make a run folder that holds `config` and `info`, to which `created` (UTC) is added.

        If `held` is given, the new run's lock goes into it before other processes can see the run, which
        would otherwise take it for one that was killed. Raises `RunExistsError` if there is a folder that is
        not empty, and `ConfigurationError` for a name that `check_run_name` refuses.
        """
        path = Path(path)
        check_run_name(path.name)
        # The folder is made under another name first, so that no other process sees an unfinished one.
        partial = partial_beside(path)
        with ExitStack() as made:
            made.callback(shutil.rmtree, partial, ignore_errors=True)
            with file_errors("write", path):
                partial.mkdir(parents=True)
            write_toml(partial / CONFIG, config)
            write_json(partial / INFO, {"created": datetime.now(UTC).isoformat(), **info})
            if held is not None:
                made.enter_context(_locked(partial, path))
            with file_errors("write", path):
                _move_new(partial, path)
                sync_folder(path.parent)
            if held is not None:
                held.push(made.pop_all())
        return cls(path)

    @classmethod
    def open(cls, path: Path) -> "Run":
        """The run in the folder `path`.

        Raises `UnknownNameError` if nothing is there, `DamagedFileError` if it is no run folder.
        """
        path = Path(path)
        with file_errors("read", path):
            if not path.exists():
                raise UnknownNameError(_no_such_run(path))
            missing = _missing(path)
        if missing:
            raise DamagedFileError(f"{path} is not a run folder: it has no {' and no '.join(missing)}")
        return cls(path)

    @property
    def name(self) -> str:
        """The folder's name."""
        return Path(os.path.abspath(self.path)).name

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Keep other processes from writing to the run; the system frees the lock of a process that dies.

        Raises `RunLockedError` if another process goes on holding it.
        """
        with _locked(self.path, self.path):
            remove_partials(self.path, LOCKED)
            yield

    @property
    def is_locked(self) -> bool:
        """Whether a process, which may be this one, holds `lock()`; True where the system does not tell.

        Makes no file, and holds no writer up for longer than `PATIENCE`.
        """
        import fcntl  # which some systems do not have

        try:
            descriptor = os.open(self.path / LOCK, os.O_RDONLY | os.O_NONBLOCK | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        except OSError:
            return True
        try:
            # A shared lock, so that two processes that look at once do not take one another for a writer.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except OSError:
            return True
        finally:
            os.close(descriptor)
        return False

    @property
    def status(self) -> str:
        """The status in run.json, or "killed" where that says "running" and nobody holds the lock."""
        status = str(self.info.get("status", ""))
        if status == "running" and not self.is_locked:
            # The run may have ended between the two reads.
            status = str(self.info.get("status", ""))
            return "killed" if status == "running" else status
        return status

    @property
    def config(self) -> dict[str, Any]:
        """The resolved configuration, from config.toml."""
        return read_toml(self.path / CONFIG)

    def write_config(self, config: Mapping[str, Any]) -> None:
        """Replace config.toml."""
        write_toml(self.path / CONFIG, config)

    @property
    def info(self) -> dict[str, Any]:
        """Status, versions, seeds, times and the like, from run.json."""
        return read_json(self.path / INFO)

    @property
    def dataset(self) -> Mapping[str, Any]:
        """The data set's entry in run.json, with its name and columns; empty if there is none.

        Raises `DamagedFileError` if the entry is not as flowbench writes it.
        """
        found: Mapping[str, Any] = self.info.get("dataset", {})
        columns = found.get("columns", []) if isinstance(found, Mapping) else None
        if not isinstance(columns, list) or not all(isinstance(name, str) for name in columns):
            raise DamagedFileError(
                f"{self.path / INFO}: what it says of the data set is not as flowbench writes it"
            )
        return found

    def update_info(self, **fields: Any) -> None:
        """Set `fields` in run.json, remove those that are None, and keep the other entries."""
        info = self.info | fields
        write_json(self.path / INFO, {name: info[name] for name in info if fields.get(name, "") is not None})

    def append_metrics(self, record: Mapping[str, Any]) -> None:
        """Add a line to metrics.jsonl; NaN and infinities become null."""
        line = to_json(record).encode() + b"\n"
        path = self.path / METRICS
        with file_errors("write", path), path.open("ab+", buffering=0) as file:
            _drop_torn_line(file.fileno())
            _write_all(file.fileno(), line)

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, oldest first, without an unfinished last line."""
        path = self.path / METRICS
        if not self._has(METRICS):
            return []
        with file_errors("read", path):
            *lines, _torn = path.read_bytes().split(b"\n")
        return [from_json(line, f"{path}, line {number}") for number, line in enumerate(lines, start=1)]

    def truncate_metrics(self, step: int) -> None:
        """Remove the records of later steps, which a resumed fit logs again."""
        kept = [record for record in self.metrics() if record.get("step", step) <= step]
        with atomic_write(self.path / METRICS) as partial:
            partial.write_text("".join(to_json(record) + "\n" for record in kept), encoding="utf-8")

    def save_model(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
        """Replace model.safetensors."""
        write_tensors(self.path / MODEL, tensors, metadata)

    def load_model(self) -> tuple[Tensors, dict[str, str]]:
        """The tensors and the metadata of model.safetensors."""
        return read_tensors(self._written(MODEL))

    def save_resume(self, tensors: Mapping[str, NDArray[Any]], metadata: Mapping[str, str]) -> None:
        """Replace resume.safetensors."""
        write_tensors(self.path / RESUME, tensors, metadata)

    def load_resume(self) -> tuple[Tensors, dict[str, str]]:
        """The tensors and the metadata of resume.safetensors."""
        return read_tensors(self._written(RESUME))

    @property
    def has_resume(self) -> bool:
        """Whether a state to resume from was saved."""
        return self._has(RESUME)

    def write_results(self, results: Results) -> None:
        """Replace results.h5."""
        write_results(self.path / RESULTS, results)

    def read_results(self) -> Results:
        """The contents of results.h5 of a run on a table; raises `ConfigurationError` for one on series."""
        if self.is_of_series:
            raise ConfigurationError(
                f"the run `{self.name}` is of series, and this takes runs on tables of rows; `score`, "
                "`sample`, `predict`, `impute` and `report` take runs on series"
            )
        return read_results(self._written(RESULTS))

    def write_series_results(self, results: SeriesResults) -> None:
        """Replace results.h5 of a run on series."""
        write_series_results(self.path / RESULTS, results)

    def read_series_results(self) -> SeriesResults:
        """The contents of results.h5 of a run on series; raises `ConfigurationError` for one on a table."""
        if not self.is_of_series:
            raise ConfigurationError(
                f"the run `{self.name}` is of rows, and this takes runs on series, which `fit` makes with "
                "`--series` and `--time`"
            )
        return read_series_results(self._written(RESULTS))

    def read_figures(self) -> Mapping[str, Metric]:
        """The metrics in results.h5, of either kind of run."""
        return (self.read_series_results() if self.is_of_series else self.read_results()).metrics

    @property
    def is_of_series(self) -> bool:
        """Whether run.json says that the run is on series, and not on the rows of a table."""
        return self.info.get("kind") == SERIES

    @property
    def has_results(self) -> bool:
        """Whether results were written."""
        return self._has(RESULTS)

    def _written(self, name: str) -> Path:
        if not self._has(name):
            why = _WHY_MISSING.get(self.status, "it ended too early; resume it or fit anew")
            raise ConfigurationError(f"the run `{self.name}` has no {name}: {why}")
        return self.path / name

    def _has(self, name: str) -> bool:
        with file_errors("read", self.path / name):
            return (self.path / name).exists()


#: By status, why a run may have no model, no state to resume from or no results.
_WHY_MISSING = {
    "running": "it is still being fitted; wait for it to end",
    "finished": "it is missing, though the run is finished; put it back, or fit anew",
}


def is_run_folder(path: Path) -> bool:
    """Whether `path` is a folder that `Run.open` takes."""
    return not _missing(path)


def list_runs(folder: Path) -> tuple[list[Run], list[str]]:
    """The runs in `folder`, newest first, and one warning for each other folder that is there.

    Hidden folders are left out. A folder that does not exist holds no runs.
    """
    dated: list[tuple[str, str, Run]] = []
    warnings: list[str] = []
    with file_errors("read", folder):
        if not folder.exists():
            return [], []
        paths = sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    for path in paths:
        try:
            run = Run.open(path)
            dated.append((str(run.info.get("created", "")), run.name, run))
        except FlowbenchError as error:
            warnings.append(str(error))
    dated.sort(key=lambda entry: entry[:2], reverse=True)
    return [run for _, _, run in dated], warnings


@contextmanager
def _locked(folder: Path, run: Path) -> Iterator[None]:
    """Hold the lock in `folder`, which is or becomes the folder `run`."""
    lock = FileLock(folder / LOCK)
    with file_errors("write", run / LOCK):
        try:
            lock.acquire(timeout=PATIENCE)
        except Timeout as error:
            raise RunLockedError(
                f"another process is writing to the run `{Run(run).name}` ({run}); wait for it to end, "
                "or use another name"
            ) from error
        except NotImplementedError as error:
            raise ConfigurationError(
                f"{run} is on a file system without locks ({error}); work in another folder"
            ) from error
    try:
        yield
    finally:
        lock.release()


def _missing(path: Path) -> list[str]:
    return [name for name in (CONFIG, INFO) if not (path / name).is_file()]


def _move_new(partial: Path, path: Path) -> None:
    try:
        os.rename(partial, path)
    except OSError as error:
        if error.errno in {errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR} and path.exists():
            raise RunExistsError(
                f"{path} is already there and not empty; choose another name or remove it"
            ) from error
        raise


def _no_such_run(path: Path) -> str:
    siblings = [run.name for run in list_runs(path.parent)[0]] if path.parent.is_dir() else []
    return f"{path.parent}: {unknown_name('run', path.name, siblings)}"


def _drop_torn_line(descriptor: int) -> None:
    """Cut the file after its last newline: a writer that was killed may leave an unfinished line."""
    size = end = os.fstat(descriptor).st_size
    while end > 0 and os.pread(descriptor, 1, end - 1) != b"\n":
        end -= 1
    if end < size:
        os.ftruncate(descriptor, end)


def _write_all(descriptor: int, line: bytes) -> None:
    while line:
        line = line[os.write(descriptor, line) :]
