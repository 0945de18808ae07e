"""What a schema file says of the columns of a table, as the options of a fit."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NoReturn

from flowbench.data import ColumnSettings, settings_from_values
from flowbench.data.catalogue import is_file
from flowbench.data.cell_faults import join_names, listed
from flowbench.data.description import DatasetCells, read_cells
from flowbench.data.periods import infer_period
from flowbench.data.row_draw import RowDraw
from flowbench.data.schema import LEVELLED, NUMERIC, REAL, Kind
from flowbench.data.schema_settings import NO_SPACING, USED
from flowbench.data.table_check import CheckedColumn, check_columns, settings_there
from flowbench.encoding.atoms import parse_atoms
from flowbench.encoding.circle import parse_periods
from flowbench.encoding.column_items import AUTO, NONE, infers_others
from flowbench.encoding.dequantiser import parse_spacings
from flowbench.encoding.support_map import parse_supports
from flowbench.errors import ConfigurationError
from flowbench.workflows.config import DataOptions, RunConfig
from flowbench.workflows.config_values import merge, read_file

#: What a fit does with a column: learns its density, or its probability mass, or leaves it out.
Role = Literal["number", "category", "nothing"]
#: Of each option that speaks of columns: the key of a schema file, what reads it, and what a column has of
#: which it says nothing and infers nothing.
_BY_COLUMN: dict[str, tuple[str, Callable[[str], Mapping[str, Any]], Any]] = {
    "support": ("support", parse_supports, REAL),
    "atoms": ("atoms", parse_atoms, []),
    "dequantise": ("spacing", parse_spacings, None),
}


def apply_schema(
    configs: Sequence[RunConfig], file: Path, datasets: Path, tell: Callable[[str], None]
) -> list[RunConfig]:
    """The `configs` with what a schema file says of the columns of their tables; `tell` hears it in lines.

    The settings become options that say the same, so that a run does not need the file later. What the file
    does not say is inferred by the fit, as without it. Raises `ConfigurationError` for a file that is no
    schema, for an option that contradicts it, and for data that are no table file. Raises as
    `flowbench.data.check_table` does for settings that the table contradicts.
    """
    settings = settings_from_values(_read(file), str(file))
    found: dict[DataOptions, dict[str, Any]] = {}
    lines = list[str]()
    for data in dict.fromkeys(config.data for config in configs):
        found[data], told = _options_of(settings, data, str(file), datasets)
        lines += told
    for line in dict.fromkeys(lines):
        tell(line)
    return [type(each)(**merge(each.to_values(), {"data": found[each.data]})) for each in configs]


def _read(file: Path) -> dict[str, Any]:
    if not file.exists():
        raise ConfigurationError(
            f"there is no schema file {file}; `flowbench datasets check TABLE --schema {file}` makes one"
        )
    return read_file(file, "schema file")


def _options_of(
    settings: Mapping[str, ColumnSettings], data: DataOptions, where: str, datasets: Path
) -> tuple[dict[str, Any], list[str]]:
    """The options of a data set that `settings` stand for, and lines on what they are."""
    if not is_file(data.dataset):
        raise ConfigurationError(
            f"`--schema` says what the columns of a table file are; `{data.dataset}` is none; leave it out"
        )
    columns = data.columns
    if columns is not None:
        columns = (*columns, *(name for name in data.given if name not in columns))
    # The table as it is: options from an earlier schema would hide columns.
    plain = data.model_copy(update=dict.fromkeys(("numeric", "leave_out", "levels")))
    read = read_cells(data.dataset, columns, datasets, plain, RowDraw.asked(data.rows, data.seed))
    used = {data.group: "--group", data.split_column: "--split-column", data.weights: "--weights"}
    aside = {name: used[name] for name in settings if name in used and name not in read.every}
    own = {name: each for name, each in settings.items() if name not in aside}
    known, notes = settings_there(read, own, columns, where)
    cells = {name: each for name, each in read.every.items() if name in known}
    translation = _Translation(data, read, where)
    for name, option in aside.items():
        translation.say(f"column `{name}` is no data, as `{option}` names it, and its entry is passed over")
    for name, column in check_columns(cells, known, where).items():
        translation.add(name, known[name], column)
    lines = [*notes, *translation.lines()]
    return translation.options(), [f"{read.name}: {line}" for line in lines]


class _Translation:
    """Gathers the options that the settings of one column after another stand for."""

    def __init__(self, data: DataOptions, read: DatasetCells, where: str) -> None:
        self._data, self._read, self._where = data, read, where
        self._roles: dict[str, Role] = {}
        self._levels: dict[str, list[str | float]] = {}
        # Items of options by column, such as "rain=0", by option and column.
        self._items: dict[str, dict[str, list[str]]] = {option: {} for option in _BY_COLUMN}
        self._unordered: list[str] = []
        self._said: list[str] = []

    def say(self, what: str) -> None:
        """Keep a line on what the file says and a fit cannot do."""
        self._said.append(f"{self._where}: {what}")

    def add(self, name: str, told: ColumnSettings, column: CheckedColumn) -> None:
        """Take what is `told` of a column into the options."""
        kind = column.schema.kind
        if useless := told.keys - USED[kind]:
            self._make_no_use(name, useless, f"the column is {kind}")
        used = told.keys & USED[kind]
        if told.kind is None and (not used or _role(kind) == "nothing"):
            return
        role, key = _role(kind), f'kind = "{kind}"' if told.kind else sorted(used)[0]
        if name in self._read.left_out and told.kind in (None, column.suggested) and role != "nothing":
            self.say(f"column `{name}` is no data to a fit: {self._read.left_out[name][1]}")
            return
        self._compare_roles(name, role, key)
        if role == "category" and self._data.given and name not in self._data.given:
            if column.values.is_text:
                return  # which a fit refuses, with a remedy
            self.say(
                f"column `{name}` is learnt as a number: probabilities of categories are not learnt given "
                "other columns"
            )
            self._roles[name] = "number"
            return
        self._roles[name] = role
        if role == "category" and told.levels is not None:
            self._take_levels(name, list(told.levels))
        if kind == "ordinal":
            self._unordered.append(name)
        if role == "number":
            self._take_numeric(name, told, column, used)

    def _compare_roles(self, name: str, role: Role, key: str) -> None:
        """Raise `ConfigurationError` if an option says another thing of a column than the file."""
        data = self._data
        options: tuple[tuple[str, Sequence[str] | None, tuple[Role, ...]], ...] = (
            ("--keep", data.keep, ("number",)),
            ("numeric", data.numeric, ("number",)),
            ("--categories", data.categories, ("category",)),
            ("leave_out", data.leave_out, ("nothing",)),
            ("--columns", data.columns, ("number", "category")),
            ("--given", data.given, ("number", "category")),
        )
        for option, names, roles in options:
            if name in (names or ()) and role not in roles:
                self._refuse(name, key, option)

    def _take_levels(self, name: str, levels: list[str | float]) -> None:
        known = self._data.levels_of(name)
        if known is not None and set(known) != set(levels):
            self._refuse(name, "levels", "levels")
        self._levels[name] = levels

    def _take_numeric(self, name: str, told: ColumnSettings, column: CheckedColumn, used: set[str]) -> None:
        schema, data = column.schema, self._data
        if name in data.given:
            if vain := [key for key in sorted(used) if _says_something(told, key)]:
                self._make_no_use(name, vain, "the column is given")
            return
        if "support" in used:
            if self._is_periodic(name, column):
                if schema.support != REAL:
                    self._make_no_use(name, ["support"], "the column is periodic")
            else:
                # The ends of a schema's support are no values, whatever is dequantised.
                low, high = ("" if end is None else repr(end) for end in schema.support.ends)
                ends = ":" if schema.support == REAL else f"({low}:{high})"
                self._items["support"][name] = [f"{name}={ends}"]
        if told.atoms and data.given:
            self._make_no_use(name, ["atoms"], "atoms are not learnt given other columns")
        elif told.atoms is not None:
            items = [f"{name}={float(value)!r}" for value in sorted(told.atoms)]
            self._items["atoms"][name] = items or [f"{name}={NONE}"]
        if told.spacing is not None:
            step = NONE if told.spacing == NO_SPACING else repr(told.spacing)
            self._items["dequantise"][name] = [f"{name}={step}"]

    def _is_periodic(self, name: str, column: CheckedColumn) -> bool:
        """Whether the fit will take a column for periodic."""
        data = self._data
        if data.periodic not in (AUTO, NONE):
            return name in parse_periods(data.periodic)
        has_gaps = data.missing == "model" and any(
            each.is_missing.any() for each in self._read.cells.values()
        )
        if data.periodic == NONE or has_gaps or self._read.published:
            return False
        return infer_period(name, column.schema.unit, column.values.numbers) is not None

    def options(self) -> dict[str, Any]:
        """The options of the data set, those that were there among them."""
        data = self._data
        mine = {
            "numeric": [name for name in self._of("number") if name not in (data.keep or ())],
            "categories": self._of("category"),
            "leave_out": self._of("nothing"),
        }
        found: dict[str, Any] = {
            option: list(dict.fromkeys((*(getattr(data, option) or ()), *names)))
            for option, names in mine.items()
            if names
        }
        if self._levels:
            known = {each.column: list(each.values) for each in data.levels or ()} | self._levels
            found["levels"] = [{"column": name, "values": values} for name, values in known.items()]
        return found | {option: self._joined(option) for option in _BY_COLUMN}

    def _joined(self, option: str) -> str:
        """An option with the file's items behind its own; raises `ConfigurationError` if they differ."""
        text, items = getattr(self._data, option), self._items[option]
        key, parse, none = _BY_COLUMN[option]
        new = [each for of_column in items.values() for each in of_column]
        own, infers = parse(text), infers_others(text)
        for name, value in parse(join_names(new)).items() if new else ():
            if (name in own or not infers) and own.get(name, none) != value:
                self._refuse(name, key, f"--{option} {text}")
        added = [each for name, of_column in items.items() if name not in own for each in of_column]
        return f"{text},{join_names(added)}" if infers and added else text

    def lines(self) -> list[str]:
        """What the file settles, in one line, and lines on what a fit cannot do."""
        parts = {
            "categories": self._of("category"),
            "numbers": self._of("number"),
            "left out": self._of("nothing"),
            "levels of": list(self._levels),
            **{f"{_BY_COLUMN[option][0]} of": list(items) for option, items in self._items.items()},
        }
        told = "; ".join(f"{what} {listed(names)}" for what, names in parts.items() if names)
        lines = [f"{self._where} settles: {told or 'nothing'}", *self._said]
        if self._unordered:
            order = f"the order of the levels of {listed(self._unordered)} is not used"
            lines.append(f"{self._where}: {order}: they are learnt as categories")
        return lines

    def _of(self, role: Role) -> list[str]:
        return [name for name, each in self._roles.items() if each == role]

    def _make_no_use(self, name: str, keys: Iterable[str], why: str) -> None:
        listed_keys = " and ".join(f"`{key}`" for key in sorted(keys))
        self.say(f"column `{name}`: a fit makes no use of {listed_keys}, since {why}")

    def _refuse(self, name: str, key: str, option: str) -> NoReturn:
        raise ConfigurationError(
            f"{self._where}: column `{name}`: `{key}` contradicts `{option}`; take the column out of one of "
            "them"
        )


def _role(kind: Kind) -> Role:
    """What a fit does with a column of a kind."""
    if kind in NUMERIC:
        return "number"
    return "category" if kind in LEVELLED and kind != "constant" else "nothing"


def _says_something(told: ColumnSettings, key: str) -> bool:
    """Whether a column would be another one without the key."""
    value = getattr(told, key)
    return bool(value) and value not in (REAL, NO_SPACING)
