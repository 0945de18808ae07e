"""Text from data inside Markdown: shown as it is, never read as markup."""

import re

# Everything with which CommonMark, its tables or raw HTML can begin something.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|~!$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape_markdown(value: object) -> str:
    """`value` as text on one line that Markdown shows letter by letter."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    line = re.sub("[&<>]", lambda match: _ENTITIES[match[0]], line)
    return _SPECIAL.sub(r"\\\1", line)
