"""Finds out what a column holds from its cells, with the evidence in words."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from flowbench.data.bookkeeping import has_name_of_groups, why_identifier
from flowbench.data.cell_faults import listed, shown
from flowbench.data.cells import Cells
from flowbench.data.column_type import ColumnType
from flowbench.data.column_values import ColumnValues, Floats
from flowbench.data.lattice import LOOSE, Lattice, lattice_of_repeats
from flowbench.data.markers import find_markers
from flowbench.data.repeats import find_atoms
from flowbench.data.schema import LEVELLED, NUMERIC, POSITIVE, REAL, Atom, ColumnSchema, Kind, Level, Support

#: Text of at least this many cells identifies rows if at least this share of them differ.
FEWEST_NAMES, NEARLY_ALL = 10, 0.95
#: A column of numbers is ordinal with at most this many levels, half of which hold at least this many cells.
MOST_LEVELS, FEW_CELLS = 12, 5
#: Evenly spaced numbers are levels if there are at most so many, and this is how even they have to be.
MOST_EVEN, EVEN = 3, 1e-6
#: More texts than `MOST_LEVELS` are categories if they hold this many cells each, on average.
FEWEST_CELLS = 5
#: Values come close to a bound if they come as near to it as this share of the interquartile range.
NEAR = 0.1
#: Intervals that are taken for a support. A time of day lies between 0 and 86,400 seconds.
BOUNDS = (Support(0, 1), Support(0, 100), Support(-1, 1), Support(0, 360))
DAY = Support(0, 86400)
#: Tails are heavy if the range from 1% to 99%, in interquartile ranges, exceeds this many times a normal's.
HEAVY = 1.5
NORMAL_RANGE = 4.652696 / 1.348980
#: With fewer values the outer percentiles are single values.
FEWEST_FOR_TAILS = 100

_TRUTH = tuple(
    frozenset(pair)
    for pair in (("true", "false"), ("yes", "no"), ("t", "f"), ("y", "n"), ("on", "off"), ("0", "1"))
)


def infer_column(
    name: str,
    cells: Cells,
    values: ColumnValues,
    kind: Kind | None = None,
    atoms: Sequence[float] | None = None,
) -> ColumnSchema:
    """What the column `name` holds; `kind` and `atoms` are those of it if they are known.

    `values` are those of its `cells`. Missing cells decide nothing, nor does the order of the rows. A `kind`
    must be one that the values can have.
    """
    found, why = infer_kind(name, cells.type, values)
    if kind is not None:
        found, why = kind, ""
    missing = int(cells.is_missing.sum())
    schema = ColumnSchema(
        name=name,
        kind=found,
        missing=missing,
        missing_share=missing / len(cells.numbers),
        distinct=len(values.distinct),
        because=(why,) if why else (),
        unit=None if values.is_text else cells.type.unit,
    )
    if found in NUMERIC:
        schema = _numeric(schema, values.numbers, atoms)
    elif found in LEVELLED:
        schema = replace(schema, levels=_levels(values, found))
    return schema.saying(*_oddities(cells, values))


def infer_kind(name: str, type_: ColumnType, values: ColumnValues) -> tuple[Kind, str]:
    """The kind of the column `name` with these values, and the evidence for it in words."""
    k = len(values.distinct)
    if k == 0:
        return "constant", "no cell holds a value"
    if values.declared == "ordered":
        return "ordinal", f"the file orders its {k} levels"
    if k == 1:
        return "constant", f"the only value is {_shown(values.plain()[0])}"
    if values.declared == "boolean":
        return "boolean", "the file's type is boolean"
    return _kind_of_text(name, values) if values.is_text else _kind_of_numbers(name, type_, values)


def _kind_of_text(name: str, values: ColumnValues) -> tuple[Kind, str]:
    k, n = len(values.distinct), int(values.counts.sum())
    words = [str(each) for each in values.plain()]
    if n >= FEWEST_NAMES and k >= NEARLY_ALL * n:
        return "identifier", f"{k:,} of {n:,} texts differ, as names do"
    if has_name_of_groups(name) and k > MOST_LEVELS:
        return "identifier", f"its name is an identifier's, and its texts repeat, {k:,} of them"
    if rare := why_rare(values):
        return "identifier", rare
    if k == 2 and frozenset(word.lower() for word in words) in _TRUTH:
        return "boolean", f"the texts are `{shown(words[0])}` and `{shown(words[1])}`"
    declared = ", as the file declares them" if values.declared == "categories" else ""
    return "categorical", f"text of {k:,} levels{declared}"


def _kind_of_numbers(name: str, type_: ColumnType, values: ColumnValues) -> tuple[Kind, str]:
    numbers = values.numbers
    k, n = len(values.distinct), len(numbers)
    low, high = (float(each) for each in np.asarray(values.distinct)[[0, -1]])
    ends = f"from {_shown(low)} to {_shown(high)}"
    if type_.unit is not None:
        what = "times of day" if type_.unit == "seconds since midnight" else "dates"
        if type_.format:
            first, last = type_.text(np.array([low, high]))
            ends = f"from {first} to {last}"
        return ("time" if what == "times of day" else "date"), f"{what} {ends}, {k:,} distinct"
    if values.declared == "categories":
        return "categorical", f"the file declares its {k:,} numbers as categories"
    whole = bool(np.all(numbers == np.rint(numbers)))
    if k == 2 and (low, high) == (0, 1):
        return "boolean", "0 and 1 are the only values"
    if why := why_identifier(name, numbers):
        return "identifier", why
    # A probability mass at each value describes so few of them better than a density does.
    if are_few(np.asarray(values.distinct), values.counts):
        return "ordinal", f"{'whole ' * whole}numbers {ends}, only {k} distinct"
    lattice = lattice_of_repeats(numbers)
    if whole and low >= 0 and lattice is not None and lattice.step == 1:
        return "count", f"whole numbers {ends}, {k:,} distinct"
    return "continuous", f"{'whole ' * whole}numbers {ends}, {k:,} of {n:,} distinct"


def why_rare(values: ColumnValues) -> str | None:
    """Why nothing can be learnt of most texts of a column, in words; None if something can."""
    k, n = len(values.distinct), int(values.counts.sum())
    if k <= MOST_LEVELS or n >= FEWEST_CELLS * k:
        return None
    return f"its text has {k:,} levels in {n:,} cells, too few of each to learn from"


def repeat_often(counts: NDArray[np.int64]) -> bool:
    """Whether distinct values with these `counts: (k,)` are few, and most of them in several cells."""
    return len(counts) <= MOST_LEVELS and bool(np.median(counts) >= FEW_CELLS)


def are_few(distinct: Floats, counts: NDArray[np.int64]) -> bool:
    """Whether each of `distinct: (k,)` ascending numbers is a level: they are few, and `counts: (k,)` high.

    Evenly spaced numbers, of which there are more than `MOST_EVEN`, are counts or rounded measurements.
    """
    if not repeat_often(counts):
        return False
    with np.errstate(all="ignore"):
        gaps = np.diff(distinct)
        return len(distinct) <= MOST_EVEN or not bool((np.abs(gaps / gaps.min() - 1) < EVEN).all())


def _numeric(schema: ColumnSchema, numbers: Floats, known: Sequence[float] | None) -> ColumnSchema:
    """The schema with support, atoms, spacing and tails of its `numbers: (n,)`, and the evidence.

    The atoms are those `known`, if they are.
    """
    shares = (
        find_atoms(numbers) if known is None else [(each, float((numbers == each).mean())) for each in known]
    )
    atoms = tuple(Atom(*each) for each in shares)
    others = numbers[~np.isin(numbers, [each.value for each in atoms])]
    clauses = [
        f"{_shown(each.value)} holds {each.share:.1%} of the values, many more than others hold"
        for each in atoms
        if known is None
    ]
    support, why = REAL, ""
    if schema.kind in ("continuous", "time"):
        support, why = _support(others, numbers, (DAY,) if schema.kind == "time" else BOUNDS)
    lattice = lattice_of_repeats(others)
    tails, measured = _tails(others)
    clauses += [each for each in (why, _spaced(lattice, schema), measured) if each]
    spacing = None if lattice is None else lattice.step
    found = replace(schema, atoms=atoms, support=support, spacing=spacing, tails=tails)
    return found.saying(*clauses)


def infer_support(numbers: Floats) -> tuple[Support, str]:
    """The support in which all finite `numbers: (n,)` of a column lie, and the evidence for it.

    Unlike in a schema, whose atoms may lie on an end, it is real then. That of evenly spaced values from
    about 0 on, such as counts, is above the lower half of the cell of 0.
    """
    atoms = [value for value, _ in find_atoms(numbers)]
    others = numbers[~np.isin(numbers, atoms)]
    support, why = _support(others, numbers, BOUNDS)
    if support != REAL and support.holds(numbers).all():
        return support, why
    return _support_of_rounded(numbers)


def _support_of_rounded(numbers: Floats) -> tuple[Support, str]:
    """Above the cell of 0 for evenly spaced values from about 0 on, 0 among the places; else real."""
    low, high = float(numbers.min()), float(numbers.max())
    lattice = lattice_of_repeats(numbers)
    if low < 0 or lattice is None or lattice.off(np.zeros(1))[0] > LOOSE:
        return REAL, ""
    lower, upper = np.quantile(numbers, [0.25, 0.75])
    if low > max(lattice.step, NEAR * float(upper - lower)):
        return REAL, ""
    return Support(-lattice.step / 2), f"evenly spaced values from {low:g} to {high:g}"


def _spaced(lattice: Lattice | None, schema: ColumnSchema) -> str:
    if lattice is None or (schema.kind == "count" and lattice.step == 1):
        return ""
    return f"most values repeat, {_shown(lattice.step)} apart or multiples of that"


def _support(others: Floats, numbers: Floats, bounds: tuple[Support, ...]) -> tuple[Support, str]:
    """The support of `others: (m,)`, the `numbers: (n,)` that are no atoms, and the evidence for it."""
    if not len(others):
        return REAL, ""
    lower, upper = np.quantile(others, [0.25, 0.75])
    reach, low, high = float(upper - lower), float(others.min()), float(others.max())
    if reach <= 0:
        return REAL, ""
    for each in bounds:
        if each.low < low and high < each.high and numbers.min() >= each.low and numbers.max() <= each.high:
            gaps = (low - each.low) / reach, (each.high - high) / reach
            if max(gaps) <= NEAR:
                return each, (
                    f"values come as close to {each.low:g} and {each.high:g} as {_percent(gaps[0])} and "
                    f"{_percent(gaps[1])} of the interquartile range, and none lies beyond"
                )
    if bounds == (DAY,) or numbers.min() < 0:
        return REAL, ""
    if low > 0 and low / reach <= NEAR:
        return POSITIVE, f"least value {low:.3g}, {_percent(low / reach)} of the interquartile range above 0"
    if low == 0 and (others == 0).any():
        zeros = int((others == 0).sum())
        return REAL, f"no value is below 0, but {zeros:,} are 0, and no atom, so that 0 is no bound"
    return REAL, ""


def _tails(values: Floats) -> tuple[Literal["light", "heavy"] | None, str]:
    """Whether the tails of `values: (n,)` are heavy, and the measure in words.

    The measure is the range of 98% of the values over that of 50%, relative to a normal distribution, as in
    Hogg (1974) and Crow and Siddiqui (1967). Single far values do not change it, nor do units.
    """
    if len(values) < FEWEST_FOR_TAILS:
        return None, ""
    # Differences of the largest float64 overflow. Halves have the same ratio.
    low, lower, upper, high = np.quantile(values / 2, [0.01, 0.25, 0.75, 0.99])
    if upper <= lower:
        return None, ""
    ratio = float((high - low) / (upper - lower) / NORMAL_RANGE)
    words = f"98% of the values spread {ratio:.2f} times as wide as a normal's of that interquartile range"
    return ("heavy" if ratio > HEAVY else "light"), words


def _levels(values: ColumnValues, kind: Kind) -> tuple[Level, ...]:
    """The levels: in the order that the file gives, or else sorted."""
    counted = dict(zip(values.plain(), values.counts.tolist(), strict=True))
    if values.order is not None and kind == "ordinal":
        named = list(values.order) if isinstance(values.order, tuple) else values.order.tolist()
        counted = dict.fromkeys(named, 0) | counted
    return tuple(Level(value, count) for value, count in counted.items())


def _oddities(cells: Cells, values: ColumnValues) -> list[str]:
    """What is amiss with the cells of a column, in words."""
    found = [cells.fault] if cells.fault else []
    infinite, foreign = np.isinf(cells.numbers), cells.is_foreign
    if infinite.any():
        found.append(
            f"{int(infinite.sum()):,} cells are infinite, the first in row {_first(cells, infinite)}"
        )
    if values.is_text:
        folded = Counter(str(each).casefold() for each in values.plain())
        alike = [str(each) for each in values.plain() if folded[str(each).casefold()] > 1]
        if alike and len(alike) <= MOST_LEVELS:
            found.append(f"levels differ only in case: {listed([f'`{shown(each)}`' for each in alike])}")
        return found
    if foreign.any():
        text = shown(cells.text(int(np.argmax(foreign))))
        found.append(
            f"{int(foreign.sum()):,} cells are no numbers, such as `{text}` in row {_first(cells, foreign)}"
        )
    for marker in find_markers(values.numbers):
        row = cells.row(int(values.rows[marker.row - 1]))
        found.append(
            f"{_shown(marker.value)} in row {row} stands apart from the others, as a mark of missing cells "
            "does; `--missing-value` says so"
        )
    return found


def _first(cells: Cells, places: NDArray[np.bool_]) -> int:
    return cells.row(int(np.argmax(places)))


def _percent(share: float) -> str:
    return f"{100 * share:.2g}%"


def _shown(value: str | float) -> str:
    return f"`{shown(value)}`" if isinstance(value, str) else f"{value:.10g}"
