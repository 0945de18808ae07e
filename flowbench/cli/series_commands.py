"""The commands that only runs on time series have, and what `sample` and `score` do for such runs."""

from collections.abc import Sequence
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING, Annotated, Any

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.option_groups import ONLY_FOR_FITS, ReadingOptions, with_options
from flowbench.cli.progress_line import ProgressLine
from flowbench.cli.remarks import LOOSE_BOUND, loose_bound
from flowbench.cli.standard_input import lent_stdin
from flowbench.cli.written import refuse_two_answers, save_table
from flowbench.errors import ConfigurationError

if TYPE_CHECKING:
    from flowbench.store import Run
    from flowbench.workflows.home import Home

#: Times of drawn series, unless others are asked for.
DEFAULT_TIMES = 50


@with_options(without=(*ONLY_FOR_FITS, "keep"))
def predict(
    run: opt.RunArgument,
    table: opt.TableArgument,
    at: Annotated[
        str | None, typer.Option(help="A table with a series and a time in each row: what to predict.")
    ] = None,
    times: opt.TimesOption = None,
    ahead: Annotated[
        float | None, typer.Option(help="Predict so far beyond each series' last time, in 20 steps.")
    ] = None,
    draws: Annotated[int, typer.Option(min=0, help="Columns of draws to write beside the bands.")] = 0,
    output: opt.OutputOption = None,
    seed: opt.DrawSeedOption = 0,
    *,
    reading: ReadingOptions,
    settings: opt.EvaluationSetOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Predict time series by a run's model, given what a table holds of them.

    Writes series, time, and for each column its mean, `_lower` and `_upper`, the ends of the central 90%
    band for a new observation, by default to predictions.h5 in the run's folder; prints the file's path.
    """
    from flowbench.workflows import series_use
    from flowbench.workflows.home import Home
    from flowbench.workflows.series_times import times_of

    place = Home(home)
    opened = place.run(run)
    path = _output(opened, output, "predictions.h5", json, table, place)
    name = "standard input" if table == "-" else Path(table).name
    wanted = None if times is None else times_of(times, series_use.time_unit(opened))
    with lent_stdin(table) as lent, ProgressLine(f"predicting {name}") as line:
        line.prepare("predicting")
        found, notes = series_use.predict(
            opened,
            lent,
            at=at,
            times=wanted,
            ahead=ahead,
            draws=draws,
            seed=seed,
            settings=settings or (),
            reading=reading.given(),
            home=place,
        )
    _say_notes(name, notes)
    _say_causal(opened)
    save_table(found, path, opened)
    _answer({"file": str(path), "rows": len(found.times)}, path, json)


@with_options(without=(*ONLY_FOR_FITS, "keep"))
def impute(
    run: opt.RunArgument,
    table: opt.TableArgument,
    output: opt.OutputOption = None,
    seed: opt.DrawSeedOption = 0,
    *,
    reading: ReadingOptions,
    settings: opt.EvaluationSetOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Fill in the missing cells of a table or of time series by a run's model.

    Writes the table with means in the place of missing cells, and `_lower` and `_upper`, the ends of the
    central 90% band of what is missing, by default to imputed.h5; prints the file's path. A missing category
    becomes the most probable one, with its `_probability`. A run on a table needs `fit --missing model`.
    """
    from flowbench.workflows import series_use
    from flowbench.workflows.home import Home

    place = Home(home)
    opened = place.run(run)
    if not opened.is_of_series:
        _impute_table(opened, table, output, reading, settings or (), json, place)
        return
    path = _output(opened, output, "imputed.h5", json, table, place)
    name = "standard input" if table == "-" else Path(table).name
    with lent_stdin(table) as lent, ProgressLine(f"imputing {name}") as line:
        line.prepare("imputing")
        found, count, notes = series_use.impute(
            opened, lent, seed=seed, settings=settings or (), reading=reading.given(), home=place
        )
    _say_notes(name, notes)
    _say_causal(opened)
    terminal.say(f"{count:,} missing cells are filled in")
    save_table(found, path, opened)
    _answer({"file": str(path), "rows": len(found.times), "imputed": count}, path, json)


def _impute_table(
    run: "Run",
    table: str,
    output: Path | None,
    reading: ReadingOptions,
    settings: Sequence[str],
    json: bool,
    home: "Home",
) -> None:
    """`impute` for a run on the rows of a table."""
    from flowbench.workflows import output as outputs
    from flowbench.workflows.imputing import impute_table

    refuse_two_answers(output, json)
    path = outputs.check_output(output or run.path / "imputed.h5", run, table, home=home)
    name = "standard input" if table == "-" else Path(table).name
    with lent_stdin(table) as lent, ProgressLine(f"imputing {name}") as line:
        found = impute_table(
            run,
            lent,
            path,
            settings=settings,
            reading=reading.given(),
            home=home,
            on_rows=line.count,
        )
    _say_notes(name, found.notes)
    count = sum(found.filled.values())
    each = ", ".join(f"{column} ({number:,})" for column, number in found.filled.items())
    terminal.say(f"{count:,} missing cells are filled in{f': {each}' if each else ''}")
    save_table(found, path, run)
    rows = len(next(iter(found.columns.values())))
    _answer({"file": str(path), "rows": rows, "imputed": count}, path, json)


def draw_series(
    run: "Run",
    n: int,
    times: str | None,
    given: str | None,
    output: Path | None,
    seed: int,
    settings: Sequence[str],
    json: bool,
    home: "Home",
) -> None:
    """`sample` for a run on series."""
    from flowbench.workflows import series_use
    from flowbench.workflows.series_times import times_of

    if given is not None:
        raise ConfigurationError(f"the run `{run.name}` is of time series; leave `--given` out")
    path = _output(run, output, "samples.h5", json, None, home)
    if times is None:
        wanted = series_use.default_times(run, DEFAULT_TIMES)
        terminal.say(
            f"series are drawn at {DEFAULT_TIMES} times from {series_use.shown_times(run, wanted)}, where "
            "the train series lie; `--times` takes others"
        )
    else:
        wanted = times_of(times, series_use.time_unit(run))
    with ProgressLine(f"sampling {run.name}") as line:
        line.prepare("drawing series")
        drawn = series_use.sample(run, n, wanted, seed=seed, settings=settings)
    save_table(drawn, path, run)
    _answer({"file": str(path), "series": n, "rows": len(drawn.times)}, path, json)


def score_series(
    run: "Run",
    table: str,
    output: Path | None,
    settings: Sequence[str],
    reading: ReadingOptions,
    json: bool,
    home: "Home",
) -> None:
    """`score` for a run on series."""
    from flowbench.workflows import series_use

    path = _output(run, output, "scores.h5", json, table, home)
    name = "standard input" if table == "-" else Path(table).name
    with lent_stdin(table) as lent, ProgressLine(f"scoring {name}") as line:
        scored = series_use.score(
            run,
            lent,
            settings=settings,
            reading=reading.given(),
            home=home,
            on_series=lambda done, total: line.count(done, total, "series"),
        )
    _say_notes(name, scored.dataset.notes)
    found = scored.found
    if found.standard_error is not None:
        terminal.say(
            f"a log-likelihood is a lower bound from {max(found.bounds)} draws; `standard_error` is that of "
            "the draws"
        )
        if (error := median(found.standard_error.tolist())) > LOOSE_BOUND:
            terminal.say(loose_bound(error))
    save_table(scored, path, run)
    answer = {
        "file": str(path),
        "series": len(scored.dataset),
        "is_bound": found.standard_error is not None,
        "mean_log_prob": float(found.log_prob.mean()),
        "mean_log_prob_per_value": float(found.log_prob.sum() / scored.dataset.cells.sum()),
        "solver_error_largest": None if found.solver_error is None else float(found.solver_error.max()),
    }
    _answer(answer, path, json)


def _output(
    run: "Run", output: Path | None, default: str, json: bool, table: str | None, home: "Home"
) -> Path:
    from flowbench.workflows.series_use import check_series_output

    refuse_two_answers(output, json)
    return check_series_output(output or run.path / default, run, table, home)


def _say_notes(name: str, notes: Sequence[str]) -> None:
    for note in notes:
        terminal.say(f"{name}: {note}")


def _say_causal(run: "Run") -> None:
    """Say that a model predicts from the past alone, if it does."""
    from flowbench.registry import SERIES_MODELS

    model = str(run.info.get("model", ""))
    if model in SERIES_MODELS.entries and not SERIES_MODELS.get(model).looks_ahead:
        terminal.say(f"`{model}` predicts from earlier observations alone, also between observations")


def _answer(answer: dict[str, Any], path: Path, json: bool) -> None:
    from flowbench.workflows.output import STDOUT

    if path != STDOUT:
        terminal.print_answer(answer, str(path), json)
