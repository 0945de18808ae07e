"""Compare models of time series: fit those that are missing, then write a report on all."""

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from flowbench.data import Split
from flowbench.data.series_dataset import SeriesDataset
from flowbench.errors import DamagedFileError, RunFailedError
from flowbench.report import write_series_report
from flowbench.store import Run
from flowbench.training.trainer import make_objectives
from flowbench.workflows.compare import Comparison, Tell, find_runs
from flowbench.workflows.dataset_rows import split_sizes
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch
from flowbench.workflows.series_config import SeriesConfig, resolve_series
from flowbench.workflows.series_fit import build_model, fit_series, load_split, resume_series


def series_configs(
    datasets: Sequence[str],
    models: Sequence[str],
    seeds: Sequence[int],
    *,
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> list[SeriesConfig]:
    """One configuration for each data set, model and seed; raises as `resolve_series` does."""
    return [
        resolve_series(
            dataset, model, file=file, overrides={**(overrides or {}), "seed": seed}, settings=settings
        )
        for dataset in dict.fromkeys(datasets)
        for model in models
        for seed in seeds
    ]


def compare_series(
    configs: Sequence[SeriesConfig],
    folder: Path,
    *,
    home: Home | None = None,
    command: Sequence[str] = (),
    watch: Callable[[SeriesConfig], Watch] = lambda config: Watch(),
    on_warning: Tell = lambda text: None,
) -> Comparison:
    """Write a report into `folder` on one run for each configuration.

    As `flowbench.workflows.compare.compare`: finished runs are taken as they are, others go on or are fitted.
    """
    home = home or Home()
    # Every data set is read once, and every model built, before the first fit.
    read: dict[Any, tuple[SeriesDataset, Split]] = {}
    for config in configs:
        cut = config.data, config.split
        if cut not in read:
            read[cut] = load_split(config, home.datasets)
        make_objectives(config.plan, build_model(config, read[cut][0].column_names).model)
    known = {cut: (table.provenance.sha256, split_sizes(split)) for cut, (table, split) in read.items()}
    del read
    runs: list[Run] = []
    failures: list[str] = []
    for config in configs:
        sha256, sizes = known[config.data, config.split]
        found, warnings = find_runs(config.to_values(), sha256, home, sizes)
        for text in warnings:
            on_warning(text)
        run = found.get("finished")
        if run is None:
            try:
                run = _go_on(found, home, watch(config)) or fit_series(
                    config, home=home, command=command, watch=watch(config)
                )
            except RunFailedError as error:
                failures.append(f"{config.model_name} (seed {config.seed}) on {config.data.dataset}: {error}")
                continue
            if run.info["status"] != "finished":
                return Comparison((*runs, run), None)
        runs.append(run)
    if not runs:
        raise RunFailedError("; ".join(failures))
    return Comparison(tuple(runs), write_series_report(runs, folder), tuple(failures))


def _go_on(found: Mapping[str, Run], home: Home, watch: Watch) -> Run | None:
    """Resume the first of the runs that can be; None if there is none."""
    for run in (found[status] for status in ("interrupted", "killed", "failed") if status in found):
        try:
            return resume_series(run, home=home, watch=watch)
        except DamagedFileError as error:
            watch.on_warning(f"fitting anew: {error}")
    return None
