"""Tables of text, as pages and Markdown files show them."""

from dataclasses import dataclass


@dataclass(frozen=True)
class TextTable:
    """A table of text: `rows` are as wide as `header`, and the first cell of a row names it.

    `numeric` says for each column whether it holds numbers. `marked` is the index of the row to emphasise,
    if any. `notes` are printed below the table.
    """

    title: str
    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    numeric: tuple[bool, ...]
    notes: tuple[str, ...] = ()
    marked: int | None = None
