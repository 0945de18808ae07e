"""What a user says of a column in a schema file, and how that changes what was inferred."""

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray
from pydantic import field_validator

from flowbench.data.cells import Cells
from flowbench.data.column_inference import infer_column
from flowbench.data.column_values import ColumnValues, Integers
from flowbench.data.lattice import IN_PLACE, LOOSE, anchored, share_in_place
from flowbench.data.schema import (
    KINDS,
    LEVELLED,
    NUMERIC,
    POSITIVE,
    REAL,
    SUPPORTED,
    ColumnSchema,
    Kind,
    Level,
    Support,
)
from flowbench.errors import ConfigurationError, DataError, unknown_name
from flowbench.options import Options

#: A spacing of none, in words.
NO_SPACING = "none"


class ColumnSettings(Options):
    """What a schema file says of a column; what is None stays as inferred.

    `support` is "real", "positive", or two ends. `atoms` are values with a probability mass. `spacing` is
    that of evenly spaced values, or "none". `levels` are all values of a column of levels, in order if the
    column is ordinal; a number stands for a number, and text for text.
    """

    kind: Kind | None = None
    support: Any = None
    atoms: tuple[float, ...] | None = None
    spacing: Any = None
    levels: tuple[Any, ...] | None = None

    @property
    def keys(self) -> set[str]:
        """The keys that are there, beside the kind."""
        return {name for name, value in self if value is not None and name != "kind"}

    @field_validator("kind", mode="before")
    @classmethod
    def _known(cls, kind: Any) -> Any:
        if kind is not None and kind not in KINDS:
            raise ValueError(unknown_name("kind", str(kind), KINDS))
        return kind

    @field_validator("support", mode="before")
    @classmethod
    def _interval(cls, value: Any) -> Support | None:
        if value is None or isinstance(value, Support):
            return value
        if value in ("real", "positive"):
            return REAL if value == "real" else POSITIVE
        ends = value if isinstance(value, list | tuple) and len(value) == 2 else ()
        if not ends or not all(map(_is_number, ends)) or not -math.inf < ends[0] < ends[1] < math.inf:
            raise ValueError(f"takes `real`, `positive`, or two ends such as [0, 1]; got {value!r}")
        return Support(float(ends[0]), float(ends[1]))

    @field_validator("atoms", mode="before")
    @classmethod
    def _numbers_once(cls, atoms: Any) -> Any:
        if atoms is not None and not (
            isinstance(atoms, list | tuple)
            and all(_is_number(each) and math.isfinite(each) for each in atoms)
            and len(set(atoms)) == len(atoms)
        ):
            raise ValueError(f"takes different numbers in brackets, such as [0, 1]; got {atoms!r}")
        return atoms

    @field_validator("spacing", mode="before")
    @classmethod
    def _step(cls, value: Any) -> Any:
        if value is None or value == NO_SPACING:
            return value
        if not _is_number(value) or not 0 < value < math.inf:
            raise ValueError(f"takes a positive number, or `none`; got {value!r}")
        return float(value)

    @field_validator("levels", mode="before")
    @classmethod
    def _values_once(cls, levels: Any) -> Any:
        if levels is None:
            return None
        if not isinstance(levels, list | tuple) or not levels:
            raise ValueError(f'takes values in brackets, such as ["low", "high"]; got {levels!r}')
        numbers = all(_is_number(each) and math.isfinite(each) for each in levels)
        if not numbers and not all(isinstance(each, str) for each in levels):
            raise ValueError(f"takes texts alone or finite numbers alone; got {levels!r}")
        if len(set(levels)) < len(levels):
            raise ValueError(f"names a level twice; got {levels!r}")
        return tuple(map(float, levels)) if numbers else tuple(levels)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def settings_of(schema: ColumnSchema) -> ColumnSettings:
    """What a schema file says of a column as it is."""
    values: dict[str, Any] = {"kind": schema.kind}
    if schema.kind in NUMERIC:
        values["support"] = schema.support if schema.kind in SUPPORTED else None
        values["atoms"] = tuple(each.value for each in schema.atoms)
        values["spacing"] = NO_SPACING if schema.spacing is None else schema.spacing
    elif schema.levels:
        values["levels"] = tuple(each.value for each in schema.levels)
    return ColumnSettings(**values)


def override(
    inferred: ColumnSchema, cells: Cells, values: ColumnValues, settings: ColumnSettings, where: str
) -> ColumnSchema:
    """The schema of a column with what `settings` say in place of what was `inferred`.

    `overridden` names what differs. Settings that the column's kind has no use for are passed over, which the
    evidence says. Raises `DataError` for settings that the column's values contradict. It says `where` the
    settings are, and names the column, the key and the first row that does not fit.
    """
    check = _Check(inferred.name, cells, values, where)
    schema, kind = inferred, settings.kind or inferred.kind
    changed, said = None, list[str]()
    if kind != inferred.kind:
        check.kind(kind)
        changed = kind
        schema = infer_column(inferred.name, cells, values, changed)
        said.append(f"kind is {kind}, where the values suggest {inferred.kind}")
    atoms = {each.value for each in schema.atoms}
    if kind in NUMERIC and settings.atoms is not None and set(settings.atoms) != atoms:
        # What is not said of the column follows from these atoms.
        schema = infer_column(inferred.name, cells, values, changed, settings.atoms)
        said.append(f"atoms are {_listed(settings.atoms)}, where the values suggest {_listed(atoms)}")
    schema = replace(schema, overridden=tuple(said))
    if idle := sorted(settings.keys - USED[kind]):
        schema = schema.saying(f"{' and '.join(f'`{each}`' for each in idle)} of {where} have no use here")
    if kind in NUMERIC:
        return _numeric(schema, settings, check)
    if settings.levels is not None and kind in LEVELLED:
        return _levelled(schema, settings.levels, check)
    return schema


#: The keys beside the kind that columns of each kind use.
USED: Mapping[Kind, frozenset[str]] = (
    dict.fromkeys(NUMERIC, frozenset({"atoms", "spacing"}))
    | dict.fromkeys(SUPPORTED, frozenset({"support", "atoms", "spacing"}))
    | dict.fromkeys(LEVELLED, frozenset({"levels"}))
    | {"identifier": frozenset()}
)


def _numeric(schema: ColumnSchema, settings: ColumnSettings, check: "_Check") -> ColumnSchema:
    said = list(schema.overridden)
    if schema.kind not in SUPPORTED:
        settings = settings.model_copy(update={"support": None})
    if settings.support is not None and settings.support != schema.support:
        said.append(f"support is {settings.support}, where the values suggest {schema.support}")
        schema = replace(schema, support=settings.support)
    check.support(schema)
    spacing = None if settings.spacing == NO_SPACING else settings.spacing
    if settings.spacing is not None and spacing != schema.spacing:
        suggested = NO_SPACING if schema.spacing is None else f"{schema.spacing:g}"
        said.append(f"spacing is {settings.spacing}, where the values suggest {suggested}")
        if spacing is not None:
            check.spacing(spacing, schema)
        schema = replace(schema, spacing=spacing)
    return replace(schema, overridden=tuple(said))


def _levelled(schema: ColumnSchema, levels: tuple[str | float, ...], check: "_Check") -> ColumnSchema:
    counts = {each.value: each.count for each in schema.levels}
    check.levels(levels)
    if levels == tuple(counts):
        return schema
    given = tuple(Level(value, counts.get(value, 0)) for value in levels)
    said = f"levels are {_listed(levels)}, where the values suggest {_listed(counts)}"
    return replace(schema, levels=given, overridden=(*schema.overridden, said))


class _Check:
    """Compares settings with the values of a column, and raises `DataError` for the first that do not fit."""

    def __init__(self, name: str, cells: Cells, values: ColumnValues, where: str) -> None:
        self.name, self.cells, self.values, self.where = name, cells, values, where

    def refuse(self, key: str, what: str) -> NoReturn:
        raise DataError(f"{self.where}: column `{self.name}`: `{key}`: {what}")

    def row(self, unfit: NDArray[np.bool_]) -> tuple[int, str]:
        """The first row, from 1, whose known value is `unfit: (m,)`, and that value in words."""
        row = int(self.values.rows[int(np.argmax(unfit))])
        value = self.values.plain()[int(self.values.codes[row])]
        return self.cells.row(row), value if isinstance(value, str) else f"{value:.10g}"

    def kind(self, kind: Kind) -> None:
        """Whether the values can be of this kind."""
        known: Integers = self.values.codes[self.values.rows]
        numbers, key = self.values.numbers, f'kind = "{kind}"'
        if kind in NUMERIC and self.values.is_text:
            if not len(known):
                self.refuse(key, "no cell holds a value")
            row, value = self.row(np.ones(len(known), dtype=bool))
            why = f"; {self.cells.fault}" if self.cells.fault else ""
            self.refuse(key, f"row {row} holds `{value}`, which is not read as a number{why}")
        unit = self.cells.type.unit
        wanted = {"date": "since 1970-01-01", "time": "since midnight"}.get(kind)
        if wanted and not (unit or "").endswith(wanted):
            self.refuse(
                key, f"its cells are read as {unit or 'plain numbers'}; `--date-format` says how to read them"
            )
        if kind == "count" and (unfit := (numbers != np.rint(numbers)) | (numbers < 0)).any():
            row, value = self.row(unfit)
            self.refuse(key, f"row {row} holds {value}, and counts are whole numbers from 0 on")
        most = {"constant": 1, "boolean": 2}.get(kind)
        if most is not None and len(self.values.distinct) > most:
            first = list(dict.fromkeys(known.tolist()))
            row, value = self.row(known == first[most])
            others = f"{most} other value{'s' * (most > 1)}"
            self.refuse(key, f"row {row} holds `{value}` beside {others}, which is one too many")

    def support(self, schema: ColumnSchema) -> None:
        """Whether all values lie inside the support, or are atoms."""
        support, numbers = schema.support, self.values.numbers
        beside = ~np.isin(numbers, [each.value for each in schema.atoms])
        key = f"support = {support.value}"
        if (unfit := beside & ((numbers < support.low) | (numbers > support.high))).any():
            row, value = self.row(unfit)
            self.refuse(key, f"row {row} holds {value}, which lies beyond")
        if (unfit := beside & ((numbers == support.low) | (numbers == support.high))).any():
            row, value = self.row(unfit)
            self.refuse(key, f"row {row} holds {value}, where the open interval ends; name it in `atoms`")

    def spacing(self, step: float, schema: ColumnSchema) -> None:
        """Whether nearly all values that are no atoms lie on a lattice with this step."""
        numbers = self.values.numbers
        beside = ~np.isin(numbers, [each.value for each in schema.atoms])
        where = f"{self.where}: column `{self.name}`: `spacing`"
        if not beside.any():
            self.refuse("spacing", "all values are atoms")
        try:
            lattice = anchored(self.name, numbers[beside], step, where)
        except ConfigurationError as error:
            raise DataError(str(error)) from None
        if share_in_place(lattice, numbers[beside], LOOSE) < IN_PLACE:
            row, value = self.row(beside & (lattice.off(numbers) > LOOSE))
            self.refuse("spacing", f"row {row} holds {value}, which is no multiple of {step:g} from the rest")

    def levels(self, levels: tuple[str | float, ...]) -> None:
        """Whether every value is a level."""
        if self.values.is_text != isinstance(levels[0], str) and len(self.values.distinct):
            self.refuse("levels", f"takes {'texts' if self.values.is_text else 'numbers'}, as the column has")
        known = np.array([value in set(levels) for value in self.values.plain()], dtype=bool)
        unfit = ~known[self.values.codes[self.values.rows]]
        if unfit.any():
            row, value = self.row(unfit)
            self.refuse("levels", f"row {row} holds `{value}`, which is none of them")


def _listed(values: Any) -> str:
    shown = [f"`{each}`" if isinstance(each, str) else f"{each:g}" for each in values]
    return ", ".join(shown[:10] + ["..."] * (len(shown) > 10)) or "none"
