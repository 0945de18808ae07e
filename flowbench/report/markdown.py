"""Text from data inside Markdown, escaped so that no character is taken for markup."""

import re

# Every character that can begin markup in CommonMark, its tables or raw HTML.
_SPECIAL = re.compile(r"([\\`*_{}\[\]()#|~!$])")
_ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}


def escape_markdown(value: object) -> str:
    """`value` as text on one line, which Markdown shows as it is."""
    line = " ".join("".join(c if c.isprintable() else " " for c in str(value)).split())
    line = re.sub("[&<>]", lambda match: _ENTITIES[match[0]], line)
    return _SPECIAL.sub(r"\\\1", line)
