"""Values of configurations: read from files and settings, and laid on top of one another."""

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from flowbench.errors import ConfigurationError

Values = dict[str, Any]

#: Options of the plan that end training, whichever comes first.
BUDGETS = ("steps", "seconds")


def without_plan(given: Values, *options: str) -> Values:
    """A file's values without these options of its plan."""
    if isinstance(given.get("plan"), Mapping):
        plan = {key: value for key, value in given["plan"].items() if key not in options}
        return {**given, "plan": plan}
    return given


def has_budget(plan: Any) -> bool:
    """Whether a plan's values say when training ends."""
    return isinstance(plan, Mapping) and any(plan.get(key) is not None for key in BUDGETS)


def read_file(path: Path, kind: str = "configuration file") -> Values:
    """A TOML file of a `kind`; raises `ConfigurationError` if it cannot be read or parsed."""
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigurationError(f"cannot read the {kind} {path}: {error.strerror}") from None
    except (ValueError, RecursionError) as error:  # TOMLDecodeError and UnicodeDecodeError among them
        raise ConfigurationError(f"{path} is not valid TOML: {error}") from None


def parse_setting(text: str) -> Values:
    """ "flow.field.width=128" as {"flow": {"field": {"width": 128}}}."""
    key, separator, value = text.partition("=")
    parts = [part.strip() for part in key.split(".")]
    if not separator or not all(parts):
        raise ConfigurationError(f"`--set` takes part.option=value, such as flow.layers=16; got `{text}`")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        parsed = value.strip()
        if parsed[:1] in _OPENING:
            raise ConfigurationError(f"`--set {text}`: the value is not valid TOML: {error}") from None
    return nest({".".join(parts): parsed})


#: What no bare word begins with: a table, a list, and strings.
_OPENING = ("{", "[", '"', "'")


def nest(flat: Mapping[str, Any]) -> Values:
    """Dotted keys as nested tables; keys whose value is None are left out."""
    nested: Values = {}
    for key, value in flat.items():
        if value is not None:
            *parents, last = key.split(".")
            branch: Values = {last: value}
            for parent in reversed(parents):
                branch = {parent: branch}
            nested = merge(nested, branch)
    return nested


def text_at(values: Values, table: str, key: str) -> str | None:
    """The text at `table.key`; None where there is none, or where something else is in its place."""
    found = value_at(values, table, key)
    return found if isinstance(found, str) else None


def number_at(values: Values, table: str, key: str) -> float | None:
    """The number at `table.key`; None where there is none, or where something else is in its place."""
    found = value_at(values, table, key)
    return found if isinstance(found, int | float) else None


def value_at(values: Values, table: str, key: str) -> Any:
    """The value at `table.key`; None where there is none."""
    found = values.get(table)
    return found.get(key) if isinstance(found, Mapping) else None


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> Values:
    """`over` on top of `base`, table by table; a part given by another name replaces the part whole."""
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        # A part may be given by its name alone.
        if isinstance(below, str) and isinstance(value, Mapping):
            below = {"name": below}
        if isinstance(value, str) and isinstance(below, Mapping) and "name" in below:
            value = {"name": value}
        if not (isinstance(below, Mapping) and isinstance(value, Mapping)):
            merged[key] = value
        elif "name" in value and "name" in below and value["name"] != below["name"]:
            merged[key] = dict(value)
        else:
            merged[key] = merge(below, value)
    return merged
