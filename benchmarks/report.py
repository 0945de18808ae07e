"""RESULTS.md: every stored result as markdown tables."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import RESULTS, Row


def write_report() -> Path:
    """Render results/*.json; returns the page's path."""
    documents = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(RESULTS.glob("*.json"))]
    lines = [
        "# Results",
        "",
        "Written by `python -m benchmarks --report` from `results/*.json`; [README.md](README.md) says what",
        "each case measures. CPU time, one thread; ratios are medians of rounds in which all took turns.",
    ]
    for document in documents:
        lines += render(document)
    page = RESULTS.parent / "RESULTS.md"
    page.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return page


def render(document: dict[str, Any]) -> Iterator[str]:
    """A case's section."""
    machine = document["machine"]
    versions = ", ".join(f"{name} {value}" for name, value in document["versions"].items())
    # Older results do not say.
    units = machine.get("bfloat16_units")
    cpu = machine["cpu"] + ("" if units is None else f" ({', '.join(units) or 'no bfloat16 units'})")
    yield from ("", f"## {document['case']}", "")
    yield (
        f"{document['mode']} mode, {document['date'][:10]}, commit {document['commit']}; {cpu}, "
        f"{machine['cores']} cores, {machine['threads_used']} used; {versions}."
    )
    for note in document["notes"]:
        yield from ("", note)
    if document["ratios"]:
        yield from ("", *table(document["ratios"]))
    for title, rows in document["tables"].items():
        yield from ("", f"**{title}**", "", *table(rows))


def table(rows: list[Row]) -> Iterator[str]:
    """Rows as a markdown table; columns in the order of their first appearance."""
    columns = list(dict.fromkeys(name for row in rows for name in row))
    yield f"| {' | '.join(columns)} |"
    yield f"|{' --- |' * len(columns)}"
    for row in rows:
        yield f"| {' | '.join(cell(row.get(name)) for name in columns)} |"


def cell(value: Any) -> str:
    """A value as text; nothing for None."""
    text = "" if value is None else f"{value:g}" if isinstance(value, float) else str(value)
    return text.replace("|", "\\|").replace("\n", " ")
