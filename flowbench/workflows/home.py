"""The working folder, with runs, reports and tables in it."""

import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path
from typing import Any

from flowbench.errors import RunExistsError
from flowbench.store import Run, check_run_name


@dataclass(frozen=True)
class Home:
    """A working folder with `runs/`, `reports/` and `datasets/` in it."""

    path: Path = Path()

    @property
    def runs(self) -> Path:
        """The folder of the runs."""
        return self.path / "runs"

    @property
    def reports(self) -> Path:
        """The folder of the reports."""
        return self.path / "reports"

    @property
    def datasets(self) -> Path:
        """The folder in which tables are found by name."""
        return self.path / "datasets"

    def run(self, name: str) -> Run:
        """Open a run by its name in `runs/`, or by its folder; raises as `Run.open` does."""
        inside, beside = self.runs / name, Path(name)
        # For a name that no file system takes, Path.is_dir raises and os.path.isdir says no.
        return Run.open(beside if isdir(beside) and not isdir(inside) else inside)

    def create_run(
        self,
        name: str | None,
        stem: str,
        config: Mapping[str, Any],
        info: Mapping[str, Any],
        held: ExitStack | None = None,
    ) -> Run:
        """Make the folder of a new run; `held` and the errors are those of `Run.create`.

        The folder is called `name`. Without one, it gets the first free name of stem, stem-2, stem-3, ...;
        characters of the `stem` that are hard to type are replaced.
        """
        if name is not None:
            return Run.create(self.runs / check_run_name(name), config, info, held)
        stem = _easy_to_type(stem)
        number = 1
        while True:
            path = self.runs / (stem if number == 1 else f"{stem}-{number}")
            # Another process may take the name in between.
            with suppress(RunExistsError):
                if not path.exists():
                    return Run.create(path, config, info, held)
            number += 1

    def report_path(self, name: str | None, stems: Sequence[str]) -> Path:
        """The folder of a report: called `name`, or else by the `stems` of its data sets or runs.

        Raises `ConfigurationError` for a `name` that cannot be used.
        """
        if name is not None:
            return self.reports / check_run_name(name)
        first, *others = dict.fromkeys(map(_easy_to_type, stems))
        joined = "-".join([first, *others])
        fits = len(joined.encode()) <= _LONGEST_JOINED
        return self.reports / (joined if fits else f"{first}-and-{len(others)}-more")


# In bytes, as file systems count.
_LONGEST_STEM = 80
_LONGEST_JOINED = 100


def _easy_to_type(stem: str) -> str:
    """`stem`, such as a file's name, without characters that a shell or `check_run_name` objects to."""
    plain = re.sub(r"[^\w.+]+", "-", stem).lstrip(".-")
    return plain.encode()[:_LONGEST_STEM].decode(errors="ignore").rstrip(".-") or "unnamed"
