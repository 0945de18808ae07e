"""The categorical columns of a section: names of their levels, and tables about their probabilities."""

import math

import numpy as np
from numpy.typing import NDArray

from flowbench.report.grouping import Section
from flowbench.report.numbers import DASH, fixed, probability, with_error
from flowbench.statistics.paired import Estimate, estimate_mean
from flowbench.store.text_table import TextTable

Floats = NDArray[np.float64]

#: A table shows at most this many levels of a column: the most frequent ones.
MOST_LEVELS = 12


def part_table(section: Section) -> TextTable | None:
    """The two parts of each model's NLL, that of the categories and that of the rest; None without a mass."""
    rows = []
    for model in section.models:
        masses = [run.results.scored.log_mass for run in model.runs]
        if not section.categorical or any(mass is None for mass in masses):
            continue
        # All runs have scored the same rows, and their masses are of the same train rows.
        mass = np.mean([-mass for mass in masses if mass is not None], axis=0)
        density = np.mean([-run.results.scored.log_density for run in model.runs], axis=0)
        # Equal for all runs of a section.
        weights = model.runs[0].results.scored.weight
        parts = (estimate_mean(each, weights) for each in (mass, density))
        rows.append((model.label, *map(with_error, parts)))
    if not rows:
        return None
    names, numbers = ", ".join(section.categorical), ", ".join(section.columns)
    notes = (
        f"The NLL of a row is the sum of two parts, which have no unit in common. That of the categories "
        f"({names}) comes from their probability, and is the same function for every model. That of the "
        f"numbers ({numbers}) comes from a density in their own units, given the categories.",
    )
    header = ("model", "NLL of the categories", "NLL of the numbers, given these")
    return TextTable("Categories and numbers", header, tuple(rows), (False, True, True), notes)


def level_table(section: Section) -> TextTable | None:
    """How often each level occurs in the test rows and in draws; None without a probability mass function."""
    run = section.best.runs[0]
    drawn, context = run.results.samples.context, section.context
    if not section.categorical or drawn is None or context is None:
        return None
    rows, left_out, weights = [], 0, run.results.scored.weight
    tested = run.results.scored.context
    if tested is None:
        return None
    for name in section.categorical:
        place = section.given.index(name)
        named = section.levels.get(name, {})
        values = sorted(named, key=lambda value: (-np.sum(context[:, place] == value), value))
        left_out += max(len(values) - MOST_LEVELS, 0)
        for value in values[:MOST_LEVELS]:
            known = ~np.isnan(tested[:, place])
            own_weights = None if weights is None else weights[known]
            held = estimate_mean((tested[known, place] == value).astype(np.float64), own_weights)
            own = estimate_mean((drawn[:, place] == value).astype(np.float64))
            rows.append((name, named[value], _share(held), _share(own), probability(_p_value(held, own))))
    header = ("column", "category", "test rows", "draws", "p")
    notes = [
        "Shares with their standard errors. p: that two shares as far apart come by chance (a test of two "
        "binomial shares, normal approximation, which is rough below five rows)."
    ]
    if left_out:
        notes.append(f"Left out: {left_out} rarer categories.")
    numeric = (False, False, True, True, True)
    return TextTable("Categories in test rows and in draws", header, tuple(rows), numeric, tuple(notes))


def _share(share: Estimate) -> str:
    if not math.isfinite(share.mean):
        return DASH
    return f"{fixed(share.mean, 3)} ± {fixed(share.standard_error or 0.0, 3)}"


def _p_value(first: Estimate, second: Estimate) -> float | None:
    """The p-value of two shares as far apart; None where both are 0 or 1."""
    n, m = (each.effective_rows or each.rows for each in (first, second))
    pooled = (n * first.mean + m * second.mean) / max(n + m, 1)
    if not n or not m or not 0 < pooled < 1:
        return None
    z = abs(first.mean - second.mean) / math.sqrt(pooled * (1 - pooled) * (1 / n + 1 / m))
    return math.erfc(z / math.sqrt(2))
