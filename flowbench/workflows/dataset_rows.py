"""The rows of a run: the data set, its split, its cells, and what is wrong with the table."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flowbench.data import Dataset, Split, load_dataset
from flowbench.data.column_inference import infer_support
from flowbench.data.column_type import FLOAT64
from flowbench.data.lattice import Lattice
from flowbench.data.periods import Period, infer_period
from flowbench.data.repeats import find_atoms, find_copies, unite_groups
from flowbench.data.schema import REAL, Support
from flowbench.encoding.atoms import parse_atoms
from flowbench.encoding.circle import MOST, Circle, check_periods, parse_periods
from flowbench.encoding.column_items import infers_others
from flowbench.encoding.dequantiser import Dequantiser, choose_dequantiser, parse_spacings
from flowbench.encoding.support_map import SupportMap, open_supports, parse_supports, to_cells
from flowbench.errors import ConfigurationError, DataError, unknown_name
from flowbench.evaluation.pitfalls import Pitfalls, find_pitfalls
from flowbench.report.table_cautions import about_table
from flowbench.statistics.weighting import effective_size
from flowbench.workflows.config import RunConfig, SplitOptions

#: A note names at most this many values of a column.
MOST_NAMED = 5


def load_rows(config: RunConfig, datasets: Path) -> tuple[Dataset, Split]:
    """The data set of a configuration and its split; raises as `load_dataset` and `Split.draw` do.

    Rows of one group are in one part of the split. So are rows of a table that are copies of one another: a
    copy in the test rows would tell how well a model knows its train rows by heart. A column that gives the
    parts is taken as it is.
    """
    data, split = config.data, config.split
    columns = data.columns
    if columns is not None:
        columns = (*columns, *(name for name in data.given if name not in columns))
    dataset = (
        load_dataset(
            data.dataset, columns=columns, rows=data.rows, seed=data.seed, folder=datasets, reading=data
        )
        .giving(data.given)
        .with_mass(data.categories or ())
    )
    if data.missing == "model" and len(dataset.given) > len(dataset.categorical):
        raise ConfigurationError(
            f"`--missing model` learns all columns of `{dataset.name}` together, and does not go with "
            "`--given`; say `--missing drop`"
        )
    if dataset.weights is not None and data.missing == "model":
        raise ConfigurationError(
            f"`--missing model` does not go with `--weights {data.weights}` yet; say `--missing drop`"
        )
    if dataset.weights is not None:
        rows, size = len(dataset.rows), effective_size(dataset.weights)
        told = f"rows count by `{data.weights}`: {rows:,} rows say as much as {size:,.1f} of equal weight"
        dataset = replace(dataset, notes=(*dataset.notes, told))
    if dataset.parts is not None:
        _check_parts(config, dataset)
        return dataset, Split.of_parts(dataset.parts, data.seed)
    groups = dataset.groups
    if dataset.density is None:  # draws of a density are never the same
        copies = find_copies(dataset.rows)
        groups = copies if groups is None else unite_groups(groups, copies)
    fractions = (split.train, split.validation, split.test)
    return dataset, Split.draw(len(dataset.rows), fractions, data.seed, groups)


def _check_parts(config: RunConfig, dataset: Dataset) -> None:
    """Raise `ConfigurationError` for options of another split than that which the table gives."""
    given = {"--group": dataset.groups is not None, "split": config.split != SplitOptions()}
    for option in (name for name, is_given in given.items() if is_given):
        raise ConfigurationError(
            f"`{option}` does not go with the table `{dataset.name}`, in which a column names the part of "
            f"each row; leave `{option}` out"
        )


def set_atoms_aside(config: RunConfig, dataset: Dataset, split: Split) -> Dataset:
    """The data set with the atoms of its targets that the configuration asks for.

    By default they are those of the train rows (`flowbench.data.repeats.find_atoms`). None are found of a
    toy, of a table with published figures, and of columns that a density is given others for.
    Raises `ConfigurationError` for a column that is not there, or one of which hardly any value is left, and
    `DataError` for an atom that no train row holds.
    """
    wanted, names = config.data.atoms, dataset.target_names
    train = dict(zip(names, dataset.targets[split.train].T, strict=True))
    given, found = parse_atoms(wanted), dict[str, list[float]]()
    has_none = dataset.density is not None or len(dataset.given) > len(dataset.categorical)
    if infers_others(wanted) and not has_none and not dataset.published:
        others = {name: values for name, values in train.items() if name not in given}
        found = {name: sorted(value for value, _ in find_atoms(values)) for name, values in others.items()}
    if any(given.values()) and has_none:
        raise ConfigurationError(
            "`atoms` is for tables whose columns are all learnt together, not for toys or with `--given`; "
            "leave it out"
        )
    for name, atoms in given.items():
        if name not in names:
            raise ConfigurationError(f"`atoms`: {unknown_name('column', name, names)}")
        if missing := [value for value in atoms if value not in train[name]]:
            raise DataError(f"{dataset.name}: no train row has {missing[0]:g} in `{name}`, as `atoms` says")
        left = train[name][~(np.isin(train[name], atoms) | np.isnan(train[name]))]
        if len(np.unique(left)) < 2:
            raise DataError(
                f"{dataset.name}: the atoms of `{name}` leave {len(np.unique(left))} other value, which "
                "has no density; leave it out of `atoms`"
            )
    return _telling(dataset, {name: atoms for name, atoms in (found | given).items() if atoms})


def _telling(dataset: Dataset, atoms: Mapping[str, Sequence[float]]) -> Dataset:
    """The data set with `atoms`, and a note on each column that has some."""
    notes = list(dataset.notes)
    for name, values in atoms.items():
        place = dataset.column_names.index(name)
        known = dataset.rows[~np.isnan(dataset.rows[:, place]), place]
        held = np.isin(known, values).mean()
        told = dataset.columns[place].type.text(np.array(values, dtype=np.float64))
        named = ", ".join(f"{each:g}" if isinstance(each, float) else str(each) for each in told[:MOST_NAMED])
        more = f" and {len(told) - MOST_NAMED} more" if len(told) > MOST_NAMED else ""
        notes.append(
            f"column `{name}`: {held:.1%} of the rows hold {named}{more}, which gets a probability; the "
            "density is that of the other values; `--atoms none` learns a density of all"
        )
    return replace(dataset.with_atoms(atoms), notes=tuple(notes))


def _others(dataset: Dataset, rows: NDArray[np.int64] | None = None) -> dict[str, NDArray[np.float64]]:
    """The values that are no atoms of each target column, of these `rows`, by default of all."""
    targets = dataset.targets if rows is None else dataset.targets[rows]
    return {
        name: values[~(np.isin(values, dataset.atoms.get(name, ())) | np.isnan(values))]
        for name, values in zip(dataset.target_names, targets.T, strict=True)
    }


def find_dequantiser(config: RunConfig, dataset: Dataset, split: Split) -> Dequantiser:
    """The dequantiser that the configuration asks for, of a data set's targets by its train rows.

    Raises `ConfigurationError` for spacings that the columns cannot have, or of a toy.
    """
    wanted = config.data.dequantise
    spacings = parse_spacings(wanted)
    if spacings and dataset.density is not None:
        raise ConfigurationError(
            f"`dequantise` is for tables; `{dataset.name}` is drawn from a density; leave it out"
        )
    # Published figures are densities at points.
    others = infers_others(wanted) and dataset.density is None and not dataset.published
    return choose_dequantiser(_others(dataset, split.train), spacings, others=others)


def find_periods(config: RunConfig, dataset: Dataset) -> tuple[dict[str, Period], Dataset]:
    """The periods of columns, given ones too, that the configuration asks for; and the data set, with notes.

    By default they are those that are plain (`flowbench.data.periods.infer_period`), and none of a toy, of
    levels, of a table with published figures and of one with missing cells. Raises `ConfigurationError` for
    a column that is not there or has levels, for a toy, for missing cells, and for more periodic targets than
    a density can have.
    """
    wanted = config.data.periodic
    numeric = [column for column in dataset.columns if dataset.levels(column.name) is None]
    names, notes = [column.name for column in numeric], list(dataset.notes)
    is_of_density = dataset.density is not None or bool(dataset.published)
    if wanted == "none" or (wanted == "auto" and (is_of_density or dataset.has_gaps)):
        return {}, dataset
    if dataset.has_gaps:
        raise ConfigurationError(
            "`--missing model` does not go with `--periodic` yet; say `--missing drop`, or `--periodic none`"
        )
    values = {name: dataset.rows[:, dataset.column_names.index(name)] for name in names}
    if wanted != "auto":
        if dataset.density is not None:
            raise ConfigurationError(
                f"`periodic` is for tables; `{dataset.name}` is drawn from a density; leave it out"
            )
        found = parse_periods(wanted)
        check_periods(found, names)
    else:
        each = {
            column.name: infer_period(column.name, column.type.unit, values[column.name])
            for column in numeric
        }
        found = {name: period for name, period in each.items() if period is not None}
        more = [name for name in dataset.target_names if name in found][MOST:]
        found = {name: period for name, period in found.items() if name not in more}
        notes += [
            f"column `{name}` begins anew where it ends, {period.in_words}; `--periodic none` takes it for a "
            "line"
            for name, period in found.items()
        ]
        notes += [
            f"column `{name}` is periodic too, but taken for a line: a density has at most {MOST} of them"
            for name in more
        ]
    for name, period in found.items():
        atoms = dataset.atoms.get(name, ())
        outside = (values[name] < period.low) | (values[name] >= period.high)
        if count := int((outside & ~np.isin(values[name], atoms)).sum()):
            notes.append(
                f"column `{name}`: {count:,} of {len(dataset.rows):,} values lie outside its period, "
                f"{period.in_words}, and are moved into it by whole periods; its high end is its low one"
            )
    return found, replace(dataset, notes=tuple(notes))


def find_circle(periods: Mapping[str, Period], dataset: Dataset) -> Circle:
    """The circle of a data set's targets; raises `ConfigurationError` if too many of them have `periods`."""
    names = dataset.target_names
    return Circle(names, {name: each for name, each in periods.items() if name in names})


def find_support(
    config: RunConfig, dataset: Dataset, dequantiser: Dequantiser, periods: Collection[str] = ()
) -> SupportMap:
    """The support that the configuration asks for, of a data set's targets; that of a toy is real by default.

    Columns with `periods` have no ends. Raises `ConfigurationError` for a column that is not there or is
    periodic, and `DataError` for a value outside.
    """
    wanted, names = config.data.support, dataset.target_names
    lattices, given = dequantiser.lattices, parse_supports(wanted)
    values = _others(dataset)
    found = dict[str, Support]()
    if infers_others(wanted) and dataset.density is None:
        found = {
            name: _found(each, lattices.get(name), dataset.atoms.get(name, ()))
            for name, each in values.items()
            if name not in periods and name not in given
        }
    for name in given:
        if name not in names:
            raise ConfigurationError(f"`support`: {unknown_name('column', name, names)}")
        if name in periods:
            raise ConfigurationError(
                f"`support`: `{name}` is periodic and has no ends; leave it out, or take it for a line by "
                "`--periodic none`"
            )
    is_open = open_supports(wanted)
    for name, each in given.items():
        support = _of_places(each, lattices.get(name), holds_ends=name not in is_open)
        cells = dataset.targets[:, names.index(name)]
        passed = np.isin(cells, dataset.atoms.get(name, ())) | np.isnan(cells)
        outside = np.flatnonzero(~support.holds(cells) & ~passed)
        if len(outside):
            (number,) = dataset.numbers(outside[:1]).tolist()
            also = f", and {len(outside) - 1:,} more" if len(outside) > 1 else ""
            raise DataError(
                f"{dataset.name}: column `{name}`, row {number + 1}: {cells[outside[0]]:g} is not "
                f"{support.in_words}, as `support` says{also}; widen the support, whose ends are no values "
                "themselves, or leave the row out"
            )
        ends = _within_atoms(REAL, values[name], dataset.atoms.get(name, ()))
        ends = _of_places(ends, lattices.get(name), holds_ends=False)
        found[name] = Support(max(support.low, ends.low), min(support.high, ends.high))
    return SupportMap(names, found)


def _found(values: NDArray[np.float64], lattice: Lattice | None, atoms: Sequence[float]) -> Support:
    """The support of a column's `values: (n,)` beside its `atoms`, real if one would lie outside another."""
    found = _within_atoms(infer_support(values)[0], values, atoms)
    found = _of_places(found, lattice, holds_ends=False)
    return found if found.holds(values).all() else REAL


def _within_atoms(support: Support, values: NDArray[np.float64], atoms: Sequence[float]) -> Support:
    """The part of a `support` within those `atoms` that are ends.

    No value lies beyond an atom that is less or greater than all `values: (n,)`.
    """
    low = atoms[0] if atoms and atoms[0] < values.min() else support.low
    high = atoms[-1] if atoms and atoms[-1] > values.max() else support.high
    return Support(max(support.low, low), min(support.high, high))


def _of_places(support: Support, lattice: Lattice | None, *, holds_ends: bool) -> Support:
    return support if lattice is None else to_cells(support, lattice, holds_ends=holds_ends)


def tell_pitfalls(
    config: RunConfig, dataset: Dataset, split: Split, dequantiser: Dequantiser, tell: Callable[[str], None]
) -> Pitfalls:
    """What is wrong with a table, which `tell` hears in words."""
    pitfalls = find_pitfalls(dataset, split, dequantiser, config.evaluation.test_rows)
    for text in about_table(asdict(pitfalls), describe_dataset(dataset, dequantiser)):
        tell(text)
    return pitfalls


def describe_dataset(
    dataset: Dataset,
    dequantiser: Dequantiser,
    support: SupportMap | None = None,
    periods: Mapping[str, Period] | None = None,
) -> dict[str, Any]:
    """What `run.json` says of a data set; the weights, and not this, tell how its rows are encoded."""
    return {
        "name": dataset.name,
        **asdict(dataset.provenance),
        "rows": len(dataset.rows),
        "columns": list(dataset.target_names),
        **({"given": list(dataset.given)} if dataset.given else {}),
        **(
            {"categorical": list(dataset.categorical), "order": list(dataset.own_names)}
            if dataset.categorical
            else {}
        ),
        **({"atoms": atoms} if (atoms := {name: list(each) for name, each in dataset.atoms.items()}) else {}),
        **({"levels": levels} if (levels := given_levels(dataset)) else {}),
        **_published(dataset, dequantiser),
        "lattices": dequantiser.to_values(),
        **({"support": support.to_values()} if support else {}),
        **({"periodic": {name: [each.low, each.high] for name, each in periods.items()}} if periods else {}),
        "types": {
            column.name: column.type.to_values() for column in dataset.columns if column.type != FLOAT64
        },
        "notes": list(dataset.notes),
    }


def given_levels(dataset: Dataset) -> dict[str, list[float]]:
    """The levels of the given columns that have some, by name."""
    found = {name: dataset.levels(name) for name in dataset.given}
    return {name: levels for name, levels in found.items() if levels is not None}


def _published(dataset: Dataset, dequantiser: Dequantiser) -> dict[str, Any]:
    """The published figures, if the run is of the same density: that of points, in all columns."""
    if dataset.given or dequantiser.lattices or not dataset.published:
        return {}
    return {"published": [asdict(figure) for figure in dataset.published]}


def split_sizes(split: Split) -> dict[str, int]:
    """How many rows each part has, as `run.json` has it."""
    return {name: len(getattr(split, name)) for name in ("train", "validation", "test")}
