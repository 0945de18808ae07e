"""Writes the page of a claim that was measured again, from the files of its study."""

from pathlib import Path
from typing import Any

from flowbench.errors import DataError
from flowbench.report.numbers import moment
from flowbench.report.pages import html_environment, write_text
from flowbench.store.atomic import file_errors
from flowbench.store.findings import Findings
from flowbench.store.study_folder import StudyFolder


def write_claim_page(study: StudyFolder, folder: Path) -> Path:
    """Write index.html into `folder`, which is made; returns its path.

    Raises `DataError` if the study has found nothing yet.
    """
    from flowbench.report.figures.study_figures import draw_chart, draw_images
    from flowbench.report.figures.style import figure_style

    findings, info = study.findings, study.info
    if findings is None:
        raise DataError(f"the study in {study.path} is not finished; `flowbench reproduce` goes on with it")
    with figure_style():
        charts = [draw_chart(chart, key=f"chart-{n}") for n, chart in enumerate(findings.charts)]
        images = draw_images(findings.images, key="image")
    claim = info["claim"]
    text = (
        html_environment()
        .get_template("claim.html.j2")
        .render(
            title=claim["title"],
            claim=claim,
            verdict=headline(findings),
            facts=_facts(info),
            tables=findings.tables,
            charts=list(zip(findings.charts, charts, strict=True)),
            images=list(zip(findings.images, images, strict=True)),
        )
    )
    with file_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "index.html", text)
    return folder / "index.html"


def headline(findings: Findings) -> str:
    """The verdict with its reason, in a line."""
    return f"{findings.verdict.capitalize()}. {findings.reason}"


def _facts(info: dict[str, Any]) -> list[tuple[str, str]]:
    claim, host = info["claim"], info["host"]
    versions = ", ".join(f"{name} {version}" for name, version in info["versions"].items())
    return [
        ("claim", str(claim["statement"])),
        ("source", str(claim["source"])),
        ("budget", "quick: the verdict means little" if info["budget"] == "quick" else str(info["budget"])),
        ("measured", f"{moment(info['started'])} to {moment(info.get('finished', ''))} UTC"),
        ("machine", f"{host['processor']}, {host['cpus']} cores"),
        ("versions", versions),
        ("commits" if len(info["commits"]) > 1 else "commit", ", ".join(map(str, info["commits"]))),
    ]
