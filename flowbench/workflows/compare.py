"""Compare models: fit those that are missing, then write a report on all."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from flowbench.errors import (
    ConfigurationError,
    DamagedFileError,
    FlowbenchError,
    RunFailedError,
    RunLockedError,
)
from flowbench.registry import MODELS
from flowbench.report import ReportPaths, write_report
from flowbench.store import Run, list_runs
from flowbench.training.trainer import make_objectives
from flowbench.workflows.config import DataOptions, RunConfig, SplitOptions, resolve
from flowbench.workflows.config_values import Values
from flowbench.workflows.dataset_rows import (
    find_circle,
    find_dequantiser,
    find_periods,
    given_levels,
    load_rows,
    set_atoms_aside,
    split_sizes,
)
from flowbench.workflows.fit import fit, resume
from flowbench.workflows.home import Home
from flowbench.workflows.judging import evaluate
from flowbench.workflows.preparation import Watch, build_flow, build_givens
from flowbench.workflows.running import asked_configuration

Tell = Callable[[str], None]


@dataclass(frozen=True)
class Comparison:
    """The finished `runs`, the `report` on them, and a line on each fit that failed in `failures`.

    `report` is None if a fit was interrupted. The same comparison later takes up what was fitted by then.
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
    on_warning: Tell = lambda text: None,
) -> Comparison:
    """Write a report into `folder` on one run for each configuration.

    A finished run of the same configuration on the same data is taken as it is. One that was interrupted,
    was killed or failed goes on from its last state. The other configurations are fitted. Then each run is
    evaluated, unless it was before. `on_warning` is told once of each folder among the runs that cannot be
    read, and so is passed over.

    Every data set is read, and every model built, before the first fit, so that a mistake in the last one
    shows at once. Raises as `fit` and `write_report` do, and `RunLockedError` if another process is fitting
    one of the configurations. If a fit fails and another does not, nothing is raised: the report names the
    one that failed as a run without results.
    """
    home = home or Home()
    checked = {cut: _check(*cut, configs, home) for cut in dict.fromkeys(map(_cut, configs))}
    passed_over: set[str] = set()

    def find(config: RunConfig) -> dict[str, Run]:
        sha256, sizes = checked[_cut(config)]
        found, warnings = find_runs(config.to_values(), sha256, home, sizes)
        for text in warnings:
            if text not in passed_over:
                passed_over.add(text)
                on_warning(text)
        return found

    for config in configs:
        found = find(config)
        _refuse_held(found, config)
        if "finished" not in found:
            MODELS.get(config.flow.name).check_packages()
    runs: list[Run] = []
    failures: list[tuple[RunConfig, RunFailedError]] = []
    told: set[tuple[DataOptions, str]] = set()
    for config in configs:
        found = find(config)
        run = found.get("finished")
        if run is None:
            _refuse_held(found, config)
            try:
                run = _go_on(found, config, home, watch(config)) or fit(
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
    lines = [f"{_describe(config)}: {error}" for config, error in failures]
    return Comparison(tuple(runs), report, tuple(lines))


def _describe(config: RunConfig) -> str:
    return f"{config.flow.name} (seed {config.seed}) on {config.data.dataset}"


def _refuse_held(found: Mapping[str, Run], config: RunConfig) -> None:
    """Raise `RunLockedError` if another process is at work on the only fit there is of a configuration."""
    if "running" in found and "finished" not in found:
        raise RunLockedError(_held(found["running"], config))


def _held(run: Run, config: RunConfig) -> str:
    return (
        f"another process is fitting {_describe(config)}, in the run `{run.name}` ({run.path}); wait for it "
        "to end, then compare again: what was fitted is not fitted twice"
    )


def _telling_once(watch: Watch, data: DataOptions, told: set[tuple[DataOptions, str]]) -> Watch:
    """`watch`, except that it is told what is wrong with a table only for the first model on that table."""

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
    """The sha256 of a data set, and how many rows each part of its split has.

    Raises if the data set cannot be read, or if a model of `configs` cannot be trained on it.
    """
    alike = [config for config in configs if _cut(config) == (data, split)]
    dataset, parts = load_rows(alike[0], home.datasets)
    dataset = set_atoms_aside(alike[0], dataset, parts)
    periods, dataset = find_periods(alike[0], dataset)
    find_circle(periods, dataset)
    find_dequantiser(alike[0], dataset, parts)
    for config in alike:
        givens = build_givens(config, dataset.given, given_levels(dataset), periods)
        make_objectives(
            config.plan, build_flow(config, len(dataset.target_names), givens.width if givens else 0)
        )
    return dataset.provenance.sha256, split_sizes(parts)


def _go_on(found: Mapping[str, Run], config: RunConfig, home: Home, watch: Watch) -> Run | None:
    """Resume the first of the runs `found` that can be: one interrupted, killed or failed.

    Returns None if there is none, or if each is damaged. Raises `RunLockedError` if another process has
    taken one up.
    """
    for run in (found[status] for status in ("interrupted", "killed", "failed") if status in found):
        try:
            return resume(run, home=home, watch=watch)
        except RunLockedError as error:
            raise RunLockedError(_held(run, config)) from error
        except DamagedFileError as error:  # it may be of another version
            watch.on_warning(f"fitting anew: {error}")
    return None


def _evaluate(run: Run, home: Home, watch: Watch) -> None:
    """Judge a run's draws; if that fails or another process holds the run, the report goes without."""
    watch.on_stage("evaluating samples and calibration")
    try:
        evaluate(run, home=home)
    except (RunLockedError, ConfigurationError, RunFailedError) as error:
        watch.on_warning(f"samples and calibration are left out: {error}")


def find_runs(
    values: Values, sha256: str, home: Home, sizes: Mapping[str, int] | None = None
) -> tuple[dict[str, Run], list[str]]:
    """The newest run of exactly this configuration and data for each status, and what was passed over.

    `sha256` is that of the data. The statuses are those of `Run.status`. A finished run that has lost its
    results is left out, and so is one whose split has other `sizes`: its test rows are not those that the
    data set has now. For each folder that cannot be read, there is a line that names it and says why.
    """
    found: dict[str, Run] = {}
    runs, warnings = list_runs(home.runs)
    for run in runs:
        try:
            status = _status_of(run, values, sha256, sizes)
        except FlowbenchError as error:
            warnings.append(str(error))
        else:
            if status is not None:
                found.setdefault(status, run)
    return found, [f"passed over: {warning}" for warning in warnings]


def _status_of(run: Run, values: Values, sha256: str, sizes: Mapping[str, int] | None) -> str | None:
    """The status of a run, if it has these values and data and its parts have these sizes; None otherwise.

    Raises `DamagedFileError` if the folder does not tell.
    """
    if asked_configuration(run) != values:
        return None
    recorded, status = run.dataset.get("sha256"), run.status
    if not isinstance(recorded, str) or not status:
        raise DamagedFileError(
            f"{run.path / 'run.json'} does not say which data the run is of, or how it ended: it was "
            "changed, or is of another version of flowbench"
        )
    if recorded != sha256 or (sizes is not None and run.info.get("split") not in (None, sizes)):
        return None
    return None if status == "finished" and not run.has_results else status
