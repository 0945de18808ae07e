"""Scoring the rows of a table into a file: the table may be larger than memory, and the work is taken up."""

import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from flowbench.evaluation.solver_levels import OnRows
from flowbench.store import Parts, Run, write_long_table
from flowbench.store.table_parts import Columns
from flowbench.workflows.home import Home
from flowbench.workflows.in_parts import Tell, about_run, do_in_parts, sha256_of
from flowbench.workflows.output import attributes
from flowbench.workflows.scoring import ScoredTable, Scorer, score_units


@dataclass
class ScoreSums:
    """Sums over the `rows` of a table that are scored so far.

    `scored` of them have a log-likelihood: `total` is the sum of these, `largest` their largest error, nats,
    and `above` miss the largest error asked for. `lost` counts the other rows by what is wrong with them, and
    `marked` those that have a log-likelihood and a flag. `incomplete` and `out_of_place` are those of
    `ScoredTable`.
    """

    rows: int = 0
    scored: int = 0
    total: float = 0.0
    largest: float = -math.inf
    above: int = 0
    incomplete: int = 0
    lost: Counter[str] = field(default_factory=Counter)
    marked: Counter[str] = field(default_factory=Counter)
    out_of_place: Counter[str] = field(default_factory=Counter)

    def add(self, part: ScoredTable) -> None:
        """Add the rows of another part."""
        told = part.scored
        self.rows += len(part.row)
        self.scored += int(told.sum())
        self.total += float(part.log_prob[told].sum())
        if told.any():
            most = float(part.log_prob_error[told].max())
            self.largest = most if math.isnan(most) or most > self.largest else self.largest
        self.above += part.above
        self.incomplete += part.incomplete
        self.lost.update(part.counts(scored=False))
        self.marked.update(part.counts(scored=True))
        self.out_of_place.update(part.out_of_place)

    @property
    def mean(self) -> float | None:
        """The mean log-likelihood, nats; None if no row has one."""
        return self.total / self.scored if self.scored else None

    @property
    def largest_error(self) -> float | None:
        """The largest error of a log-likelihood, nats; None if no row has one."""
        return self.largest if self.scored else None


@dataclass(frozen=True)
class WrittenScores:
    """What came of scoring a table into a file: `sums` over its rows, and what `ScoredTable` says of them."""

    sums: ScoreSums
    dequantised: tuple[str, ...]
    notes: tuple[str, ...]


def score_to(
    path: Path,
    run: Run,
    table: str,
    *,
    settings: Sequence[str] = (),
    reading: Mapping[str, Any] | None = None,
    strict: bool = False,
    home: Home | None = None,
    on_rows: OnRows = lambda done, total: None,
    tell: Tell = lambda text: None,
) -> WrittenScores:
    """Write what `score` finds to `path`, in the format of its ending, with no more than a part in memory.

    It is written in parts as `flowbench.workflows.in_parts.do_in_parts` says, which `tell` hears of. Parts
    of the same table, run and options are taken up. The table is known by the sha256 of its file. Raises as
    `score` does.
    """
    scorer = Scorer(run, table, settings=settings, reading=reading, strict=strict, home=home, on_rows=on_rows)
    job = _Scoring(
        run,
        scorer,
        {
            "table": table if scorer.file is None else [scorer.file.inside, sha256_of(scorer.file.path)],
            "choice of options": [scorer.options.model_dump(), dict(reading or {}), strict],
        },
    )
    do_in_parts(job, path, tell)
    return WrittenScores(job.sums, scorer.dequantised, scorer.notes)


class _Scoring:
    """The job of scoring a table into a file; `asked` is what it depends on beside the run."""

    def __init__(self, run: Run, scorer: Scorer, asked: Mapping[str, Any]) -> None:
        self.run, self.scorer, self._asked = run, scorer, asked
        self.sums = ScoreSums()

    @property
    def rows(self) -> int:
        return self.scorer.rows

    @property
    def about(self) -> Mapping[str, Any]:
        return {"kind of work": "score", **about_run(self.run), **self._asked}

    @property
    def state(self) -> Mapping[str, Any]:
        heard = [(*key, example) for key, example in self.scorer.heard.items()]
        sums = {name: dict(v) if isinstance(v, Counter) else v for name, v in vars(self.sums).items()}
        return {"sums": sums, "heard": heard}

    def restore(self, state: Mapping[str, Any]) -> None:
        counts = ("lost", "marked", "out_of_place")
        told = state["sums"]
        self.sums = ScoreSums(**{**told, **{name: Counter(told[name]) for name in counts}})
        self.scorer.heard |= {(column, what): example for column, what, example in state["heard"]}

    def parts(self, first: int) -> Iterator[Columns]:
        for part in self.scorer.parts(first):
            self.sums.add(part)
            yield part.to_columns()

    def write(self, path: Path, parts: Parts) -> None:
        names = next(parts.read())
        told = attributes(self.run, self.scorer.dequantised)
        write_long_table(path, parts, told, score_units(names), index="row")
