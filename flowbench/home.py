"""The folder that runs, reports and tables are taken from."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from os.path import isdir
from pathlib import Path

from flowbench.store import Run, check_run_name


@dataclass(frozen=True)
class Home:
    """A working folder with `runs/`, `reports/` and `datasets/` in it."""

    path: Path = Path()

    @property
    def runs(self) -> Path:
        """Where runs are kept."""
        return self.path / "runs"

    @property
    def reports(self) -> Path:
        """Where reports are written."""
        return self.path / "reports"

    @property
    def datasets(self) -> Path:
        """Where tables are found by name."""
        return self.path / "datasets"

    def run(self, name: str) -> Run:
        """Open a run by its name in `runs/`, or by its folder; raises as `Run.open` does."""
        inside, beside = self.runs / name, Path(name)
        # os.path.isdir answers where Path.is_dir raises: for names that no file system would take.
        return Run.open(beside if isdir(beside) and not isdir(inside) else inside)

    def new_run_path(self, name: str | None, stem: str) -> Path:
        """The folder of a new run: `name` as given, or the first free of stem, stem-2, stem-3, ...

        A `stem` is made easy to type first. Raises `ConfigurationError` for a `name` that cannot be used.
        """
        if name is not None:
            return self.runs / check_run_name(name)
        return next(path for path in self._numbered(_easy_to_type(stem)) if not path.exists())

    def report_path(self, name: str | None, stems: Sequence[str]) -> Path:
        """The folder of a report: `name` as given, or the `stems` of what it is about, joined.

        Raises `ConfigurationError` for a `name` that cannot be used.
        """
        if name is not None:
            return self.reports / check_run_name(name)
        first, *others = dict.fromkeys(map(_easy_to_type, stems))
        joined = "-".join([first, *others])
        fits = len(joined) <= _LONGEST_JOINED
        return self.reports / (joined if fits else f"{first}-and-{len(others)}-more")

    def _numbered(self, stem: str) -> Iterator[Path]:
        yield self.runs / stem
        number = 2
        while True:
            yield self.runs / f"{stem}-{number}"
            number += 1


_LONGEST_STEM = 80
_LONGEST_JOINED = 100


def _easy_to_type(stem: str) -> str:
    """`stem`, such as a file's name, without what a shell or `check_run_name` would stumble over."""
    return re.sub(r"[^\w.+]+", "-", stem).lstrip(".-")[:_LONGEST_STEM].rstrip(".-") or "unnamed"
