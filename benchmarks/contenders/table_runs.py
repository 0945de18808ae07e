"""Runs as `flowbench fit` makes them of a table: what they draw, score and fill in."""

import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.known import Floats, known
from benchmarks.known_tables import DRAWN_ROWS, LEARNT, TABLES
from benchmarks.worker import Answer, Contender
from flowbench.store import Run
from flowbench.workflows.config import resolve
from flowbench.workflows.fit import fit
from flowbench.workflows.home import Home
from flowbench.workflows.imputing import impute_table
from flowbench.workflows.sampling import sample_to
from flowbench.workflows.scoring import score

#: The test rows of a run are not asked here, so that nearly all rows are learnt from.
SETTINGS = (
    f"split.train={LEARNT}",
    "split.validation=0.1",
    "split.test=0.02",
    "evaluation.test_rows=20",
    "evaluation.samples=20",
    "evaluation.certificates=false",
)
TEST_ROWS = 4000
#: The share of cells that are missing, and rows whose missing cells are filled in.
MISSING, IMPUTED_ROWS = 0.2, 1500


@contextmanager
def fitted(
    table: str, model: str, seconds: float, seed: int, settings: Sequence[str] = ()
) -> Iterator[tuple[Run, Home, float]]:
    """A run on the file `table` with the CPU seconds that it took, in a folder that is gone afterwards."""
    overrides = {"plan.seconds": seconds, "seed": seed}
    with tempfile.TemporaryDirectory() as folder:
        home = Home(Path(folder))
        config = resolve(table, model, overrides=overrides, settings=[*SETTINGS, *settings])
        began = time.process_time()
        run = fit(config, home=home, name="run")
        yield run, home, time.process_time() - began


def generate(model: str, seconds: float, learnt: str, drawn: str, n: int, seed: int) -> Contender:
    """Learn the file `learnt`, and draw `n` rows to the file `drawn`."""

    def once() -> Answer:
        with fitted(learnt, model, seconds, seed) as (run, home, spent):
            began = time.process_time()
            sample_to(Path(drawn), run, n, seed=seed, home=home)
            return Answer(figures={"fit": spent, "draw": time.process_time() - began})

    return once


def recover(name: str, model: str, seconds: float, rows: int, folder: str) -> Contender:
    """Learn so many rows of a table of `benchmarks.known_tables`; score fresh ones, and draw."""
    truth = TABLES[name]

    def once() -> Answer:
        place = Path(folder)
        learnt, test, drawn = (
            place / f"{name} {model} {what}.parquet" for what in ("learnt", "test", "drawn")
        )
        truth.sample(rows, np.random.default_rng(7)).to_parquet(learnt)
        fresh = truth.sample(TEST_ROWS, np.random.default_rng(8))
        fresh.to_parquet(test)
        with fitted(str(learnt), model, seconds, 0) as (run, home, spent):
            scores = score(run, str(test), home=home)
            sample_to(drawn, run, DRAWN_ROWS, home=home)
        draws = pd.read_parquet(drawn)
        outside = sum(int(((draws[c] < a) | (draws[c] > b)).sum()) for c, (a, b) in truth.support.items())
        return Answer(
            {"log_prob": scores.log_prob, "error": scores.log_prob_error, "truth": truth.log_prob(fresh)},
            {
                "seconds": spent,
                "outside": outside,
                "atoms": {c: int((draws[c] == value).sum()) for c, (value, _) in truth.atoms.items()},
            },
        )

    return once


def recover_incomplete(
    density: str, way: str, model: str, seconds: float, rows: int, folder: str
) -> Contender:
    """Learn rows of a density of `benchmarks.known`, and score fresh complete ones.

    `way` is "complete", or what `--missing` says of rows a fifth of whose cells are missing at random. With
    "model" the run also fills in missing cells of fresh rows.
    """
    truth = known(density)

    def once() -> Answer:
        place = Path(folder)
        learnt, test, gaps, filled = (
            place / f"{density} {way} {what}.parquet" for what in ("learnt", "test", "gaps", "filled")
        )
        x = truth.sample(rows, np.random.default_rng(7))
        _write(learnt, x if way == "complete" else _with_gaps(x, 9))
        fresh = truth.sample(TEST_ROWS, np.random.default_rng(8))
        _write(test, fresh)
        options = [] if way == "complete" else [f"data.missing={way}"]
        with fitted(str(learnt), model, seconds, 0, options) as (run, home, spent):
            scores = score(run, str(test), home=home)
            arrays = {"log_prob": scores.log_prob, "truth": truth.log_prob(fresh)}
            if way == "model":
                lacking = _with_gaps(fresh[:IMPUTED_ROWS], 10)
                _write(gaps, lacking)
                columns = impute_table(run, str(gaps), filled, home=home).columns
                arrays["covered"] = np.concatenate(
                    [
                        (columns[f"{name}_lower"] <= column)[empty]
                        & (column <= columns[f"{name}_upper"])[empty]
                        for name, column, empty in zip(
                            _names(fresh), fresh[:IMPUTED_ROWS].T, np.isnan(lacking).T, strict=True
                        )
                    ]
                )
        return Answer(arrays, {"seconds": spent})

    return once


def _with_gaps(x: Floats, seed: int) -> Floats:
    """The rows `x: (n, d)` without a fifth of their cells; a row keeps one cell at least."""
    rng = np.random.default_rng(seed)
    empty = rng.random(x.shape) < MISSING
    empty[empty.all(1), 0] = False
    return np.where(empty, np.nan, x)


def _names(x: Floats) -> list[str]:
    return [f"x{i}" for i in range(x.shape[1])]


def _write(path: Path, x: Floats) -> None:
    pd.DataFrame(x, columns=_names(x)).to_parquet(path)
