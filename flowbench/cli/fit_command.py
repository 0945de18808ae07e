"""The command `flowbench fit`."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.fit_display import INTERRUPTED, command_line, label_of, print_config, watch_fit
from flowbench.cli.interruption import stop_on_signals
from flowbench.cli.option_groups import FitOptions, refuse_for_series, with_options
from flowbench.cli.progress_line import ProgressLine
from flowbench.cli.remarks import (
    describe_series_figures,
    resume_command,
    say_dequantised,
    say_periodic,
    say_support,
)
from flowbench.cli.standard_input import kept_stdin
from flowbench.errors import ConfigurationError

if TYPE_CHECKING:
    from flowbench.store import Run
    from flowbench.workflows.config import RunConfig
    from flowbench.workflows.series_config import SeriesConfig


@with_options()
def fit(
    context: typer.Context,
    dataset: opt.OptionalDatasetArgument = None,
    model: opt.ModelOption = None,
    *,
    options: FitOptions,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> int:
    """Learn the density of a data set, or, with --series and --time, of time series in it.

    Prints the folder of the new run. Ctrl-C stops training and keeps the best so far; `--resume` goes on.
    """
    from flowbench.workflows import config as configuration
    from flowbench.workflows import fit as fitting
    from flowbench.workflows import series_config, series_fit
    from flowbench.workflows.home import Home

    place, settings = Home(home), options.settings or ()
    if options.resume is not None:
        _refuse_others(context, "resume", "settings", "json", "home")
        run = place.run(options.resume)
        with ProgressLine(run.name) as line, stop_on_signals() as stop:
            watch = watch_fit(line, stop, lambda run: _how_to_resume(run, home))
            go_on = series_fit.resume_series if run.is_of_series else fitting.resume
            run = go_on(run, settings=settings, home=place, watch=watch)
        return _report_fit(run, home, json)
    overrides = options.overrides()
    dataset = kept_stdin(dataset, place.datasets) if dataset else None
    resolved: RunConfig | SeriesConfig
    if series_config.is_of_series(dataset, model, overrides, options.config):
        refuse_for_series(options)
        resolved = series_config.resolve_series(
            dataset, model, file=options.config, overrides=overrides, settings=settings
        )
    else:
        resolved = configuration.resolve(
            dataset, model, preset=options.preset, file=options.config, overrides=overrides, settings=settings
        )
        if options.schema is not None:
            from flowbench.workflows.schema_options import apply_schema

            (resolved,) = apply_schema([resolved], options.schema, place.datasets, terminal.say)
    if options.dry_run:
        print_config(resolved, json)
        return 0
    with ProgressLine(label_of(resolved)) as line, stop_on_signals() as stop:
        watch = watch_fit(line, stop, lambda run: _how_to_resume(run, home))
        told: dict[str, Any] = {"home": place, "name": options.name, "command": command_line()}
        if isinstance(resolved, series_config.SeriesConfig):
            run = series_fit.fit_series(resolved, watch=watch, **told)
        else:
            run = fitting.fit(resolved, watch=watch, **told)
    return _report_fit(run, home, json)


def _refuse_others(context: typer.Context, *allowed: str) -> None:
    """Refuse the options beside `--resume` that have no effect on it."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in allowed:
            given = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.opts[0].upper()
            raise ConfigurationError(f"`--resume` goes on with a run as it was; it takes no {given}")


def _report_fit(run: "Run", home: Path, json: bool) -> int:
    """Say how the fit ended and print the run's folder; returns the exit code."""
    info = run.info
    if run.is_of_series:
        return _report_series_fit(run, home, json)
    results = run.read_results() if run.has_results else None
    values = {name: metric.value for name, metric in results.metrics.items()} if results else {}
    certificates = results.certificates if results else {}
    if values:
        terminal.say(_summary(values))
        if "estimated" in (divergence := str(info.get("divergence", ""))):
            terminal.say(f"likelihoods while training, of validation too, had a divergence {divergence}")
        say_dequantised(list(run.dataset.get("lattices", {})))
        say_support(run.dataset.get("support", {}), run.dataset.get("atoms", {}))
        say_periodic(run.dataset.get("periodic", {}))
    for name, each in certificates.items():
        if not each.passed:
            verb = "fails" if each.settled else "cannot settle"
            terminal.say(f"{verb} the certificate {name}: {each.text}")
    answer = {
        "run": str(run.path),
        "status": info["status"],
        "metrics": values,
        "certificates": {name: vars(each) for name, each in certificates.items()},
    }
    terminal.print_answer(answer, str(run.path), json)
    if info["status"] != "interrupted":
        return 0
    terminal.say(_how_to_resume(run, home))
    return INTERRUPTED


def _report_series_fit(run: "Run", home: Path, json: bool) -> int:
    """Say how the fit of a model of series ended and print the run's folder; returns the exit code."""
    status = run.info["status"]
    values = {name: each.value for name, each in run.read_figures().items()} if run.has_results else {}
    if values:
        for line in describe_series_figures(values):
            terminal.say(line)
    terminal.print_answer({"run": str(run.path), "status": status, "metrics": values}, str(run.path), json)
    if status != "interrupted":
        return 0
    terminal.say(_how_to_resume(run, home))
    return INTERRUPTED


def _how_to_resume(run: "Run", home: Path) -> str:
    return f"interrupted; go on with `{resume_command(run, home)}`"


def _summary(metrics: dict[str, float]) -> str:
    """The figures that matter most, in one line."""
    error = metrics.get("test_nll_standard_error", float("nan"))
    parts = [f"test NLL {metrics['test_nll']:.4f} ± {error:.4f} nats"]
    if "test_nll_mass" in metrics:
        parts[0] += (
            f", of which {metrics['test_nll_mass']:.4f} are of the probability of the categories and "
            f"{metrics['test_nll_density']:.4f} of the density of the numbers given these"
        )
    if "test_rows_effective" in metrics:
        parts[0] += f", weighted, of {metrics['test_rows_effective']:,.1f} effective rows"
    if "kl_to_truth" in metrics:
        error = metrics.get("kl_to_truth_standard_error", float("nan"))
        parts.append(f"KL(true || model) {metrics['kl_to_truth']:.4f} ± {error:.4f} nats")
    if "nfe" in metrics:
        error = metrics.get("log_prob_error_largest", float("nan"))
        parts.append(f"nfe {metrics['nfe']:.0f}, largest error of a row {error:.1e} nats")
    if metrics.get("rows_above_max_error"):
        parts.append(f"{metrics['rows_above_max_error']:,.0f} rows may be off by more than `max_error`")
    return "; ".join(parts)
