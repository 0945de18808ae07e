"""JSON and TOML files, written atomically; a file that is neither raises a clear error."""

import json
import math
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from flowbench.errors import ConfigurationError, DamagedFileError
from flowbench.store.atomic import atomic_write, file_errors


def to_json(value: Any, indent: int | None = None) -> str:
    """`value` as strict JSON, on one line unless `indent` is given.

    numpy values become plain ones. NaN and infinities become null. Text that is not valid Unicode, as a
    file's name may be, gets question marks. Control characters are escaped, so that the text is safe to
    print. Raises `ConfigurationError` for values of other types.
    """
    try:
        text = json.dumps(_plain(value), allow_nan=False, ensure_ascii=False, indent=indent)
    except TypeError as error:
        raise ConfigurationError(f"cannot be stored as JSON: {error}") from error
    # json.dumps escapes only the control characters below U+0020.
    return "\n".join(map(_escaped, text.split("\n")))


def from_json(text: bytes | str, where: str) -> dict[str, Any]:
    """The JSON object in `text`; raises `DamagedFileError`, which says `where`, if there is none."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{where} is not valid JSON: {error}") from error
    if not isinstance(value, dict):
        raise DamagedFileError(f"{where} must hold a JSON object, and holds a {type(value).__name__}")
    return value


def write_json(path: Path, values: Mapping[str, Any]) -> None:
    """Write `values` to `path` as an indented JSON object."""
    text = to_json(values, indent=2)
    with atomic_write(path) as partial:
        partial.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read the JSON object in `path`."""
    with file_errors("read", path):
        text = path.read_bytes()
    return from_json(text, str(path))


def write_toml(path: Path, values: Mapping[str, Any]) -> None:
    """Write nested tables of str, int, float, bool and lists to `path`; entries that are None are left out.

    Raises `ConfigurationError` for anything else.
    """
    try:
        text = tomli_w.dumps(_without_none(_plain(values, keep_non_finite=True))).encode()
    except (TypeError, ValueError) as error:
        raise ConfigurationError(f"the configuration cannot be written to {path}: {error}") from error
    with atomic_write(path, verify=read_toml) as partial:
        partial.write_bytes(text)


def read_toml(path: Path) -> dict[str, Any]:
    """Read the tables in `path`; raises `DamagedFileError` if it is not TOML."""
    with file_errors("read", path):
        text = path.read_bytes()
    try:
        return tomllib.loads(text.decode())
    except (ValueError, RecursionError) as error:
        raise DamagedFileError(f"{path} is not valid TOML: {error}") from error


def _escaped(line: str) -> str:
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else json.dumps(c)[1:-1] for c in line)


def _plain(value: Any, keep_non_finite: bool = False) -> Any:
    if isinstance(value, np.generic | np.ndarray):
        value = value.tolist()
    if isinstance(value, Mapping):
        return {_plain(str(key)): _plain(item, keep_non_finite) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, keep_non_finite) for item in value]
    if isinstance(value, Path):
        value = str(value)
    if isinstance(value, str):
        return value.encode(errors="replace").decode()
    if isinstance(value, float) and not (keep_non_finite or math.isfinite(value)):
        return None
    return value


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
