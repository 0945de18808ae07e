"""The command line: the only place that parses arguments, prints, or exits."""

import os
import re
import sys
import traceback
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.exceptions import TyperException

from flowbench import cli_options as opt
from flowbench import errors, terminal
from flowbench.cli_listing import datasets_app, runs_app
from flowbench.registry import FLOWS

if TYPE_CHECKING:
    from flowbench.config import RunConfig
    from flowbench.experiment import Watch
    from flowbench.store import Run

app = typer.Typer(no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="rich")
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
INTERNAL, INTERRUPTED = 70, 130


def main() -> None:
    """Run the command line and exit with the documented code."""
    sys.exit(run_app(sys.argv[1:]))


def run_app(arguments: Sequence[str]) -> int:
    """Run one command and return its exit code; a mistake of the user's becomes one line on stderr."""
    try:
        code = app(list(arguments), standalone_mode=False)
        sys.stdout.flush()
        return int(code or 0)
    except TyperException as error:
        text = error.format_message() if hasattr(error, "format_message") else str(error)
        terminal.say(f"error: {text.rstrip('.')}; see `flowbench --help`")
        return 2
    except errors.FlowbenchError as error:
        terminal.say(f"error: {error}")
        return next((code for kind, code in EXIT_CODES if isinstance(error, kind)), INTERNAL)
    except (KeyboardInterrupt, typer.Abort):
        terminal.say("interrupted")
        return INTERRUPTED
    except BrokenPipeError:
        # The reader of our output has left; point stdout elsewhere so that Python's exit stays silent.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("FLOWBENCH_DEBUG"):
            traceback.print_exc()
        hint = "set FLOWBENCH_DEBUG=1 for the traceback, and please report it"
        terminal.say(f"internal error: {type(error).__name__}: {error}; {hint}")
        return INTERNAL


def _overrides(
    time_budget: str | None,
    steps: int | None,
    columns: str | None,
    rows: int | None,
    threads: int | None,
    device: str | None,
) -> dict[str, Any]:
    return {
        "plan.seconds": parse_duration(time_budget) if time_budget is not None else None,
        "plan.steps": steps,
        "data.columns": [name.strip() for name in columns.split(",")] if columns is not None else None,
        "data.rows": rows,
        "threads": threads,
        "device": device,
    }


def parse_duration(text: str) -> float:
    """Seconds in "90", "90s", "1.5m" or "2h"; raises `ConfigurationError` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    if not match or float(match[1]) == 0:
        raise errors.ConfigurationError(f"`--time-budget` takes a time such as 60s, 5m or 1h; got `{text}`")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


@app.command()
def fit(
    dataset: opt.OptionalDatasetArgument = None,
    model: opt.ModelOption = None,
    preset: opt.PresetOption = "default",
    time_budget: opt.BudgetOption = None,
    steps: opt.StepsOption = None,
    columns: opt.ColumnsOption = None,
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
    """Learn the density of a data set; prints the run's folder."""
    from flowbench import config as configuration
    from flowbench import experiment
    from flowbench.home import Home

    place = Home(home)
    if resume is not None:
        given = {
            "DATASET": dataset, "--model": model, "--preset": None if preset == "default" else preset,
            "--time-budget": time_budget, "--steps": steps, "--columns": columns, "--rows": rows,
            "--seed": seed, "--name": name, "--config": config, "--set": settings, "--threads": threads,
            "--device": device, "--dry-run": dry_run or None,
        }  # fmt: skip
        extra = [option for option, value in given.items() if value is not None]
        if extra:
            raise errors.ConfigurationError(
                f"`--resume` goes on with a run as it was; it takes no {extra[0]}"
            )
        run = place.run(resume)
        with terminal.ProgressLine(run.name) as line, terminal.stop_on_signals() as stop:
            return _report_fit(experiment.resume(run, home=place, watch=_watch(line, stop)), json)
    overrides = _overrides(time_budget, steps, columns, rows, threads, device) | {"seed": seed}
    resolved = configuration.resolve(
        dataset, model, preset=preset, file=config, overrides=overrides, settings=settings or ()
    )
    if dry_run:
        return _print_configs([resolved], json)
    with terminal.ProgressLine(_label(resolved)) as line, terminal.stop_on_signals() as stop:
        run = experiment.fit(resolved, home=place, name=name, command=_command(), watch=_watch(line, stop))
    return _report_fit(run, json)


@app.command()
def sample(
    run: opt.RunArgument,
    n: Annotated[int, typer.Option("-n", min=1, help="Rows to draw.")] = 1000,
    output: opt.OutputOption = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of the draw.")] = 0,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Draw rows from a run, with their log-likelihoods; writes samples.h5 in the run's folder by default."""
    from flowbench import inference
    from flowbench.home import Home

    opened = Home(home).run(run)
    path = _output_path(output, opened, "samples.h5")
    drawn = inference.sample(opened, n, seed=seed)
    drawn.save(path, opened)
    _answer({"file": str(path), "rows": n, "mean_log_prob": float(drawn.log_prob.mean())}, str(path), json)


@app.command()
def score(
    run: opt.RunArgument,
    table: opt.TableArgument,
    output: opt.OutputOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Log-likelihood of every row of a table under a run; writes scores.h5 in the run's folder by default."""
    from flowbench import inference
    from flowbench.home import Home

    opened = Home(home).run(run)
    path = _output_path(output, opened, "scores.h5", Path(table))
    scored = inference.score(opened, table, home=Home(home))
    scored.save(path, opened)
    answer = {
        "file": str(path),
        "rows": len(scored.row),
        "mean_log_prob": float(scored.log_prob.mean()),
        "solver_error": scored.solver_error,
    }
    _answer(answer, str(path), json)


@app.command()
def compare(
    datasets: opt.DatasetsArgument,
    models: opt.ModelsOption = "cnf,planar,gaussian",
    seeds: Annotated[int, typer.Option(min=1, help="Fits of each model, with seeds 0, 1, ...")] = 1,
    name: opt.ReportNameOption = None,
    preset: opt.PresetOption = "default",
    time_budget: opt.BudgetOption = None,
    steps: opt.StepsOption = None,
    columns: opt.ColumnsOption = None,
    rows: opt.RowsOption = None,
    config: opt.ConfigOption = None,
    settings: opt.SetOption = None,
    threads: opt.ThreadsOption = None,
    device: opt.DeviceOption = None,
    dry_run: opt.DryRunOption = False,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> int:
    """Fit the models that are missing and write a report that compares them; prints its path."""
    from flowbench import config as configuration
    from flowbench.comparison import compare as compare_runs
    from flowbench.home import Home
    from flowbench.store import check_run_name

    place = Home(home)
    overrides = _overrides(time_budget, steps, columns, rows, threads, device)
    chosen = _listed(models, "--models")
    if preset != "default" and not any(preset in FLOWS.get(model).presets for model in chosen):
        raise errors.ConfigurationError(f"none of the models has a preset `{preset}`; leave `--preset` out")
    configs = [
        configuration.resolve(
            dataset,
            model,
            preset=preset if preset in FLOWS.get(model).presets else "default",
            file=config,
            overrides=overrides | {"seed": seed},
            settings=settings or (),
        )
        for dataset in datasets
        for model in chosen
        for seed in range(seeds)
    ]
    if dry_run:
        return _print_configs(configs, json)
    folder = (
        check_run_name(name)
        if name
        else "-".join(Path(dataset).name.partition(".")[0] for dataset in datasets)
    )
    with terminal.ProgressLine(folder) as line, terminal.stop_on_signals() as stop:

        def watch(resolved: "RunConfig") -> "Watch":
            line.begin(_label(resolved))
            return _watch(line, stop)

        runs, paths = compare_runs(
            configs, place.reports / folder, home=place, command=_command(), watch=watch
        )
    if paths is None:
        terminal.say("interrupted before every model was fitted; the same command keeps the finished ones")
        return INTERRUPTED
    _answer({"report": str(paths.html), "runs": [str(run.path) for run in runs]}, str(paths.html), json)
    return 0


@app.command()
def report(
    runs: opt.RunsArgument,
    output: opt.OutputFolderOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Write a report on runs that are there; prints its path."""
    from flowbench.home import Home
    from flowbench.report import write_report

    place = Home(home)
    opened = [place.run(run) for run in runs]
    folder = output or place.reports / "-".join(run.name for run in opened)
    paths = write_report(opened, folder)
    _answer({"report": str(paths.html), "runs": [str(run.path) for run in opened]}, str(paths.html), json)


@app.command()
def doctor(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> int:
    """Check versions, devices and write access, and run a self-test of some ten seconds."""
    from flowbench.doctor import examine
    from flowbench.home import Home

    checks = examine(Home(home))
    if json:
        terminal.write_json([asdict(check) for check in checks])
    else:
        terminal.write_table(
            ("check", "verdict", "detail"),
            [(c.name, "ok" if c.passed else "FAILED", c.detail) for c in checks],
        )
    return 0 if all(check.passed for check in checks) else 1


def _watch(line: terminal.ProgressLine, stop: terminal.StopRequest) -> "Watch":
    from flowbench.experiment import Watch

    def on_stage(name: str) -> None:
        stop.patient = False  # nothing asks for an end after training, so the first Ctrl-C must interrupt
        line.stage(name)

    def on_start(run: "Run") -> None:
        stop.patient = True
        terminal.say(f"run folder: {run.path}")

    return Watch(
        on_start=on_start,
        on_progress=line.update,
        on_stage=on_stage,
        should_stop=stop,
    )


def _report_fit(run: "Run", json: bool) -> int:
    info = run.info
    if info["status"] == "interrupted":
        terminal.say(f"interrupted; go on with `flowbench fit --resume {run.name}`")
    metrics = run.read_results().metrics if run.has_results else {}
    if metrics:
        terminal.say(_summary({name: metric.value for name, metric in metrics.items()}))
    values = {name: metric.value for name, metric in metrics.items()}
    _answer({"run": str(run.path), "status": info["status"], "metrics": values}, str(run.path), json)
    return INTERRUPTED if info["status"] == "interrupted" else 0


def _summary(metrics: dict[str, float]) -> str:
    error = metrics.get("test_nll_standard_error", float("nan"))
    parts = [f"test NLL {metrics['test_nll']:.4f} ± {error:.4f} nats"]
    if "kl_to_truth" in metrics:
        error = metrics.get("kl_to_truth_standard_error", float("nan"))
        parts.append(f"KL(true || model) {metrics['kl_to_truth']:.4f} ± {error:.4f} nats")
    if "nfe" in metrics:
        parts.append(f"nfe {metrics['nfe']:.0f}, solver error at most {metrics['solver_error']:.1e} nats")
    return "; ".join(parts)


def _answer(values: dict[str, Any], line: str, json: bool) -> None:
    if json:
        terminal.write_json(values)
    else:
        terminal.write(line)


def _print_configs(configs: Iterable["RunConfig"], json: bool) -> int:
    import tomli_w

    values = [config.to_values() for config in configs]
    if json:
        terminal.write_json(values if len(values) > 1 else values[0])
    else:
        terminal.write("\n".join(tomli_w.dumps(one) for one in values).rstrip())
    return 0


def _output_path(given: Path | None, run: "Run", default: str, *inputs: Path) -> Path:
    """Where to write; never over what is read, and never over a run's own files."""
    from flowbench.store import check_table_path

    path = given or run.path / default
    check_table_path(path)
    kept = [run.path / "results.h5", *inputs]
    if any(path.exists() and one.exists() and path.samefile(one) for one in kept):
        raise errors.ConfigurationError(f"`--output` {path} would overwrite what is read; give another path")
    return path


def _label(config: "RunConfig") -> str:
    return f"{Path(config.data.dataset).name} {config.flow.name} (seed {config.seed})"


def _listed(text: str, option: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise errors.ConfigurationError(f"`{option}` takes names with commas between them; got `{text}`")
    return names


def _command() -> list[str]:
    return ["flowbench", *sys.argv[1:]]
