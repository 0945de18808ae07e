"""Reading the sheet of a workbook, such as Excel's."""

import datetime
from collections.abc import Sequence
from typing import Any

from flowbench.data.files import TableFile
from flowbench.data.header import read_header
from flowbench.data.raw_table import RawTable, check_size
from flowbench.data.reading import ReadOptions
from flowbench.errors import DataError

#: Rows that tell whether the first line holds names.
_TELLING = 300


def read_sheet(file: TableFile, reading: ReadOptions, wanted: Sequence[str] | None) -> RawTable:
    """Read the sheet that `file` names, or the only one that has cells; raises `DataError` if there are more.

    Empty rows are skipped. Dates are read as such, whatever format a cell has.
    """
    import pyarrow as pa
    from python_calamine import CalamineWorkbook

    check_size(file.path.stat().st_size)
    book = CalamineWorkbook.from_path(file.path)
    name = file.inside
    if name is None:
        filled = [each for each in book.sheet_names if book.get_sheet_by_name(each).height]
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
    head = [[_text(cell) for cell in row] for row in rows[:_TELLING]]
    if not head:
        raise DataError("it holds no rows")
    header = read_header(head, None, reading)
    if header.has_names:
        rows = rows[1:]
    columns = [pa.chunked_array([_column([row[i] for row in rows])]) for i in range(len(header.names))]
    table = pa.table(columns, names=[str(i) for i in range(len(columns))])
    found = RawTable.from_arrow(header.names, table, reading, typed=False)
    return RawTable(found.names, found.n_rows, found.cells, notes=header.notes, has_signs=True)


def _column(cells: Sequence[Any]) -> Any:
    """An Arrow array of one type for all cells: text where they differ."""
    import pyarrow as pa

    known = [None if cell == "" else cell for cell in cells]
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
