"""The command line: the only place that parses arguments, prints, or exits."""

import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from typer.exceptions import TyperException

from flowbench import __version__, errors
from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.listing import datasets_app, resume_command, runs_app
from flowbench.cli.using import evaluate, sample, say_dequantised, score, tradeoff
from flowbench.registry import MODELS

if TYPE_CHECKING:
    from flowbench.store import Run
    from flowbench.workflows.config import RunConfig
    from flowbench.workflows.preparation import Watch

app = typer.Typer(pretty_exceptions_enable=False, rich_markup_mode=None)
app.add_typer(datasets_app, name="datasets")
app.add_typer(runs_app, name="runs")

#: Most specific first.
EXIT_CODES: tuple[tuple[type[Exception], int], ...] = (
    (errors.RunFailedError, 1),
    (errors.ConfigurationError, 2),
    (errors.DataError, 3),
    (errors.RunExistsError, 4),
    (errors.RunLockedError, 4),
    (errors.DamagedFileError, 5),
)
FAILED, USAGE, INTERNAL, INTERRUPTED = 1, 2, 70, 130


def main() -> None:
    """Run the command line and exit with the documented code."""
    # A path need not be text that the terminal's encoding has.
    sys.stdout.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    sys.exit(run_app(sys.argv[1:]))


def run_app(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; a mistake of the user's becomes one line on stderr."""
    try:
        code = app(list(arguments) or ["--help"], prog_name="flowbench", standalone_mode=False)
        return int(code or 0)
    except TyperException as error:
        command = getattr(getattr(error, "ctx", None), "command_path", "flowbench")
        terminal.say(f"error: {error.format_message().rstrip('.')}; see `{command} --help`")
        return USAGE
    except errors.FlowbenchError as error:
        terminal.say(f"error: {error}")
        return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), INTERNAL)
    except Exception as error:
        if os.environ.get("FLOWBENCH_DEBUG"):
            traceback.print_exc()
        if _is_out_of_memory(error):
            terminal.say("error: out of memory; use fewer rows, a smaller model or a smaller `batch_size`")
            return FAILED
        hint = "set FLOWBENCH_DEBUG=1 for the traceback, and please report it"
        terminal.say(f"internal error: {type(error).__name__}: {error}; {hint}")
        return INTERNAL


def _is_out_of_memory(error: Exception) -> bool:
    # torch raises a RuntimeError of its own, and a subclass of it on a GPU.
    texts = ("can't allocate memory", "out of memory")
    return isinstance(error, MemoryError) or any(text in str(error) for text in texts)


def _print_version(wanted: bool) -> None:
    if wanted:
        terminal.write(f"flowbench {__version__}")
        raise typer.Exit


@app.callback()
def main_options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version and stop."),
    ] = False,
) -> None:
    """Learn a table's density with continuous normalizing flows, and compare them with others."""


@app.command()
@opt.with_reading()
def fit(
    context: typer.Context,
    dataset: opt.OptionalDatasetArgument = None,
    model: opt.ModelOption = None,
    preset: opt.PresetOption = "default",
    time_budget: opt.BudgetOption = None,
    steps: opt.StepsOption = None,
    columns: opt.ColumnsOption = None,
    reading: opt.Reading = opt.NOTHING,
    dequantise: opt.DequantiseOption = None,
    rows: opt.RowsOption = None,
    seed: opt.SeedOption = None,
    name: opt.NameOption = None,
    resume: opt.ResumeOption = None,
    config: opt.ConfigOption = None,
    settings: opt.SetOption = None,
    threads: opt.ThreadsOption = None,
    device: opt.DeviceOption = None,
    dry_run: opt.DryRunOption = False,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> int:
    """Learn the density of a data set.

    Prints the folder of the new run. Ctrl-C stops training and keeps the best so far; `--resume` goes on.
    """
    from flowbench.workflows import config as configuration
    from flowbench.workflows import fit as fitting
    from flowbench.workflows.home import Home

    place = Home(home)
    if resume is not None:
        _refuse_others(context, "resume", "settings", "json", "home")
        run = place.run(resume)
        with terminal.ProgressLine(run.name) as line, terminal.stop_on_signals() as stop:
            watch = _watch(line, stop, lambda run: _how_to_resume(run, home))
            run = fitting.resume(run, settings=settings or (), home=place, watch=watch)
        return _report_fit(run, home, json)
    dataset = opt.kept_stdin(dataset, place.datasets) if dataset else None
    overrides = opt.overrides(time_budget, steps, columns, dequantise, rows, threads, device, seed, reading)
    resolved = configuration.resolve(
        dataset, model, preset=preset, file=config, overrides=overrides, settings=settings or ()
    )
    if dry_run:
        return _print_config(resolved, json)
    with terminal.ProgressLine(_label(resolved)) as line, terminal.stop_on_signals() as stop:
        watch = _watch(line, stop, lambda run: _how_to_resume(run, home))
        run = fitting.fit(resolved, home=place, name=name, command=_command(), watch=watch)
    return _report_fit(run, home, json)


for _command_of_a_run in (sample, score, evaluate, tradeoff):
    app.command()(_command_of_a_run)


@app.command()
@opt.with_reading()
def compare(
    datasets: opt.DatasetsArgument,
    models: opt.ModelsOption = "cnf,planar,gaussian",
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each model, with seeds 0, 1, ...")] = 1,
    name: opt.ReportNameOption = None,
    preset: opt.PresetOption = "default",
    time_budget: opt.BudgetOption = None,
    steps: opt.StepsOption = None,
    columns: opt.ColumnsOption = None,
    reading: opt.Reading = opt.NOTHING,
    dequantise: opt.DequantiseOption = None,
    rows: opt.RowsOption = None,
    config: opt.ConfigOption = None,
    settings: opt.SetOption = None,
    threads: opt.ThreadsOption = None,
    device: opt.DeviceOption = None,
    dry_run: opt.DryRunOption = False,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> int:
    """Fit what is missing, then report on all.

    Prints the path of the report. A preset applies to the models that have it.
    """
    from flowbench.data import TableFile, table_stem
    from flowbench.workflows import config as configuration
    from flowbench.workflows.compare import compare as compare_runs
    from flowbench.workflows.home import Home

    place = Home(home)
    datasets = [opt.kept_stdin(dataset, place.datasets) for dataset in datasets]
    chosen = opt.listed(models, "--models") or []
    if preset != "default" and not any(preset in MODELS.get(model).presets for model in chosen):
        raise errors.ConfigurationError(f"none of the models has a preset `{preset}`; leave `--preset` out")
    told = [
        (dataset, model, seed)
        for dataset in dict.fromkeys(datasets)
        for model in chosen
        for seed in range(seeds)
    ]
    configs = [
        configuration.resolve(
            dataset,
            model,
            preset=preset if preset in MODELS.get(model).presets else "default",
            file=config,
            overrides=opt.overrides(
                time_budget, steps, columns, dequantise, rows, threads, device, seed, reading
            ),
            settings=settings or (),
        )
        for dataset, model, seed in told
    ]
    if [(one.data.dataset, one.flow.name, one.seed) for one in configs] != told and len(told) > 1:
        raise errors.ConfigurationError(
            "`--set` changes the data set, the model or the seed of a comparison, which the arguments, "
            "`--models` and `--seeds` choose; leave it out"
        )
    folder = place.report_path(name, [table_stem(TableFile.of(dataset)) for dataset in datasets])
    if dry_run:
        return _print_configs(configs, json)
    farewell = "interrupted before the report; the same command goes on from here"
    with terminal.ProgressLine(folder.name) as line, terminal.stop_on_signals() as stop:

        def watch(resolved: "RunConfig") -> "Watch":
            line.begin(_label(resolved))
            return _watch(line, stop, lambda run: farewell)

        stop.farewell = farewell
        compared = compare_runs(configs, folder, home=place, command=_command(), watch=watch)
    if compared.report is None:
        terminal.say(farewell)
        return INTERRUPTED
    for failure in compared.failures:
        terminal.say(f"failed, and is not compared: {failure}")
    page = str(compared.report.html)
    terminal.answer({"report": page, "runs": [str(run.path) for run in compared.runs]}, page, json)
    return FAILED if compared.failures else 0


@app.command()
def report(
    runs: opt.RunsArgument,
    output: opt.OutputFolderOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Write a report on runs that are there.

    Prints the path of its page, beside which the same is found as Markdown and JSON.
    """
    from flowbench.report import write_report
    from flowbench.workflows.home import Home

    place = Home(home)
    opened = [place.run(run) for run in dict.fromkeys(runs)]
    paths = write_report(opened, output or place.report_path(None, [run.name for run in opened]))
    terminal.answer(
        {"report": str(paths.html), "runs": [str(run.path) for run in opened]}, str(paths.html), json
    )


@app.command()
def doctor(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> int:
    """Check this machine, in ten to twenty seconds.

    Looks at versions, devices and write access, and makes a small fit whose answer is known.
    """
    from flowbench.workflows.doctor import examine
    from flowbench.workflows.home import Home

    checks = examine(Home(home))
    if json:
        terminal.write_json([asdict(check) for check in checks])
    else:
        terminal.write_table(
            ("check", "verdict", "detail"),
            [(c.name, "ok" if c.passed else "FAILED", c.detail) for c in checks],
        )
    return 0 if all(check.passed for check in checks) else FAILED


def _refuse_others(context: typer.Context, *allowed: str) -> None:
    """Refuse options beside `--resume` that it would not heed."""
    for parameter in context.command.params:
        source = context.get_parameter_source(parameter.name or "")
        if source is not None and source.name == "COMMANDLINE" and parameter.name not in allowed:
            given = parameter.opts[0] if parameter.opts[0].startswith("-") else parameter.opts[0].upper()
            raise errors.ConfigurationError(f"`--resume` goes on with a run as it was; it takes no {given}")


def _watch(
    line: terminal.ProgressLine, stop: terminal.StopRequest, farewell: Callable[["Run"], str]
) -> "Watch":
    from flowbench.workflows.preparation import Watch

    def start(run: "Run") -> None:
        terminal.say(f"run folder: {run.path}")
        stop.training, stop.farewell = True, farewell(run)

    def stage(name: str) -> None:
        stop.training = False
        line.stage(name)

    return Watch(
        on_preparation=line.prepare,
        on_start=start,
        on_progress=line.update,
        on_stage=stage,
        on_warning=line.warn,
        should_stop=stop,
    )


def _report_fit(run: "Run", home: Path, json: bool) -> int:
    info = run.info
    results = run.read_results() if run.has_results else None
    values = {name: metric.value for name, metric in results.metrics.items()} if results else {}
    certificates = results.certificates if results else {}
    if values:
        terminal.say(_summary(values))
        if "estimated" in (divergence := str(info.get("divergence", ""))):
            terminal.say(f"likelihoods while training, of validation too, had a divergence {divergence}")
        say_dequantised(list(run.dataset.get("lattices", {})))
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
    terminal.answer(answer, str(run.path), json)
    if info["status"] != "interrupted":
        return 0
    terminal.say(_how_to_resume(run, home))
    return INTERRUPTED


def _how_to_resume(run: "Run", home: Path) -> str:
    return f"interrupted; go on with `{resume_command(run, home)}`"


def _summary(metrics: dict[str, float]) -> str:
    error = metrics.get("test_nll_standard_error", float("nan"))
    parts = [f"test NLL {metrics['test_nll']:.4f} ± {error:.4f} nats"]
    if "kl_to_truth" in metrics:
        error = metrics.get("kl_to_truth_standard_error", float("nan"))
        parts.append(f"KL(true || model) {metrics['kl_to_truth']:.4f} ± {error:.4f} nats")
    if "nfe" in metrics:
        error = metrics.get("log_prob_error_largest", float("nan"))
        parts.append(f"nfe {metrics['nfe']:.0f}, largest error of a row {error:.1e} nats")
    if metrics.get("rows_above_max_error"):
        parts.append(f"{metrics['rows_above_max_error']:,.0f} rows may be off by more than `max_error`")
    return "; ".join(parts)


def _print_config(config: "RunConfig", json: bool) -> int:
    if json:
        terminal.write_json(config.to_values())
    else:
        terminal.write_toml(config.to_values())
    return 0


def _print_configs(configs: Sequence["RunConfig"], json: bool) -> int:
    if json:
        terminal.write_json([config.to_values() for config in configs])
        return 0
    for number, config in enumerate(configs):
        terminal.write(("\n" if number else "") + f"# {terminal.cleaned(_label(config))}")
        _print_config(config, json)
    return 0


def _label(config: "RunConfig") -> str:
    return f"{Path(config.data.dataset).name} {config.flow.name} (seed {config.seed})"


def _command() -> list[str]:
    return ["flowbench", *sys.argv[1:]]
