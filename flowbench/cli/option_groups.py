"""Options that several commands share, as one object for each group.

A command takes a group as a parameter, such as `options: FitOptions`, and `with_options` tells typer about
the options in it. A new option is one field here; every command with that group then has it.
"""

import csv
import inspect
import re
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, fields, is_dataclass
from functools import wraps
from pathlib import Path
from typing import Annotated, Any, TypeGuard, get_type_hints

import typer

from flowbench.cli.completion import complete_run
from flowbench.cli.parameters import ColumnsOption
from flowbench.errors import ConfigurationError

Command = Callable[..., Any]


@dataclass(frozen=True)
class ReadingOptions:
    """How a table's file is read; the fields have the names of `flowbench.data.ReadOptions`.

    None stands for an option that was not given.
    """

    header: Annotated[str | None, typer.Option(help="Whether the first line holds names: yes or no.")] = None
    separator: Annotated[
        str | None,
        typer.Option(help="What separates cells: a character, or comma, semicolon, tab, pipe, blanks."),
    ] = None
    decimal: Annotated[str | None, typer.Option(help="The decimal sign: a point or a comma.")] = None
    thousands: Annotated[
        str | None,
        typer.Option(help="What stands between thousands: a character, or comma, point, blank, apostrophe."),
    ] = None
    encoding: Annotated[str | None, typer.Option(help="The encoding of the text, such as cp1252.")] = None
    date_format: Annotated[
        list[str] | None, typer.Option(help="How dates are written, such as %d.%m.%Y; repeatable.")
    ] = None
    missing_values: Annotated[
        list[str] | None,
        typer.Option("--missing-value", help="A cell that holds nothing, such as -999; repeatable."),
    ] = None
    missing: Annotated[
        str | None,
        typer.Option(
            help="Rows with missing cells: refuse (the default) the table, drop them, or model the cells "
            "that are there."
        ),
    ] = None
    keep: Annotated[
        str | None,
        typer.Option(help="Columns whose values are numbers as they stand, whatever they look like."),
    ] = None
    categories: Annotated[
        str | None,
        typer.Option(help="Columns whose values are levels without an order, such as codes."),
    ] = None
    group: Annotated[
        str | None, typer.Option(help="Keep rows that agree in this column in one part of the split.")
    ] = None
    split_column: Annotated[
        str | None, typer.Option(help="The column that names each row's part: train, validation or test.")
    ] = None
    weights: Annotated[
        str | None, typer.Option(help="The column that says how much each row counts; 2 as two rows.")
    ] = None

    def given(self) -> dict[str, Any]:
        """The options that were given, as `flowbench.data.ReadOptions` takes them.

        Raises `ConfigurationError` if `keep` or `categories` is no list of names.
        """
        values = vars(self) | {
            "keep": split_names(self.keep, "--keep"),
            "categories": split_names(self.categories, "--categories"),
        }
        return {name: value for name, value in values.items() if value is not None}


#: Reading options that a command has only if it fits: the others split no table, drop no rows of it and take
#: no means over them.
ONLY_FOR_FITS = ("missing", "group", "split_column", "weights", "categories")


@dataclass(frozen=True)
class FitOptions:
    """How models are fitted.

    `compare` makes many runs, so it leaves out what belongs to a single one: `seed`, `name` and `resume`.
    """

    preset: Annotated[str, typer.Option(help="A recipe: default, or ffjord for cnf.")] = "default"
    time_budget: Annotated[
        str | None,
        typer.Option(
            help="Training time: 60s, 5m, 1h (default: 60s, unless --steps or the preset sets steps)."
        ),
    ] = None
    steps: Annotated[int | None, typer.Option(help="Training steps.")] = None
    columns: ColumnsOption = None
    given: Annotated[
        str | None,
        typer.Option(help="Model the other columns given these, p(others | given): names with commas."),
    ] = None
    series: Annotated[str | None, typer.Option(help="Learn time series; this column tells them apart.")] = (
        None
    )
    time: Annotated[str | None, typer.Option(help="The column that has the times of time series.")] = None
    repeated: Annotated[
        str | None,
        typer.Option(help="Rows of one series at one time: average (the default) or refuse them."),
    ] = None
    reading: ReadingOptions = ReadingOptions()
    dequantise: Annotated[
        str | None,
        typer.Option(
            help="Spread columns of evenly spaced values over their cells: auto (the default: where most "
            "values repeat), none, or spacings such as age=1,height=0.1.",
        ),
    ] = None
    support: Annotated[
        str | None,
        typer.Option(
            help="Values that columns can have: auto (the default: between ends that they come close to, "
            "such as 0), none (all numbers), or ends such as mass=0:,share=0:1."
        ),
    ] = None
    atoms: Annotated[
        str | None,
        typer.Option(
            help="Values with a probability of their own: auto (the default: those that many more rows hold "
            "than others), none, or values such as rain=0,price=0."
        ),
    ] = None
    periodic: Annotated[
        str | None,
        typer.Option(
            help="Columns that begin anew where they end: auto (the default: times of day, and hours and "
            "angles by name and values), none, or periods such as hour=24,phase=-180:180."
        ),
    ] = None
    schema: Annotated[
        Path | None,
        typer.Option(help="TOML file with what the columns are, as `datasets check --schema` writes it."),
    ] = None
    rows: Annotated[
        int | None,
        typer.Option(
            help="Rows to draw: of a toy density, or at random of a table (default: all); or series of a toy."
        ),
    ] = None
    seed: Annotated[int | None, typer.Option(help="Seed of weights, batches and samples.")] = None
    name: Annotated[str | None, typer.Option(help="Name of the run's folder in runs/.")] = None
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with this interrupted run, as it was, or with --set evaluation.option=value.",
            autocompletion=complete_run,
        ),
    ] = None
    config: Annotated[
        Path | None, typer.Option(help="TOML file with options, such as a run's config.toml.")
    ] = None
    settings: Annotated[
        list[str] | None,
        typer.Option("--set", help="part.option=value, such as flow.field.width=128; repeatable."),
    ] = None
    threads: Annotated[int | None, typer.Option(help="CPU threads (default: 1).")] = None
    device: Annotated[str | None, typer.Option(help="cpu (the default) or cuda.")] = None
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Print the resolved configuration and stop.")] = (
        False
    )

    def overrides(self) -> dict[str, Any]:
        """The options that stand for one value of the configuration, by its name there.

        Raises `ConfigurationError` for a text that cannot be read, such as a time without digits.
        """
        return {
            "plan.seconds": None if self.time_budget is None else parse_duration(self.time_budget),
            "plan.steps": self.steps,
            "data.columns": split_names(self.columns, "--columns"),
            "data.given": split_names(self.given, "--given"),
            "data.series": self.series,
            "data.time": self.time,
            "data.repeated": self.repeated,
            "data.dequantise": self.dequantise,
            "data.support": self.support,
            "data.atoms": self.atoms,
            "data.periodic": self.periodic,
            "data.rows": self.rows,
            "threads": self.threads,
            "device": self.device,
            "seed": self.seed,
            **{f"data.{name}": value for name, value in self.reading.given().items()},
        }


def with_options(without: Collection[str] = ()) -> Callable[[Command], Command]:
    """Let a command take groups of options: parameters whose annotation is a dataclass of this module.

    typer reads a command's options off its signature. The decorated command shows typer the fields of each
    group in place of the group. Called by typer, it makes the groups from the values of these fields. Fields
    named in `without` are no options of this command, and keep their defaults.
    """

    def decorate(command: Command) -> Command:
        signature = inspect.signature(command)
        groups = {
            name: parameter.annotation
            for name, parameter in signature.parameters.items()
            if _is_group(parameter.annotation)
        }

        @wraps(command)
        def call(**values: Any) -> Any:
            made = {name: _make(group, values, without) for name, group in groups.items()}
            return command(**made, **values)

        parameters: list[inspect.Parameter] = []
        for name, parameter in signature.parameters.items():
            # A group's fields may come before a parameter without a default, which by place is not allowed.
            own = parameter.replace(kind=inspect.Parameter.KEYWORD_ONLY)
            parameters += _parameters(groups[name], without) if name in groups else [own]
        call.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
        call.__annotations__ = {each.name: each.annotation for each in parameters}
        return call

    return decorate


def _is_group(kind: object) -> TypeGuard[type]:
    return isinstance(kind, type) and is_dataclass(kind)


def _options(group: type, without: Collection[str]) -> Iterator[tuple[str, Any, Any]]:
    """Name, type and default of each field of a group."""
    kinds = get_type_hints(group, include_extras=True)
    for field in fields(group):
        if field.name not in without:
            yield field.name, kinds[field.name], field.default


def _parameters(group: type, without: Collection[str]) -> Iterator[inspect.Parameter]:
    """The fields of a group, and of the groups in it, as parameters of a command."""
    for name, kind, default in _options(group, without):
        if _is_group(kind):
            yield from _parameters(kind, without)
        else:
            yield inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)


def _make(group: type, values: dict[str, Any], without: Collection[str]) -> Any:
    """A group of options; takes their values out of `values`."""
    return group(
        **{
            name: _make(kind, values, without) if _is_group(kind) else values.pop(name)
            for name, kind, _ in _options(group, without)
        }
    )


def refuse_for_series(options: FitOptions) -> None:
    """Raise `ConfigurationError` for options that fits of time series do not have."""
    given = {
        "--given": options.given,
        "--dequantise": options.dequantise,
        "--support": options.support,
        "--atoms": options.atoms,
        "--categories": options.reading.categories,
        "--periodic": options.periodic,
        "--schema": options.schema,
        "--group": options.reading.group,
        "--split-column": options.reading.split_column,
        "--weights": options.reading.weights,
    }
    if options.preset != "default":
        given["--preset"] = options.preset
    for name, value in given.items():
        if value is not None:
            raise ConfigurationError(f"`{name}` is for tables of rows, and not for time series; leave it out")


def parse_duration(text: str) -> float:
    """Seconds in "90", "90s", "1.5m" or "2h"; raises `ConfigurationError` for anything else."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*(s|m|h|)", text.strip())
    if not match or float(match[1]) == 0:
        raise ConfigurationError(f"`--time-budget` takes a time such as 60s, 5m or 1h; got `{text}`")
    return float(match[1]) * {"": 1, "s": 1, "m": 60, "h": 3600}[match[2]]


def split_names(text: str | None, option: str) -> list[str] | None:
    """The names in "a, b", or None for None; a name with a comma in it stands in quotes.

    Raises `ConfigurationError`, which names the `option`, if there is no name or a name stands twice.
    """
    if text is None:
        return None
    names = [name.strip() for line in csv.reader([text], skipinitialspace=True) for name in line]
    if not names or not all(names):
        raise ConfigurationError(f"`{option}` takes names with commas between them; got `{text}`")
    if len(set(names)) < len(names):
        raise ConfigurationError(f"`{option}` names one thing twice; got `{text}`")
    return names


def parse_given(text: str | None) -> dict[str, str] | str | None:
    """The values in "a=1.5, b=red" by name, or a table's name or path as it stands; None for None.

    Raises `ConfigurationError` for a column without a value, and for one that stands twice.
    """
    if text is None or "=" not in text or Path(text).exists():
        return text
    values: dict[str, str] = {}
    for item in split_names(text, "--given") or []:
        name, _, number = (part.strip() for part in item.rpartition("="))
        if name in values:
            raise ConfigurationError(f"`--given` names `{name}` twice; got `{text}`")
        values[name] = number
        if not name or not number:
            raise ConfigurationError(
                f"`--given` takes a value for each given column, such as a=1.5,b=2, or a table; got `{text}`"
            )
    return values
