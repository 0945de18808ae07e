"""Fit what is missing, then set the models side by side."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowbench.errors import ConfigurationError, DamagedFileError, RunFailedError, RunLockedError
from flowbench.registry import MODELS
from flowbench.report import ReportPaths, write_report
from flowbench.store import Run, list_runs
from flowbench.training.trainer import make_objectives
from flowbench.workflows.config import DataOptions, RunConfig, SplitOptions, Values, resolve
from flowbench.workflows.fit import asked_configuration, fit, resume, split_sizes
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch, build_model, find_dequantiser, load_rows
from flowbench.workflows.use import evaluate


@dataclass(frozen=True)
class Comparison:
    """The `runs` that are finished, the `report` on them, and a line on each fit that failed in `failures`.

    `report` is None where a fit was interrupted; what there is by then is found again next time.
    """

    runs: tuple[Run, ...]
    report: ReportPaths | None
    failures: tuple[str, ...] = ()


def comparison_configs(
    datasets: Sequence[str],
    models: Sequence[str],
    seeds: Sequence[int],
    *,
    preset: str = "default",
    file: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    settings: Sequence[str] = (),
) -> list[RunConfig]:
    """One configuration for each data set, model and seed, in this order.

    The options are those of `flowbench.workflows.config.resolve`. A model without the `preset` gets the
    default one. Raises `ConfigurationError` as `resolve` does, if no model has the `preset`, and if
    `settings` choose another data set, model or seed.
    """
    if preset != "default" and not any(preset in MODELS.get(model).presets for model in models):
        raise ConfigurationError(f"none of the models has a preset `{preset}`; leave `--preset` out")
    chosen = [
        (dataset, model, seed) for dataset in dict.fromkeys(datasets) for model in models for seed in seeds
    ]
    configs = [
        resolve(
            dataset,
            model,
            preset=preset if preset in MODELS.get(model).presets else "default",
            file=file,
            overrides={**(overrides or {}), "seed": seed},
            settings=settings,
        )
        for dataset, model, seed in chosen
    ]
    # A single fit may be of whatever `settings` say.
    if [(one.data.dataset, one.flow.name, one.seed) for one in configs] != chosen and len(chosen) > 1:
        raise ConfigurationError(
            "`--set` changes the data set, the model or the seed of a comparison, which the arguments, "
            "`--models` and `--seeds` choose; leave it out"
        )
    return configs


def compare(
    configs: Sequence[RunConfig],
    folder: Path,
    *,
    home: Home | None = None,
    command: Sequence[str] = (),
    watch: Callable[[RunConfig], Watch] = lambda config: Watch(),
) -> Comparison:
    """A report in `folder` on one run for each configuration.

    A finished run of the same configuration on the same data is taken as it is, one that was interrupted, was
    killed or failed goes on from its last state, the others are fitted, and those that were not evaluated
    are. Every data set is read, and every model built, before the first fit, so that a mistake in the last
    one is not told hours later. Raises as `fit` and `write_report` do, but for a fit that fails beside others
    that do not: it is in the report as one without results.
    """
    home = home or Home()
    checked = {cut: _check(*cut, configs, home) for cut in dict.fromkeys(map(_cut, configs))}

    def find(config: RunConfig) -> dict[str, Run]:
        sha256, sizes = checked[_cut(config)]
        return find_runs(config, sha256, home, sizes)

    runs: list[Run] = []
    failures: list[tuple[RunConfig, RunFailedError]] = []
    told: set[tuple[DataOptions, str]] = set()
    for config in configs:
        found = find(config)
        run = found.get("finished")
        if run is None:
            try:
                run = _go_on(found, home, watch(config)) or fit(
                    config, home=home, command=command, watch=_telling_once(watch(config), config.data, told)
                )
            except RunFailedError as error:
                failures.append((config, error))
                continue
            if run.info["status"] != "finished":
                return Comparison((*runs, run), None)
        if run.read_results().calibration is None:
            _evaluate(run, home, watch(config))
        runs.append(run)
    if not runs:
        raise failures[0][1]
    failed = [find(config).get("failed") for config, _ in failures]
    report = write_report([*runs, *filter(None, failed)], folder)
    lines = [
        f"{config.flow.name} (seed {config.seed}) on {config.data.dataset}: {e}" for config, e in failures
    ]
    return Comparison(tuple(runs), report, tuple(lines))


def _telling_once(watch: Watch, data: DataOptions, told: set[tuple[DataOptions, str]]) -> Watch:
    """`watch`, but for what is wrong with a table and was `told` of it for another model already."""

    def tell(text: str) -> None:
        if (data, text) not in told:
            told.add((data, text))
            (watch.on_table or watch.on_warning)(text)

    return replace(watch, on_table=tell)


def _cut(config: RunConfig) -> tuple[DataOptions, SplitOptions]:
    """A data set and how it is split."""
    return config.data, config.split


def _check(
    data: DataOptions, split: SplitOptions, configs: Sequence[RunConfig], home: Home
) -> tuple[str, dict[str, int]]:
    """The sum of a data set, and the sizes of the parts that it is split into.

    Raises if it cannot be read, or if a model that it is for cannot be trained.
    """
    alike = [config for config in configs if _cut(config) == (data, split)]
    dataset, parts = load_rows(alike[0], home.datasets)
    find_dequantiser(alike[0], dataset, parts)
    for config in alike:
        make_objectives(config.plan, build_model(config, dataset.column_names).flow)
    return dataset.provenance.sha256, split_sizes(parts)


def _go_on(found: Mapping[str, Run], home: Home, watch: Watch) -> Run | None:
    """Of the runs `found`, by status, one that was interrupted, killed or failed, resumed, if one can be."""
    for run in (found[status] for status in ("interrupted", "running", "failed") if status in found):
        try:
            return resume(run, home=home, watch=watch)
        except (RunLockedError, DamagedFileError) as error:  # under way, or of another version
            watch.on_warning(f"fitting anew: {error}")
    return None


def _evaluate(run: Run, home: Home, watch: Watch) -> None:
    """Judge a run's draws, unless that fails or somebody else is writing to it: the report does without."""
    watch.on_stage("evaluating samples and calibration")
    try:
        evaluate(run, home=home)
    except (RunLockedError, ConfigurationError, RunFailedError) as error:
        watch.on_warning(f"samples and calibration are left out: {error}")


def find_runs(
    config: RunConfig, sha256: str, home: Home, sizes: Mapping[str, int] | None = None
) -> dict[str, Run]:
    """By the status in which it is, the newest run of exactly this configuration on data with this sum.

    A finished one that has lost its results is left out, and so is one whose split had other `sizes`: its
    test rows are not those that the data set has now.
    """
    values = config.to_values()
    found: dict[str, Run] = {}
    for run in list_runs(home.runs)[0]:
        status = _status_of(run, values, sha256, sizes)
        if status is not None:
            found.setdefault(status, run)
    return found


def _status_of(run: Run, values: Values, sha256: str, sizes: Mapping[str, int] | None) -> str | None:
    """The status of a run, if it is of these values, data and, where they are given, sizes of its parts."""
    try:
        info = run.info
        same = asked_configuration(run) == values and info["dataset"]["sha256"] == sha256
        same = same and (sizes is None or info.get("split") in (None, sizes))
        usable = info["status"] != "finished" or run.has_results
        return str(info["status"]) if same and usable else None
    except (DamagedFileError, KeyError, TypeError):  # somebody else's folder, or another version's
        return None
