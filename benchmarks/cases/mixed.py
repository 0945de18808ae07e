"""Rows drawn of tables with categories and numbers, beside those of generators of other libraries."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import numpy as np
import pandas as pd

from benchmarks.harness import (
    ROOT,
    SYNTHESIS_PYTHON,
    Entry,
    NotHereError,
    Outcome,
    Timing,
    attempt_all,
    once,
    scratch,
)
from benchmarks.mixed import LEARNT, SOURCES, judge, split
from benchmarks.statistics import mean_text, verdict
from flowbench.statistics.paired import compare_paired

FLOWBENCH = "benchmarks.contenders.table_runs:generate"
PEER = "benchmarks.contenders.mixed_peers:peer"
WRITE = "benchmarks.contenders.mixed_peers:write_table"
OURS = "cnf"
MODELS = (OURS, "mixture")
PEERS = ("ForestDiffusion", "Gaussian copula", "CTGAN")
#: A peer with its default of 100 noisy copies of each row, where it has 20 elsewhere; for this table alone.
SLOW_PEER, SLOW_TABLE = "ForestDiffusion, 100 copies", "penguins"
PENGUINS = ROOT / "datasets" / "penguins.csv"
#: A split has a seed of its own, for the rows and for the generators.
SPLITS = 3
#: The best value of each figure, which nothing that draws new rows gets below but by chance.
BEST = {"C2ST": 0.5, "columns": 0.0, "pairs": 0.0, "nearer": 0.5}


@dataclass(frozen=True)
class Part:
    """A split of a table: rows to learn from, which lie in a file, and held-out ones."""

    table: str
    seed: int
    learnt: pd.DataFrame
    held_out: pd.DataFrame
    path: Path

    @classmethod
    def of(cls, name: str, table: pd.DataFrame, seed: int, folder: Path) -> Self:
        learnt, held_out = split(table, seed)
        path = folder / f"{name}-{seed}.csv"
        learnt.to_csv(path, index=False)
        return cls(name, seed, learnt, held_out, path)

    def drawn(self, generator: str) -> Path:
        """The file of the rows that a generator draws."""
        return self.path.with_name(f"{self.path.stem} {generator}.csv")

    def entry(self, generator: str, seconds: float) -> Entry:
        common = {
            "learnt": str(self.path),
            "drawn": str(self.drawn(generator)),
            "n": len(self.held_out),
            "seed": self.seed,
        }
        if generator in (*PEERS, SLOW_PEER):
            return Entry(generator, PEER, {"name": generator, **common}, SYNTHESIS_PYTHON)
        return Entry(generator, FLOWBENCH, {"model": generator, "seconds": seconds, **common})

    def judged(self, generator: str) -> dict[str, float]:
        """The figures of the rows that a generator drew."""
        if generator == LEARNT:
            drawn = self.learnt.sample(len(self.held_out), random_state=self.seed)
        else:
            drawn = pd.read_csv(self.drawn(generator))
        return judge(self.learnt, self.held_out, drawn, self.seed)


def run(*, quick: bool, seconds: float) -> Outcome:
    """Every generator on every split of each table: it learns two thirds and draws as many rows as are left.

    Two generators run at a time, each in one thread. flowbench stops after `seconds`; the others stop by
    themselves.
    """
    if not SYNTHESIS_PYTHON.exists():
        raise NotHereError("the environment of the other generators is not there; `make bench` makes it")
    seconds = seconds / 6 if quick else seconds
    splits = 1 if quick else SPLITS
    outcome = Outcome()
    with scratch() as folder:
        tables = _tables(folder, quick)
        parts = [
            Part.of(name, table, seed, folder) for name, table in tables.items() for seed in range(splits)
        ]
        entries = {
            (part.table, part.seed, generator): part.entry(generator, seconds)
            for part in parts
            for generator in _generators(part.table)
        }
        fits = attempt_all(entries)
        for name in tables:
            own = [part for part in parts if part.table == name]
            found = {}
            for generator in (*_generators(name), LEARNT):
                timings = [fits[name, part.seed, generator] for part in own if generator != LEARNT]
                if failed := [timing.error for timing in timings if timing.error]:
                    outcome.add("draws", {"table": name, "generator": generator, "failed": failed[0]})
                    continue
                found[generator] = pd.DataFrame([part.judged(generator) for part in own])
                row = {"table": name, "generator": generator, **_figures(found[generator], timings)}
                outcome.add("draws", row)
            for generator in found.keys() - {OURS, LEARNT} if OURS in found else ():
                verdicts = _verdicts(found[OURS], found[generator])
                outcome.add(f"{OURS} against the others", {"table": name, "against": generator, **verdicts})
    outcome.notes = _notes(tables, seconds, splits)
    return outcome


def _generators(table: str) -> tuple[str, ...]:
    return (*MODELS, *PEERS, *((SLOW_PEER,) if table == SLOW_TABLE else ()))


def _tables(folder: Path, quick: bool) -> dict[str, pd.DataFrame]:
    """The rows of every table, without incomplete ones."""
    tables = {"penguins": pd.read_csv(PENGUINS).dropna()}
    for name, source in {} if quick else SOURCES.items():
        path = folder / f"{name}.csv"
        once(Entry(name, WRITE, {**asdict(source), "path": str(path)}, SYNTHESIS_PYTHON))
        tables[name] = pd.read_csv(path)
    return tables


def _figures(found: pd.DataFrame, timings: list[Timing]) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in map(str, found):
        row[name] = mean_text(found[name].to_numpy())
    for name in ("fit", "draw") if timings else ():
        row[f"{name}, CPU s"] = round(float(np.mean([timing.figures[name] for timing in timings])), 1)
    return row


def _verdicts(ours: pd.DataFrame, theirs: pd.DataFrame) -> dict[str, str]:
    """Whether ours is nearer to each figure's best value, by the 95% t interval of paired differences."""
    row = {}
    for name, best in BEST.items():
        gain = ((theirs[name] - best).clip(0) - (ours[name] - best).clip(0)).to_numpy()
        compared = compare_paired(gain, np.zeros_like(gain), resample=False)
        row[name] = f"{gain.mean():+.3f}" + ("" if compared is None else f" {verdict(compared)}")
    return row


def _notes(tables: dict[str, pd.DataFrame], seconds: float, splits: int) -> list[str]:
    sizes = "; ".join(
        f"{name}, {len(table):,} rows of {table.shape[1]} columns" for name, table in tables.items()
    )
    return [
        f"Complete rows of {sizes}. {splits} random splits; ± is the standard error over them. A generator "
        f"learns two thirds and draws as many rows as are held out. flowbench's models train for "
        f"{seconds:g} s.",
        *(" ".join(line.split()) for line in (judge.__doc__ or "").split("- ")[1:]),
        f"A verdict says whether {OURS} is nearer to a figure's best value, by the 95% t interval of paired "
        "differences over the splits.",
    ]
