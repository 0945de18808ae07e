"""Sentences on what is wrong with a table, such as many equal values, that distorts likelihoods.

A fit says them when it begins, and its report repeats them. They are made from `run.json`, which another
program or version may have written, so every entry is checked before it is used.
"""

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import TypeVar

from flowbench.data.periods import Period
from flowbench.data.schema import Support
from flowbench.report.numbers import count, listed, plural, significant

T = TypeVar("T")

#: With this many rows or more for each distinct value of a column, spikes at the values decide its NLL.
SPIKY = 20
#: A sentence names at most this many columns or values.
NAMED_COLUMNS = 6
#: Up to this share of the test rows may also be train rows without spoiling a comparison.
REPEATED_SHARE = 0.01


@dataclass(frozen=True)
class Objection:
    """Why likelihoods do not rank models, and what the lowest NLL means instead."""

    reason: str
    meaning: str


def about_table(pitfalls: object, dataset: Mapping[str, object]) -> list[str]:
    """Sentences on what the reader of a table guessed, and on what is wrong with the table.

    `pitfalls` and `dataset` are the entries of these names in `run.json`.
    """
    known = typed(dict, pitfalls)
    notes = [f"{note[:1].upper()}{note[1:]}." for note in map(str, _sequence(dataset.get("notes"))) if note]
    notes += [
        f"The columns {listed(group)} determine one another, so that the rows lie "
        "on a surface and have no density: a likelihood is bounded by rounding alone, and says how closely a "
        "model follows that surface. Leave one of the columns out to compare models."
        for group in _relations(known)
    ]
    if atoms := _atoms(known):
        each = [f"{name} = {value:.10g} ({_percent(share)})" for name, value, share in atoms]
        notes.append(
            f"Many rows hold exactly the same value: {_first(each, 'more value')}. A density has no mass at "
            "a point, so a likelihood grows without bound as a spike there narrows, and draws hit the value "
            "only by chance. Compare models on the other rows, or leave the column out: a mass at a point is "
            "not modelled yet."
        )
    repeating = typed(dict, known.get("repeating"))
    if repeating:
        each = [f"{name} ({count(typed(int, number))} values)" for name, number in repeating.items()]
        notes.append(
            f"Values repeat in {_first(each)}: a density can spike there, and its likelihood grows with "
            "every spike that it finds."
        )
    if (copied := typed(int, known.get("copied_rows"))) > 0:
        notes.append(
            f"{copied:,} of {plural(typed(int, dataset.get('rows')), 'row')} repeat others digit by digit; "
            "copies are kept in one part of the split."
        )
    if (repeated := typed(int, known.get("repeated_test_rows"))) > 0:
        notes.append(
            f"Of the test rows, {plural(repeated, 'row')} can also be found among the train rows, digit by "
            "digit; a model that learns rows by heart gains by them."
        )
    return notes


def about_cells(dataset: Mapping[str, object]) -> list[str]:
    """A sentence on what a log-likelihood means if columns are dequantised; empty if none is."""
    lattices = typed(dict, dataset.get("lattices"))
    if not lattices:
        return []
    each = [f"{name} (by {_step(lattice)})" for name, lattice in lattices.items()]
    return [
        f"Values are evenly spaced in {_first(each)}: each stands for the cell around it, and a "
        "log-likelihood is the mean of the log-density over the cell. That is a lower bound of the log "
        "of the cell's mass by its volume, for every model alike."
    ]


def about_ends(datasets: Sequence[Mapping[str, object]]) -> list[str]:
    """A sentence on values without density, from what each run says of its data set, if there are any."""
    supports = [_supports(dataset.get("support")) for dataset in datasets]
    if not any(supports):
        return []
    if any(each != supports[0] for each in supports):
        return [
            "The models differ in the values that a column can have: some give no density to values beyond "
            "an end, and others do. run.json has the ends under `support`."
        ]
    atoms = typed(dict, datasets[0].get("atoms"))
    each = [support.of(name, typed(list, atoms.get(name))) for name, support in supports[0].items()]
    return [f"Columns with ends: {_first(each)}. Other values have no density, and are not drawn."]


def about_periods(datasets: Sequence[Mapping[str, object]]) -> list[str]:
    """A sentence on periodic columns, from what each run says of its data set, if there are any."""
    found = [_periods(dataset.get("periodic")) for dataset in datasets]
    if not any(found):
        return []
    if any(each != found[0] for each in found):
        return [
            "The models differ in the columns that they take for periodic. run.json has the periods under "
            "`periodic`."
        ]
    each = [f"{name} ({period.in_words})" for name, period in found[0].items()]
    return [
        f"Periodic: {_first(each)}. A density has no cut where a period ends, and adds up to 1 over one "
        "period."
    ]


def _periods(values: object) -> dict[str, Period]:
    """The periods that a run stores, by column; without any that is not as flowbench writes it."""
    found = {}
    for name, ends in typed(dict, values).items():
        with suppress(TypeError, ValueError):
            low, high = map(float, ends)
            found[str(name)] = Period(low, high)
    return found


def _supports(values: object) -> dict[str, Support]:
    """The supports that a run stores, by column; without any that is not as flowbench writes it."""
    found = {}
    for name, ends in typed(dict, values).items():
        with suppress(TypeError, ValueError):
            found[str(name)] = Support.of_ends(ends)
    return found


def find_objection(pitfalls: object, dataset: Mapping[str, object], test_rows: int) -> Objection | None:
    """The first reason for which likelihoods on `test_rows` rows do not rank models; None if they do."""
    known = typed(dict, pitfalls)
    if relations := _relations(known):
        return Objection(
            f"{_first(relations[0])} determine one another, and only rounding bounds a likelihood",
            "how closely it follows the surface on which the rows lie",
        )
    spikes = "how narrow its spikes are, not how well it fits"
    if atoms := _atoms(known):
        name, value, held = max(atoms, key=lambda atom: atom[2])
        where = f"{_percent(held)} of the rows have {name} = {value:.10g} exactly"
        return Objection(f"{where}, and a likelihood there grows without bound", spikes)
    rows = typed(int, dataset.get("rows"))
    repeating = {
        str(name): number
        for name, number in typed(dict, known.get("repeating")).items()
        if SPIKY * typed(int, number) <= rows
    }
    if repeating:
        where = _first(list(repeating))
        return Objection(f"values repeat in {where}, and a likelihood grows with every spike on one", spikes)
    repeated = typed(int, known.get("repeated_test_rows"))
    names, lattices = typed(list, dataset.get("columns")), typed(dict, dataset.get("lattices"))
    # Dequantised rows are equal by chance, and the model learns the cells, not the values.
    by_chance = bool(names) and all(name in lattices for name in names)
    if repeated > REPEATED_SHARE * test_rows and not by_chance:
        share = _percent(repeated / max(test_rows, 1))
        return Objection(
            f"{share} of the test rows are also train rows", "how well it knows rows by heart, too"
        )
    return None


def typed(kind: type[T], value: object) -> T:
    """`value` if it is of this kind, otherwise an empty value of the kind."""
    return value if isinstance(value, kind) else kind()


def _relations(pitfalls: Mapping[str, object]) -> list[list[str]]:
    groups = map(_sequence, _sequence(pitfalls.get("relations")))
    return [[str(name) for name in group] for group in groups if group]


def _atoms(pitfalls: Mapping[str, object]) -> list[tuple[str, float, float]]:
    """Column, value and share of the rows, for each value that many rows share."""
    found: list[tuple[str, float, float]] = []
    for name, atoms in typed(dict, pitfalls.get("atoms")).items():
        for atom in map(_sequence, _sequence(atoms)):
            numbers = [float(each) for each in atom if isinstance(each, int | float) and math.isfinite(each)]
            if len(numbers) == 2:
                found.append((str(name), numbers[0], numbers[1]))
    return found


def _sequence(value: object) -> Sequence[object]:
    """`value` if it is a list or a tuple, otherwise nothing."""
    return value if isinstance(value, list | tuple) else ()


def _percent(share: float) -> str:
    return f"{significant(100 * share)}%"


def _step(lattice: object) -> str:
    step = typed(dict, lattice).get("step")
    return f"{step:g}" if isinstance(step, int | float) else "an unknown step"


def _first(named: Sequence[str], noun: str = "more column") -> str:
    """The first few of many names, and how many more there are."""
    more = len(named) - NAMED_COLUMNS
    return listed(named[:NAMED_COLUMNS]) + (f" and {plural(more, noun)}" if more > 0 else "")
