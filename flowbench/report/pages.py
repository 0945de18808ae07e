"""Writes a report: a self-contained page, its tables as Markdown, and its numbers as JSON."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from flowbench.errors import DataError
from flowbench.report.categories import level_table, part_table
from flowbench.report.document import describe_report
from flowbench.report.evaluation_tables import calibration_table, forecast_table, sample_table
from flowbench.report.grouping import Section, group_runs
from flowbench.report.markdown import escape_markdown
from flowbench.report.numbers import listed, moment
from flowbench.report.ranking import rank_models
from flowbench.report.records import LOST, RunRecord, read_runs
from flowbench.report.tables import (
    certificate_table,
    cost_table,
    facts,
    likelihood_table,
    rank_table,
    run_table,
    unfinished_table,
)
from flowbench.report.visible import visible
from flowbench.report.wording import cautions, verdict
from flowbench.store import Run, atomic_write
from flowbench.store.atomic import file_errors
from flowbench.store.documents import write_json
from flowbench.store.text_table import TextTable


@dataclass(frozen=True)
class ReportPaths:
    """The files of a report."""

    html: Path
    markdown: Path
    json: Path


@dataclass(frozen=True, eq=False)
class SectionText:
    """The texts and tables on one data set; `key` is its id in the page."""

    key: str
    section: Section
    verdict: str
    cautions: Sequence[str]
    facts: Sequence[tuple[str, str]]
    likelihood: TextTable
    parts: TextTable | None
    levels: TextTable | None
    cost: TextTable
    certificates: TextTable | None
    samples: TextTable | None
    calibration: TextTable | None
    forecasts: TextTable | None
    runs: TextTable

    @property
    def title(self) -> str:
        """The data set's name."""
        return self.section.name


def write_report(runs: Sequence[Run], folder: Path, *, title: str | None = None) -> ReportPaths:
    """Compare `runs` and write index.html, report.md and report.json into `folder`, which is made.

    Runs on the same test rows of the same data set are compared with one another; runs without results are
    listed. Each file is replaced atomically. Raises `DataError` if no run has results, `DamagedFileError`
    for a run that is damaged, `ConfigurationError` if `folder` cannot be written to.
    """
    records = read_runs(runs)
    unfinished = [record for record in records if record.results is None]
    sections = group_runs(records)
    if not sections:
        given = [f"`{record.name}` ({_how(record)})" for record in unfinished]
        raise DataError(
            f"nothing to report: no run has results (given: {', '.join(given) or 'none'}); "
            "let a fit finish, or resume one that was interrupted or killed"
        )
    texts = [_describe(f"data-{n}", each, sections, unfinished) for n, each in enumerate(sections, start=1)]
    title = title or f"Density models on {listed(dict.fromkeys(section.name for section in sections))}"
    ranking = rank_models(sections)
    created = datetime.now(UTC).isoformat(timespec="seconds")
    paths = ReportPaths(folder / "index.html", folder / "report.md", folder / "report.json")
    context = {
        "title": title,
        "created": moment(created),
        "sections": texts,
        "ranking": ranking,
        "ranks": rank_table(ranking) if ranking else None,
        "unfinished": unfinished_table(unfinished) if unfinished else None,
        "made_with": _made_with(records),
    }
    html, markdown = _render_html(context), _render_markdown(context)
    described = [(text.section, text.verdict, text.cautions) for text in texts]
    with file_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_json(paths.json, describe_report(title, created, described, ranking, unfinished))
    write_text(paths.markdown, markdown)
    write_text(paths.html, html)
    return paths


def _how(record: RunRecord) -> str:
    return LOST if record.has_lost_results else record.text("status") or "unfinished"


def _describe(
    key: str, section: Section, sections: Sequence[Section], unfinished: Sequence[RunRecord]
) -> SectionText:
    return SectionText(
        key=key,
        section=section,
        verdict=verdict(section),
        cautions=cautions(section, sections, unfinished),
        facts=facts(section),
        likelihood=likelihood_table(section),
        parts=part_table(section),
        levels=level_table(section),
        cost=cost_table(section),
        certificates=certificate_table(section),
        samples=sample_table(section),
        calibration=calibration_table(section),
        forecasts=forecast_table(section),
        runs=run_table(section),
    )


def _render_markdown(context: dict[str, Any]) -> str:
    # jinja2 escapes values for HTML only. `finalize` is called with every value, and escapes for Markdown.
    return environment(finalize=escape_markdown).get_template("report.md.j2").render(context)


def _render_html(context: dict[str, Any]) -> str:
    # Drawing needs seaborn, whose import takes seconds.
    from flowbench.report.figures.style import figure_style
    from flowbench.report.views import galleries, rank_gallery

    with figure_style():
        drawn = {text.key: galleries(text.section, text.key) for text in context["sections"]}
        ranks = rank_gallery(context["ranking"]) if context["ranking"] else None
    template = html_environment().get_template("report.html.j2")
    return template.render(context, galleries=drawn, rank_gallery=ranks)


def html_environment() -> Environment:
    """The templates of pages, which escape every value for HTML and mark control characters."""
    return environment(autoescape=True, finalize=visible)


def environment(**options: Any) -> Environment:
    """The package's templates; a template that uses a value which it was not given is an error."""
    options |= {"undefined": StrictUndefined, "trim_blocks": True, "lstrip_blocks": True}
    return Environment(loader=PackageLoader("flowbench.report"), **options)


def write_text(path: Path, text: str) -> None:
    """Write `text` to `path`, atomically."""
    # A name from a foreign file may hold half of a surrogate pair, which UTF-8 cannot encode.
    with atomic_write(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="replace")


def _made_with(records: Sequence[RunRecord]) -> list[tuple[str, list[str]]]:
    """Versions, machines and commands of the runs, as pairs (term, distinct values)."""
    versions, hosts, commands = [], [], []
    for record in records:
        versions.append(_pairs(record.info.get("versions")))
        hosts.append(_pairs(record.info.get("host")))
        command = record.info.get("command")
        commands.append(shlex.join(map(str, command)) if isinstance(command, list) else str(command or ""))
    pairs = [("versions", versions), ("machine", hosts), ("command", commands)]
    distinct = [(term, [value for value in dict.fromkeys(values) if value]) for term, values in pairs]
    return [(term, values) for term, values in distinct if values]


def _pairs(values: object) -> str:
    if not isinstance(values, dict):
        return ""
    return ", ".join(f"{key} {value}" for key, value in values.items())
