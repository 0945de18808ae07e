"""The schema of a table, with a schema file that the user may edit."""

from collections.abc import Sequence
from pathlib import Path

from flowbench.data import ReadOptions, TableSchema, check_table, schema_to_toml, settings_from_values
from flowbench.data.catalogue import is_file
from flowbench.data.read_options import AUTOMATIC
from flowbench.data.row_draw import RowDraw
from flowbench.errors import ConfigurationError
from flowbench.store.atomic import atomic_write
from flowbench.store.documents import read_toml
from flowbench.workflows.config_values import read_file


def check_with_file(
    name_or_path: str,
    *,
    columns: Sequence[str] | None = None,
    folder: Path = Path("datasets"),
    reading: ReadOptions = AUTOMATIC,
    file: Path | None = None,
    rows: int | None = None,
) -> tuple[TableSchema, bool]:
    """The schema of a dataset, and whether it was written to `file`.

    A `file` that is there is read, and overrides what the values suggest. It is never changed. One that is
    not there is made. `rows` is how many rows of a table file to draw at random, by default all. Raises as
    `check_table` does, and `ConfigurationError` for a file that is no schema or cannot be written, and for
    `rows` of data without a file.
    """
    if rows is not None and not is_file(name_or_path):
        raise ConfigurationError(f"`rows` is for table files here; `{name_or_path}` is none; leave it out")
    draw = RowDraw.asked(rows, 0)
    if file is None or not file.exists():
        found = check_table(name_or_path, columns=columns, folder=folder, reading=reading, draw=draw)
        if file is not None:
            _write(file, found)
        return found, file is not None
    settings = settings_from_values(read_file(file, "schema file"), str(file))
    found = check_table(
        name_or_path,
        columns=columns,
        folder=folder,
        reading=reading,
        settings=settings,
        where=str(file),
        draw=draw,
    )
    return found, False


def _write(file: Path, schema: TableSchema) -> None:
    try:
        text = schema_to_toml(schema).encode()
    except UnicodeEncodeError:
        raise ConfigurationError(f"cannot write {file}: a name or a value is no valid Unicode") from None
    with atomic_write(file, verify=read_toml) as partial:
        partial.write_bytes(text)
