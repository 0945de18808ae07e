"""Fit what is missing, then set the models side by side."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flowbench.config import RunConfig
from flowbench.data import load_dataset
from flowbench.experiment import Watch, fit
from flowbench.home import Home
from flowbench.report import ReportPaths, write_report
from flowbench.store import Run, list_runs


def compare(
    configs: Sequence[RunConfig],
    folder: Path,
    *,
    home: Home | None = None,
    command: Sequence[str] = (),
    watch: Callable[[RunConfig], Watch] = lambda config: Watch(),
) -> tuple[list[Run], ReportPaths | None]:
    """A report in `folder` on one run for each configuration.

    A finished run of the same configuration on the same data is taken as it is; the others are fitted. The
    report is None where a fit was interrupted; what is finished by then is found again next time.
    """
    home = home or Home()
    runs: list[Run] = []
    for config in configs:
        run = find_run(config, home)
        if run is None:
            run = fit(config, home=home, command=command, watch=watch(config))
            if run.info["status"] != "finished":
                return [*runs, run], None
        runs.append(run)
    return runs, write_report(runs, folder)


def find_run(config: RunConfig, home: Home) -> Run | None:
    """The newest finished run of exactly this configuration on exactly these data, if there is one."""
    values = config.to_values()
    matching = [
        run
        for run in list_runs(home.runs)[0]
        if run.info.get("status") == "finished" and run.has_results and run.config == values
    ]
    if not matching:
        return None
    data = config.data
    dataset = load_dataset(
        data.dataset, columns=data.columns, rows=data.rows, seed=data.seed, folder=home.datasets
    )
    sha256 = dataset.provenance.sha256
    return next((run for run in matching if run.info["dataset"]["sha256"] == sha256), None)
