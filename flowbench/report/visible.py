"""Text from data inside HTML: its letters stand in the order in which they are written."""

import re

from markupsafe import Markup

#: Controls but for line breaks and tabs, and what turns the direction of the letters after it.
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(value: object) -> object:
    """`value` with a mark for every control character in it, if it is text; what is none is left alone."""
    if not isinstance(value, str):
        return value
    shown = _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", value)
    return Markup(shown) if isinstance(value, Markup) else shown
