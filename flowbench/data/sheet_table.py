"""Reads a sheet of a workbook, such as Excel's."""

import datetime
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flowbench.data.files import TableFile
from flowbench.data.header import read_header
from flowbench.data.raw_table import RawTable, check_size
from flowbench.data.read_options import ReadOptions
from flowbench.errors import DataError

#: Texts that mean a missing value, as in text tables.
_NOTHING = {"", "NA", "N/A", "#N/A", "NaN", "nan", "NULL", "null", "n/a"}
#: Rows from which it is decided whether the first line holds names.
_TELLING = 300


def read_sheet(file: TableFile, reading: ReadOptions, wanted: Sequence[str] | None) -> RawTable:
    """Read the sheet that `file` names, or the only one with cells; raises `DataError` if there are more.

    Empty rows are skipped. Dates are read as dates, whatever the format of the cell.
    """
    import pyarrow as pa
    from python_calamine import CalamineWorkbook, SheetVisibleEnum

    check_size(file.path.stat().st_size)
    book = CalamineWorkbook.from_path(file.path)
    name = file.inside
    if name is None:
        shown = [each.name for each in book.sheets_metadata if each.visible == SheetVisibleEnum.Visible]
        filled = [each for each in shown if book.get_sheet_by_name(each).height]
        if len(filled) != 1:
            names = ", ".join(f"`{each}`" for each in filled[:5])
            raise DataError(
                f"it has {len(filled)} sheets with cells, {names}; name one, as {file.path.name}:{filled[0]}"
                if filled
                else "it has no sheet with cells"
            )
        (name,) = filled
    elif name not in book.sheet_names:
        there = ", ".join(f"`{each}`" for each in book.sheet_names[:5])
        raise DataError(f"it has no sheet `{name}`; there is {there}")
    sheet = book.get_sheet_by_name(name)
    check_size(sheet.height * sheet.width * 8)
    rows = [row for row in sheet.to_python() if any(cell != "" for cell in row)]
    titles = _titles(rows)
    rows = rows[titles:]
    head = [[_text(cell) for cell in row] for row in rows[:_TELLING]]
    if not head:
        raise DataError("it holds no rows")
    header = read_header(head, None, reading)
    if header.has_names:
        rows = rows[1:]
    columns = [pa.chunked_array([_column([row[i] for row in rows])]) for i in range(len(header.names))]
    table = pa.table(columns, names=[str(i) for i in range(len(columns))])
    found = RawTable.from_arrow(header.names, table, reading, typed=False)
    notes = header.notes
    if titles:
        first = f"{titles} line{'s' * (titles > 1)} above the table"
        notes = (f"{first} {'is' if titles == 1 else 'are'} passed over: unlike the lines below", *notes)
    if _has_errors(file.path):
        notes = ("cells that hold an error, such as #DIV/0!, are read as missing", *notes)
    return RawTable(found.names, found.n_rows, found.cells, notes=notes, has_signs=True)


def _has_errors(path: Path) -> bool:
    """Whether a sheet of an .xlsx file has cells with errors, which the library returns as empty."""
    if path.suffix.lower() != ".xlsx":
        return False
    with zipfile.ZipFile(path) as archive:
        sheets = [each for each in archive.infolist() if each.filename.startswith("xl/worksheets/sheet")]
        check_size(sum(each.file_size for each in sheets))
        return any(b' t="e"' in archive.read(each) for each in sheets)


def _titles(rows: Sequence[Sequence[Any]]) -> int:
    """The number of rows above the table that hold a title: text in one cell of several."""
    count = 0
    while count < len(rows) - 1:
        filled = [cell for cell in rows[count] if cell != ""]
        below = sum(cell != "" for cell in rows[count + 1])
        if len(filled) != 1 or not isinstance(filled[0], str) or below == 1:
            break
        count += 1
    return count


def _column(cells: Sequence[Any]) -> Any:
    """An Arrow array of one type for all cells; text if their types differ."""
    import pyarrow as pa

    known = [None if isinstance(cell, str) and cell.strip() in _NOTHING else cell for cell in cells]
    kinds = {type(cell) for cell in known if cell is not None}
    if kinds <= {int, float}:
        whole = all(cell is None or (float(cell).is_integer() and abs(cell) < 2**53) for cell in known)
        return pa.array(known, pa.int64() if whole and kinds else pa.float64(), safe=False)
    if kinds == {datetime.date, datetime.datetime}:
        known = [
            datetime.datetime.combine(cell, datetime.time()) if type(cell) is datetime.date else cell
            for cell in known
        ]
    elif len(kinds) > 1 or kinds == {datetime.timedelta}:
        known = [None if cell is None else _text(cell) for cell in known]
    return pa.array(known)


def _text(cell: Any) -> str:
    if isinstance(cell, float) and cell.is_integer():
        return str(int(cell))
    return str(cell)
