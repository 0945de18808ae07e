"""The commands that write a report on several runs: compare, report."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.fit_display import INTERRUPTED, command_line, label_of, print_config, watch_fit
from flowbench.cli.interruption import stop_on_signals
from flowbench.cli.option_groups import FitOptions, refuse_for_series, split_names, with_options
from flowbench.cli.progress_line import ProgressLine
from flowbench.cli.standard_input import kept_stdin

if TYPE_CHECKING:
    from flowbench.workflows.config import RunConfig
    from flowbench.workflows.preparation import Watch
    from flowbench.workflows.series_config import SeriesConfig

#: What is compared unless models are named.
DEFAULT_MODELS = ("cnf", "planar", "gaussian")
DEFAULT_SERIES_MODELS = ("latent-ode", "rnn-dt", "gp")


@with_options(without=("seed", "name", "resume"))
def compare(
    datasets: opt.DatasetsArgument,
    models: opt.ModelsOption = None,
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each model, with seeds 0, 1, ...")] = 1,
    name: opt.ReportNameOption = None,
    *,
    options: FitOptions,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> int:
    """Fit what is missing, then report on all.

    Prints the path of the report. A preset applies to the models that have it.
    """
    from flowbench.data import TableFile, table_stem
    from flowbench.workflows.compare import compare as compare_runs
    from flowbench.workflows.compare import comparison_configs
    from flowbench.workflows.home import Home
    from flowbench.workflows.series_compare import compare_series, series_configs
    from flowbench.workflows.series_config import is_of_series

    place = Home(home)
    overrides, chosen = options.overrides(), split_names(models, "--models")
    datasets = [kept_stdin(dataset, place.datasets) for dataset in datasets]
    told: dict[str, Any] = {
        "file": options.config,
        "overrides": overrides,
        "settings": options.settings or (),
    }
    named = (*(chosen or []), None)[0]
    configs: Sequence[RunConfig | SeriesConfig]
    if any(is_of_series(dataset, named, overrides, options.config) for dataset in datasets):
        refuse_for_series(options)
        configs = series_configs(datasets, chosen or DEFAULT_SERIES_MODELS, range(seeds), **told)
        carry_out: Any = compare_series
    else:
        of_rows = comparison_configs(
            datasets, chosen or DEFAULT_MODELS, range(seeds), preset=options.preset, **told
        )
        if options.schema is not None:
            from flowbench.workflows.schema_options import apply_schema

            of_rows = apply_schema(of_rows, options.schema, place.datasets, terminal.say)
        configs = of_rows
        carry_out = compare_runs
    folder = place.report_path(name, [table_stem(TableFile.of(dataset)) for dataset in datasets])
    if options.dry_run:
        return _print_configs(configs, json)
    farewell = "interrupted before the report; the same command goes on from here"
    with ProgressLine(folder.name) as line, stop_on_signals() as stop:

        def watch(config: "RunConfig | SeriesConfig") -> "Watch":
            line.begin(label_of(config))
            return watch_fit(line, stop, lambda run: farewell)

        stop.farewell = farewell
        compared = carry_out(
            configs, folder, home=place, command=command_line(), watch=watch, on_warning=terminal.warn
        )
    if compared.report is None:
        terminal.say(farewell)
        return INTERRUPTED
    for failure in compared.failures:
        terminal.say(f"failed, and is not compared: {failure}")
    page = str(compared.report.html)
    terminal.print_answer({"report": page, "runs": [str(run.path) for run in compared.runs]}, page, json)
    return 1 if compared.failures else 0


def report(
    runs: opt.RunsArgument,
    output: opt.OutputFolderOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Write a report on runs that are there.

    Prints the path of its page, beside which the same is found as Markdown and JSON.
    """
    from flowbench.report import write_any_report
    from flowbench.workflows.home import Home

    place = Home(home)
    opened = [place.run(run) for run in dict.fromkeys(runs)]
    paths = write_any_report(opened, output or place.report_path(None, [run.name for run in opened]))
    page = str(paths.html)
    terminal.print_answer({"report": page, "runs": [str(run.path) for run in opened]}, page, json)


def _print_configs(configs: Sequence["RunConfig | SeriesConfig"], json: bool) -> int:
    """Print the configurations of a comparison: a JSON list, or TOML under a headline each."""
    if json:
        terminal.print_json([config.to_values() for config in configs])
        return 0
    for number, config in enumerate(configs):
        terminal.print_text(("\n" if number else "") + f"# {terminal.cleaned(label_of(config))}")
        print_config(config, json)
    return 0
