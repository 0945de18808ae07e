"""The page that lists every claim that was measured again, with its verdict."""

from collections.abc import Sequence
from pathlib import Path

from flowbench.errors import DamagedFileError
from flowbench.report.numbers import moment
from flowbench.report.pages import html_environment, write_text
from flowbench.store.atomic import file_errors
from flowbench.store.study_folder import StudyFolder


def write_claims_index(studies: Sequence[StudyFolder], folder: Path) -> Path:
    """Write index.html into `folder`, with a line for each of the `studies` that has findings.

    A line leads to the study's own page, which lies in the subfolder with the study's name. That of a study
    which is not as flowbench left it says so.
    """
    lines = []
    for study in studies:
        try:
            findings, info = study.findings, study.info
        except DamagedFileError as error:
            lines.append(_unreadable(study, error))
            continue
        if findings is None:
            continue
        lines.append(
            {
                "link": f"{study.path.name}/index.html",
                "title": info["claim"]["title"],
                "source": info["claim"]["source"],
                "budget": info["budget"],
                "verdict": findings.verdict,
                "reason": findings.reason,
                "finished": moment(info.get("finished", "")),
            }
        )
    text = html_environment().get_template("claims.html.j2").render(title="Claims of papers", lines=lines)
    with file_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
    write_text(folder / "index.html", text)
    return folder / "index.html"


def _unreadable(study: StudyFolder, error: DamagedFileError) -> dict[str, str]:
    return {
        "link": f"{study.path.name}/index.html",
        "title": study.path.name,
        "source": "",
        "budget": "",
        "verdict": "not readable",
        "reason": f"{error}. Remove the file, and `flowbench reproduce` draws the conclusion again.",
        "finished": "",
    }
