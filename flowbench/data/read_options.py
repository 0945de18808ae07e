"""The user's options for how a table file is read."""

from typing import Literal

from pydantic import Field, field_validator

from flowbench.options import Options

#: Names of separators, some of which are hard to type in a shell.
SEPARATORS = {
    "comma": ",",
    "semicolon": ";",
    "tab": "\t",
    "\\t": "\t",
    "pipe": "|",
    "blanks": " ",
    "space": " ",
}
_THOUSANDS = {"comma": ",", "point": ".", "blank": " ", "space": " ", "apostrophe": "'"}


#: Levels of a column: text alone or numbers alone.
Levels = tuple[str, ...] | tuple[float, ...]

#: The options that describe the layout of a text file.
LAYOUT = ("header", "separator", "decimal", "thousands", "encoding")


class ColumnLevels(Options):
    """All levels of a column, text or numbers: also those that no row holds.

    A configuration has to be hashable, so that this stands in place of a mapping.
    """

    column: str
    values: Levels = Field(min_length=1)


class ReadOptions(Options):
    """How a table file is read; what is None is found from the file, and noted if it is not obvious.

    `header` is "yes" if the first line holds names, and "no" if it is a row. `separator` stands between cells
    (" " for runs of blanks). `decimal` is the decimal sign, and `thousands` the sign between groups of three
    digits. `encoding` is that of the text. `date_format` is one or several formats of dates (`strptime`).
    `missing_values` are further texts of missing cells. `missing` says what is done with rows that have
    missing cells: "refuse", the default, "drop", or "model", which learns from the cells that are there.
    Columns named in `keep` are read as plain numbers, whatever they look like. The values of columns named in
    `categories` are levels, each with a probability. Rows with the same cell in the column `group` stay in
    one part of the split. The column `split_column` names the part of each row: train, validation or test.
    The column `weights` says how much each row counts (`flowbench.data.row_weights`).

    A schema file settles more: the values of columns in `numeric` are numbers, dates or times, however few
    they are. Columns in `leave_out` are no data, unless columns are selected. `levels` are all levels of
    some of the columns in `categories`.
    """

    header: Literal["yes", "no"] | None = None
    separator: str | None = None
    decimal: Literal[".", ","] | None = None
    thousands: str | None = None
    encoding: str | None = None
    date_format: tuple[str, ...] | None = None
    missing_values: tuple[str, ...] | None = None
    missing: Literal["refuse", "drop", "model"] | None = None
    keep: tuple[str, ...] | None = None
    categories: tuple[str, ...] | None = None
    group: str | None = None
    split_column: str | None = None
    weights: str | None = None
    numeric: tuple[str, ...] | None = None
    leave_out: tuple[str, ...] | None = None
    levels: tuple[ColumnLevels, ...] | None = None

    @property
    def as_numbers(self) -> tuple[str, ...]:
        """The columns that are told to hold numbers, however few these are."""
        return (*(self.keep or ()), *(self.numeric or ()))

    def levels_of(self, name: str) -> Levels | None:
        """The levels that are told of a column."""
        return next((each.values for each in self.levels or () if each.column == name), None)

    @field_validator("separator")
    @classmethod
    def _one_separator(cls, text: str | None) -> str | None:
        found = SEPARATORS.get(text.lower(), text) if text else text
        if found is not None and (len(found) != 1 or found.isalnum() or found in "\"'\r\n.+-"):
            raise ValueError(f"takes one character, or one of {', '.join(SEPARATORS)}; got {text!r}")
        return found

    @field_validator("thousands")
    @classmethod
    def _one_sign(cls, text: str | None) -> str | None:
        found = _THOUSANDS.get(text.lower(), text) if text else text
        if found is not None and found not in _THOUSANDS.values():
            raise ValueError(f"takes one of , . ' or one of {', '.join(_THOUSANDS)}; got {text!r}")
        return found

    @field_validator("encoding")
    @classmethod
    def _known_encoding(cls, text: str | None) -> str | None:
        import codecs

        try:
            if text is not None:
                "a".encode(codecs.lookup(text).name)
        except (LookupError, ValueError):
            raise ValueError(f"no encoding is called {text!r}; utf-8, cp1252 and utf-16 are some") from None
        return text

    @field_validator("date_format")
    @classmethod
    def _has_a_date(cls, formats: tuple[str, ...] | None) -> tuple[str, ...] | None:
        for text in formats or ():
            if "%" not in text:
                raise ValueError(f"takes a format such as %d.%m.%Y; got {text!r}")
        return formats


#: Everything is found from the file.
AUTOMATIC = ReadOptions()
