"""Whether a run is whole: the status in its run.json, checked against the files that are there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flowbench.errors import DamagedFileError, FlowbenchError
from flowbench.store.atomic import file_errors
from flowbench.store.run import CONFIG, METRICS, MODEL, RESULTS, RESUME, Run
from flowbench.store.safe_hdf5 import open_untrusted
from flowbench.store.tensors import check_tensors

#: Files that every finished run has.
_KEPT = (MODEL, RESULTS)


@dataclass(frozen=True)
class Condition:
    """The `status` of a run, and what is wrong with its files, a line each, in `faults`.

    The status is that of `Run.status`, or "damaged" if a file is, or "incomplete" if a finished run has lost
    a file. A file that cannot be opened, for lack of permission say, is a fault that leaves the status alone.
    """

    status: str
    faults: tuple[str, ...] = ()


def condition_of(run: Run, *, thorough: bool = False) -> Condition:
    """Check the files of a run: whether they are there, and as long as their headers say.

    With `thorough`, the files are read and their checksums compared. Raises as `Run.info` does.
    """
    status = run.status
    faults: list[str] = []
    is_damaged = False
    missing: list[str] = []
    for name, check in _checks(run, thorough).items():
        if name == RESUME and status == "finished":  # a finished run is not resumed
            continue
        try:
            with file_errors("read", run.path / name):
                there = (run.path / name).exists()
            if there:
                check()
            elif status == "finished" and name in _KEPT:
                missing.append(f"{run.path / name} is missing")
        except DamagedFileError as error:
            is_damaged = True
            faults.append(str(error))
        except FlowbenchError as error:
            faults.append(str(error))
    if status != "running" and (is_damaged or missing):
        status = "damaged" if is_damaged else "incomplete"
    return Condition(status, (*faults, *missing))


def _checks(run: Run, thorough: bool) -> Mapping[str, Callable[[], object]]:
    if thorough:
        return {
            CONFIG: lambda: run.config,
            METRICS: run.metrics,
            MODEL: run.load_model,
            RESUME: run.load_resume,
            RESULTS: run.read_figures,
        }
    return {
        CONFIG: lambda: run.config,
        MODEL: lambda: check_tensors(run.path / MODEL),
        RESUME: lambda: check_tensors(run.path / RESUME),
        RESULTS: lambda: _open(run.path / RESULTS),
    }


def _open(path: Path) -> None:
    """Open a file, for which the HDF5 library compares its length with what its header says."""
    with open_untrusted(path):
        pass
