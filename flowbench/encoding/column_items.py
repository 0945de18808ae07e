"""Options that say something of each column, as text such as "auto,a=1,b=2"."""

import csv

from flowbench.errors import ConfigurationError

#: Columns that are not named are inferred, and none of them is anything.
AUTO, NONE = "auto", "none"


def infers_others(text: str) -> bool:
    """Whether such an option infers the columns that it does not name."""
    return _items(text)[0] == AUTO


def column_items(text: str) -> list[str]:
    """What such an option says by hand, an item for each column: "a=1" and "b=2" of "auto,a=1,b=2".

    An item with a comma in it stands in quotes. Raises `ConfigurationError` for text that is no line of
    items.
    """
    if text.strip() == NONE:
        return []
    items = _items(text)
    return items[1:] if items[0] == AUTO else items


def _items(text: str) -> list[str]:
    try:
        return [item.strip() for item in next(csv.reader([text], skipinitialspace=True), [])] or [""]
    except csv.Error as error:
        raise ConfigurationError(f"takes items with commas between them; got `{text}`: {error}") from None
