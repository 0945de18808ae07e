"""The commands that use the model of a run: sample, score, evaluate, tradeoff."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flowbench.cli import parameters as opt
from flowbench.cli import terminal
from flowbench.cli.option_groups import ONLY_FOR_FITS, ReadingOptions, parse_given, with_options
from flowbench.cli.progress_line import ProgressLine
from flowbench.cli.remarks import MOST_NAMED, say_dequantised
from flowbench.cli.series_commands import draw_series, score_series
from flowbench.cli.standard_input import lent_stdin
from flowbench.cli.written import refuse_two_answers, written_file
from flowbench.errors import ConfigurationError

if TYPE_CHECKING:
    from flowbench.workflows.long_scoring import ScoreSums


def _silent(text: str) -> None:
    """Leave unsaid that parts are kept: those of a table on standard output are not."""


def _say_above(flagged: int, rows: int) -> None:
    if flagged:
        terminal.say(f"{flagged:,} of {rows:,} rows may be off by more than the largest error asked for")


def _say_flagged(sums: "ScoreSums") -> None:
    """Say how many rows have no log-likelihood and why, and how many others have a flag."""
    from flowbench.evaluation.flags import ABOVE

    rows = sums.rows
    if lost := sums.lost.most_common():
        kinds = [f"{kind} ({count:,})" for kind, count in lost]
        more = f" and {len(kinds) - MOST_NAMED} more" if len(kinds) > MOST_NAMED else ""
        terminal.say(
            f"{sums.lost.total():,} of {rows:,} rows have no log-likelihood: "
            f"{', '.join(kinds[:MOST_NAMED])}{more}; the column `flagged` says which"
        )
    for kind, count in sums.marked.most_common():
        terminal.say(f"{count:,} of {rows:,} rows{'' if kind == ABOVE else ':'} {kind}")


def sample(
    run: opt.RunArgument,
    n: Annotated[int, typer.Option("-n", min=1, help="Rows to draw, for each row of givens.")] = 1000,
    given: opt.GivenOption = None,
    times: opt.TimesOption = None,
    output: opt.OutputOption = None,
    seed: opt.DrawSeedOption = 0,
    settings: opt.EvaluationSetOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Draw rows from a run's model.

    Writes the drawn columns, `log_prob` and `log_prob_error`, by default to samples.h5 in the run's folder.
    `log_prob` is in nats and data units, and `log_prob_error` is its numerical error. A run that was fitted
    with `--given` needs values of these columns, and writes them too. A run on time series draws whole series
    at the --times, noise included. Prints the file's path.
    """
    from flowbench.workflows import output as outputs
    from flowbench.workflows import sampling
    from flowbench.workflows.home import Home

    opened = Home(home).run(run)
    refuse_two_answers(output, json)
    if opened.is_of_series:
        draw_series(opened, n, times, given, output, seed, settings or (), json, Home(home))
        return
    if times is not None:
        raise ConfigurationError(
            f"the run `{opened.name}` is of rows, which have no times; leave `--times` out"
        )
    told = parse_given(given)
    path = outputs.check_output(output or opened.path / "samples.h5", opened, home=Home(home))
    with written_file(path) as file, ProgressLine(f"sampling {opened.name}") as line:
        sums, dequantised = sampling.sample_to(
            file,
            opened,
            n,
            given=told,
            seed=seed,
            settings=settings or (),
            home=Home(home),
            on_rows=line.pace,
            tell=_silent if path == outputs.STDOUT else line.warn,
        )
    _say_above(sums.above, sums.rows)
    say_dequantised(dequantised)
    answer = {
        "file": str(path),
        "rows": sums.rows,
        "dequantised": dequantised,
        "mean_log_prob": sums.total / sums.rows,
    }
    if path != outputs.STDOUT:
        terminal.print_answer(answer, str(path), json)


@with_options(without=(*ONLY_FOR_FITS, "keep"))
def score(
    run: opt.RunArgument,
    table: opt.TableArgument,
    output: opt.OutputOption = None,
    max_error: opt.MaxErrorOption = None,
    strict: opt.StrictOption = False,
    *,
    reading: ReadingOptions,
    settings: opt.EvaluationSetOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> int:
    """Log-likelihood of every row of a table.

    Writes `row`, counted from 0, `log_prob` (nats, data units), `log_prob_error`, how far that may be off,
    and `flagged`, what is wrong with a row, by default to scores.h5 in the run's folder; prints the file's
    path. A row with a cell that is missing, infinite or no number, or whose solve fails, has no
    log-likelihood, and the others are scored; where none can be, the exit code is 1. Long tables are scored
    in parts; the same command goes on after a kill.
    """
    from flowbench.workflows import long_scoring
    from flowbench.workflows import output as outputs
    from flowbench.workflows.home import Home

    given = [*(settings or ()), *([] if max_error is None else [f"evaluation.max_error={max_error}"])]
    opened = Home(home).run(run)
    refuse_two_answers(output, json)
    if opened.is_of_series:
        for option, value in (("--max-error", max_error), ("--strict", strict or None)):
            if value is not None:
                raise ConfigurationError(f"`{option}` is for runs on rows; leave it out for time series")
        score_series(opened, table, output, given, reading, json, Home(home))
        return 0
    path = outputs.check_output(output or opened.path / "scores.h5", opened, table, home=Home(home))
    name = "standard input" if table == "-" else Path(table).name
    with (
        lent_stdin(table) as lent,
        written_file(path) as file,
        ProgressLine(f"scoring {name}") as line,
    ):
        written = long_scoring.score_to(
            file,
            opened,
            lent,
            settings=given,
            reading=reading.given(),
            strict=strict,
            home=Home(home),
            on_rows=line.pace,
            tell=_silent if path == outputs.STDOUT else line.warn,
        )
    sums = written.sums
    for note in written.notes:
        terminal.say(f"{name}: {note}")
    if sums.incomplete:
        terminal.say(
            f"{sums.incomplete:,} of {sums.rows:,} rows have missing cells; their log-likelihood is that of "
            "the cells that are there, by a mean over completions of the others"
        )
    _say_flagged(sums)
    say_dequantised(written.dequantised)
    for column, count in sums.out_of_place.items():
        terminal.say(
            f"{count:,} of {sums.rows:,} values of {column} lie between those that the model was "
            "fitted on; they are scored as the cells that they fall in"
        )
    if weights := opened.config.get("data", {}).get("weights"):
        terminal.say(f"every row counts alike here; `{weights}`, which weights the run's rows, is not read")
    answer = {
        "file": str(path),
        "rows": sums.rows,
        "dequantised": written.dequantised,
        "out_of_place": dict(sums.out_of_place),
        "rows_scored": sums.scored,
        "mean_log_prob": sums.mean,
        "log_prob_error_largest": sums.largest_error,
        "rows_above_max_error": sums.above,
        "rows_flagged": sums.lost.total() + sums.marked.total(),
        "reasons": dict((sums.lost + sums.marked).most_common()),
    }
    if path != outputs.STDOUT:
        terminal.print_answer(answer, str(path), json)
    if not sums.scored:
        terminal.say(f"error: no row of {name} could be scored; `flagged` in {path} says why")
    return 0 if sums.scored else 1


def evaluate(
    run: opt.RunArgument,
    seed: opt.DrawSeedOption = 0,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Judge a run's samples and calibration against held-out rows.

    Two-sample tests beside the floor that train rows set, coverage of highest-density regions, quantiles
    of the base, and nearest train rows; stored with the run's results, for reports.
    """
    from flowbench.workflows import judging
    from flowbench.workflows.home import Home

    opened = Home(home).run(run)
    with ProgressLine(f"evaluating {opened.name}") as line:
        line.stage("tests and calibration")
        metrics = judging.evaluate(opened, seed=seed, home=Home(home))
    values = {name: metric.value for name, metric in metrics.items()}
    if (judged := values.get("judged_rows")) is not None:
        few = "" if "mmd" in values else "; they are too few for two-sample tests"
        terminal.say(
            f"tests and calibration are of {judged:,.0f} test rows, kept with probabilities in proportion to "
            f"weight{few}"
        )
    if json:
        terminal.print_json({"run": str(opened.path), "metrics": values})
    else:
        terminal.print_table(("figure", "value"), [(name, f"{value:.4g}") for name, value in values.items()])


def tradeoff(
    run: opt.RunArgument,
    error: Annotated[
        float, typer.Option(help="Largest error of the NLL that the recommended solver may have, nats.")
    ] = 1e-3,
    rows: Annotated[int, typer.Option(min=2, help="Test rows to score with each solver.")] = 500,
    output: opt.OutputFolderOption = None,
    json: opt.JsonOption = False,
    home: opt.HomeOption = Path(),
) -> None:
    """Compare solvers on a run's model: speed, nfe, and how far off the NLL is.

    Prints every solver and the cheapest that is good enough; writes a page with the figure.
    """
    from flowbench.report.tradeoff import describe_choice, tradeoff_table, write_tradeoff
    from flowbench.store.rung import recommend
    from flowbench.workflows import judging
    from flowbench.workflows.home import Home

    if not error > 0:
        raise ConfigurationError(f"`--error` must be positive; got {error:g}")
    place = Home(home)
    opened = place.run(run)
    folder = output or place.report_path(None, [f"{opened.name}-tradeoff"])
    with ProgressLine(f"solvers for {opened.name}") as line:
        rungs, used = judging.tradeoff(
            opened, rows=rows, on_solver=lambda done, total: line.count(done, total, "solvers")
        )
    chosen = recommend(rungs, error)
    page = write_tradeoff(rungs, chosen, error, name=opened.name, rows=used, folder=folder)
    if json:
        solvers = [vars(rung) | {"settings": rung.settings} for rung in rungs]
        recommended = solvers[rungs.index(chosen)] if chosen else None
        terminal.print_json({"page": str(page), "recommended": recommended, "solvers": solvers})
        return
    table = tradeoff_table(rungs, chosen, used)
    terminal.print_table(table.header, table.rows)
    terminal.say(describe_choice(chosen, error))
    terminal.print_path(str(page))
