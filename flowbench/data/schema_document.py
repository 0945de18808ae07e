"""Schemas as TOML: for people to edit, and back."""

from collections.abc import Mapping
from typing import Any

from flowbench.data.schema import TableSchema
from flowbench.data.schema_settings import ColumnSettings, settings_of
from flowbench.errors import ConfigurationError

#: The format of schema files.
VERSION = 1
_HEAD = """\
# The columns of a table. A key that is taken out is inferred again from the values.
# kind: continuous, count, ordinal, categorical, boolean, date, time, identifier or constant
# support: "real", "positive", or the two ends of an open interval; atoms: values with a probability mass
# spacing: of evenly spaced values, or "none"; levels: all of them, in order if the column is ordinal
"""


def schema_to_toml(schema: TableSchema) -> str:
    """The schema as a TOML document, with the evidence for each column in comments above it."""
    settings = {column.name: settings_of(column) for column in schema.columns}
    evidence = {column.name: (*column.because, *column.overridden) for column in schema.columns}
    return settings_to_toml(settings, evidence)


def settings_to_toml(
    settings: Mapping[str, ColumnSettings], evidence: Mapping[str, tuple[str, ...]] | None = None
) -> str:
    """Settings by column as a TOML document, from which `settings_from_values` gets the same settings."""
    import tomli_w

    parts = [_HEAD, tomli_w.dumps({"schema_version": VERSION})]
    for name, each in settings.items():
        comments = [f"# {_printable(clause)}\n" for clause in (evidence or {}).get(name, ())]
        parts.append("\n" + "".join(comments) + tomli_w.dumps({"columns": {name: _to_values(each)}}))
    return "".join(parts)


def settings_from_values(document: Mapping[str, Any], where: str) -> dict[str, ColumnSettings]:
    """The settings by column in a parsed TOML document.

    Raises `ConfigurationError`, which says `where` and names the column and the key, for anything that is no
    setting.
    """
    if unknown := sorted(set(document) - {"schema_version", "columns"}):
        raise ConfigurationError(
            f"{where}: unknown key `{unknown[0]}`; `schema_version` and tables such as [columns.name] stand "
            "there"
        )
    if (version := document.get("schema_version", VERSION)) != VERSION:
        raise ConfigurationError(f"{where}: `schema_version` is {version!r}; this flowbench reads {VERSION}")
    columns = document.get("columns", {})
    if not isinstance(columns, Mapping):
        raise ConfigurationError(f"{where}: `columns` takes a table for each column, [columns.name]")
    found = {}
    for name, values in columns.items():
        if not isinstance(values, Mapping):
            raise ConfigurationError(f"{where}: column `{name}` takes a table of keys; got {values!r}")
        try:
            found[name] = ColumnSettings(**values)
        except ConfigurationError as error:
            raise ConfigurationError(f"{where}: column `{name}`: {error}") from None
    return found


def _to_values(settings: ColumnSettings) -> dict[str, Any]:
    values = {
        name: value for name in ColumnSettings.model_fields if (value := getattr(settings, name)) is not None
    }
    if "support" in values:
        values["support"] = settings.support.value
    return {
        name: [_whole(each) for each in value] if isinstance(value, list | tuple) else _whole(value)
        for name, value in values.items()
    }


def _whole(value: Any) -> Any:
    """Whole numbers as integers, which are easier to read."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 2**53 else value


def _printable(text: str) -> str:
    return "".join(c if c.isprintable() else " " for c in text)
