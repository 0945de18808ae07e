"""Text from data inside HTML, made safe against characters that hide or reorder others."""

import re

from markupsafe import Markup

#: Control characters other than line breaks and tabs, and those that change the direction of writing.
_HIDDEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")


def visible(value: object) -> object:
    """`value`, in which a mark replaces every such character if it is text."""
    if not isinstance(value, str):
        return value
    shown = _HIDDEN.sub("\N{REPLACEMENT CHARACTER}", value)
    return Markup(shown) if isinstance(value, Markup) else shown
