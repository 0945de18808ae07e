"""Writes the report on runs on time series: a self-contained page, and its tables as Markdown and JSON."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from flowbench.errors import DataError
from flowbench.report.markdown import escape_markdown
from flowbench.report.numbers import listed, moment
from flowbench.report.pages import ReportPaths, environment, html_environment, write_text
from flowbench.report.series_sections import SeriesSection, group_series_runs, read_series_runs
from flowbench.report.series_tables import (
    cost_table,
    likelihood_table,
    prediction_table,
    series_cautions,
    series_facts,
    series_verdict,
)
from flowbench.store import Run
from flowbench.store.atomic import file_errors
from flowbench.store.documents import write_json
from flowbench.store.text_table import TextTable

if TYPE_CHECKING:
    from flowbench.report.panels import Gallery


@dataclass(frozen=True, eq=False)
class _Text:
    """What the page says of one data set."""

    name: str
    verdict: str
    cautions: Sequence[str]
    facts: Sequence[tuple[str, str]]
    tables: Sequence[TextTable]
    galleries: "Sequence[Gallery]"


def write_series_report(runs: Sequence[Run], folder: Path) -> ReportPaths:
    """Compare `runs` on series and write index.html, report.md and report.json into `folder`.

    Raises `DataError` if no run has results, `DamagedFileError` for a run that is damaged,
    `ConfigurationError` if `folder` cannot be written to.
    """
    records = read_series_runs(runs)
    sections = group_series_runs(records)
    if not sections:
        raise DataError(
            "nothing to report: no run has results; let a fit finish, or resume one that was interrupted"
        )
    texts = [_describe(f"data-{n}", each) for n, each in enumerate(sections)]
    created = datetime.now(UTC).isoformat(timespec="seconds")
    title = f"Models of time series on {listed(dict.fromkeys(each.name for each in sections))}"
    context = {"title": title, "created": moment(created), "sections": texts}
    html = html_environment().get_template("series.html.j2").render(context)
    markdown = environment(finalize=escape_markdown).get_template("series.md.j2").render(context)
    with file_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
    paths = ReportPaths(folder / "index.html", folder / "report.md", folder / "report.json")
    write_json(paths.json, _document(title, created, sections, texts))
    write_text(paths.markdown, markdown)
    write_text(paths.html, html)
    return paths


def _describe(key: str, section: SeriesSection) -> _Text:
    # Drawing needs seaborn, whose import takes seconds.
    from flowbench.report.series_views import series_galleries

    tables = [
        likelihood_table(section),
        prediction_table(section, "interpolation", "inner observations, from those around them"),
        prediction_table(section, "extrapolation", "later observations, from those before"),
        cost_table(section),
    ]
    return _Text(
        name=section.name,
        verdict=series_verdict(section),
        cautions=series_cautions(section),
        facts=series_facts(section),
        tables=[table for table in tables if table is not None],
        galleries=series_galleries(section, key),
    )


def _document(
    title: str, created: str, sections: Sequence[SeriesSection], texts: Sequence[_Text]
) -> dict[str, object]:
    """The numbers of the report as plain values."""
    return {
        "schema_version": 1,
        "kind": "series",
        "title": title,
        "created": created,
        "datasets": [
            {
                "name": section.name,
                **{key: section.record.dataset.get(key) for key in ("source", "sha256", "series", "columns")},
                "test_series": len(section.results.ids),
                "verdict": text.verdict,
                "cautions": list(text.cautions),
                "models": [
                    {
                        "label": group.label,
                        "model": group.records[0].model,
                        "runs": [record.name for record in group.records],
                        "is_bound": group.is_bound,
                        "difference_to_best": None if difference is None else asdict(difference),
                        "metrics": {name: group.metric(name) for name in group.first.metrics},
                    }
                    for group, difference in zip(section.groups, section.differences, strict=True)
                ],
            }
            for section, text in zip(sections, texts, strict=True)
        ],
    }
