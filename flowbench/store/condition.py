"""How a run stands: what it says of itself, held against the files that are there."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from flowbench.errors import DamagedFileError, FlowbenchError
from flowbench.store.atomic import file_errors
from flowbench.store.run import CONFIG, METRICS, MODEL, RESULTS, RESUME, Run
from flowbench.store.safe_hdf5 import open_untrusted
from flowbench.store.tensors import check_tensors

#: What a finished run has.
_KEPT = (MODEL, RESULTS)


@dataclass(frozen=True)
class Condition:
    """`status` is that of `Run.status`, or "damaged" or "incomplete" where `faults` say why it is not whole.

    A file that only cannot be read, as one without permission, is a fault, and says nothing of the status.
    """

    status: str
    faults: tuple[str, ...] = ()


def condition_of(run: Run, *, thorough: bool = False) -> Condition:
    """Look at the files of a run: whether they are there and as long as they say.

    A `thorough` look reads them, and compares their checksums. Raises as `Run.info` does.
    """
    status = run.status
    faults: list[str] = []
    is_damaged = False
    missing: list[str] = []
    for name, check in _checks(run, thorough).items():
        if name == RESUME and status == "finished":  # nobody will ask for it
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
            RESULTS: run.read_results,
        }
    return {
        CONFIG: lambda: run.config,
        MODEL: lambda: check_tensors(run.path / MODEL),
        RESUME: lambda: check_tensors(run.path / RESUME),
        RESULTS: lambda: _open(run.path / RESULTS),
    }


def _open(path: Path) -> None:
    """The HDF5 library compares a file's length with what it says."""
    with open_untrusted(path):
        pass
