"""Reports from run folders: figures, tables and pages; reads the store only, and imports no torch."""

from collections.abc import Sequence
from pathlib import Path

from flowbench.errors import ConfigurationError
from flowbench.report.pages import ReportPaths, write_report
from flowbench.report.series_report import write_series_report
from flowbench.store import Run

__all__ = ["ReportPaths", "write_any_report", "write_report", "write_series_report"]


def write_any_report(runs: Sequence[Run], folder: Path) -> ReportPaths:
    """The report on `runs`, all of them on rows or all of them on time series.

    Raises `ConfigurationError` for runs of both kinds, and as `write_report` does.
    """
    of_series = [run for run in runs if run.is_of_series]
    if not of_series:
        return write_report(runs, folder)
    if len(of_series) < len(runs):
        other = next(run for run in runs if not run.is_of_series)
        raise ConfigurationError(
            f"`{of_series[0].name}` is of time series and `{other.name}` of rows, which cannot be compared; "
            "write a report on each kind"
        )
    return write_series_report(runs, folder)
