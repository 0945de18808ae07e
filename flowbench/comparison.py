"""Fit what is missing, then set the models side by side."""

from collections.abc import Callable, Sequence
from pathlib import Path

from flowbench.config import DataOptions, RunConfig, Values
from flowbench.data import load_dataset
from flowbench.errors import ConfigurationError, DamagedFileError, RunLockedError
from flowbench.experiment import Watch, fit
from flowbench.home import Home
from flowbench.inference import evaluate
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

    A finished run of the same configuration on the same data is taken as it is; the others are fitted, and
    those that were not evaluated are. The report is None where a fit was interrupted; what is finished by
    then is found again next time. Every data set is read before the first fit, so that a mistake in the last
    one is not told hours later. Raises as `fit` and `write_report` do.
    """
    home = home or Home()
    sha256 = {data: _sha256(data, home) for data in dict.fromkeys(config.data for config in configs)}
    runs: list[Run] = []
    for config in configs:
        run = find_run(config, sha256[config.data], home)
        if run is None:
            run = fit(config, home=home, command=command, watch=watch(config))
            if run.info["status"] != "finished":
                return [*runs, run], None
        if run.read_results().calibration is None:
            _evaluate(run, home, watch(config))
        runs.append(run)
    return runs, write_report(runs, folder)


def _evaluate(run: Run, home: Home, watch: Watch) -> None:
    """Judge a run's draws, unless somebody else is writing to it or nobody may: the report does without."""
    watch.on_stage("evaluating samples and calibration")
    try:
        evaluate(run, home=home)
    except (RunLockedError, ConfigurationError) as error:
        watch.on_stage(f"samples and calibration are left out: {error}")


def find_run(config: RunConfig, sha256: str, home: Home) -> Run | None:
    """The newest finished run of exactly this configuration on data with this sum, if there is one."""
    values = config.to_values()
    return next((run for run in list_runs(home.runs)[0] if _is_of(run, values, sha256)), None)


def _is_of(run: Run, values: Values, sha256: str) -> bool:
    try:
        info = run.info
        same = run.config == values and info["dataset"]["sha256"] == sha256
        return same and info["status"] == "finished" and run.has_results
    except (DamagedFileError, KeyError, TypeError):  # somebody else's folder, or another version's
        return False


def _sha256(data: DataOptions, home: Home) -> str:
    dataset = load_dataset(
        data.dataset, columns=data.columns, rows=data.rows, seed=data.seed, folder=home.datasets
    )
    return dataset.provenance.sha256
