"""`python -m benchmarks.gallery [REPORT...]`: make the reports in reports/gallery anew.

On two real tables, and on one of them as it is, every model gets 300 seconds behind the marginal Gaussianiser
and as many behind plain standardisation; the two halves run side by side and take an hour a table. Tables and
runs are kept in datasets/ and runs/, so a comparison that was interrupted goes on with what is missing.

`claims` stands for the pages of `flowbench reproduce` at the default budget, one after another. Together they
take about three hours. Their trials are kept in claims/.
"""

import argparse
import json
import shutil
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.tables import DATA, TABLES, write_tables
from flowbench.registry import MODELS, STUDIES
from flowbench.report.claims_index import write_claims_index
from flowbench.store.study_folder import StudyFolder

SECONDS = 300
CLAIMS = "claims"
GALLERY = ROOT / "reports" / "gallery"
#: By name: what `flowbench compare` is called with, once for each half.
REPORTS: dict[str, Sequence[Sequence[str]]] = {
    "moons-and-faithful": [["moons", "faithful", "--models=cnf,planar,gaussian", "--time-budget=30s"]],
    **{
        name: [
            [name, f"--models={','.join(MODELS.names())}", f"--time-budget={SECONDS}s", *settings]
            for settings in ([], ['--set=transforms=["standardise"]', f"--name={name}-standardised"])
        ]
        for name in TABLES
    },
}


def main() -> None:
    """Parse the command line and make the reports one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gallery", description=__doc__)
    names = [*REPORTS, CLAIMS]
    parser.add_argument("reports", nargs="*", metavar="REPORT", help=f"{', '.join(names)}; by default all")
    chosen = parser.parse_args().reports or names
    unknown = set(chosen) - set(names)
    if unknown:
        parser.error(f"unknown report {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    if CLAIMS in chosen:
        print(show_claims())
    tables = write_tables(ROOT / "datasets", [name for name in chosen if name in TABLES])
    for name in (each for each in chosen if each != CLAIMS):
        if name in TABLES and name not in tables:
            print(f"{name}: left out, its table is not beside the checkout", file=sys.stderr)
            continue
        halves = _flowbench(["compare", *arguments] for arguments in REPORTS[name])
        runs = [run for half in halves for run in half["runs"]]
        (answer,) = _flowbench([["report", *runs, f"--output=reports/gallery/{name}"]])
        print(answer["report"])


def show_claims() -> Path:
    """Measure every claim whose data, if it reads any, are beside the checkout; returns the index."""
    found = []
    for name in STUDIES.names():
        wanted = STUDIES.get(name).reads("default")
        if wanted and not (DATA / wanted).is_dir():
            print(f"{name}: left out, its data are not beside the checkout", file=sys.stderr)
            continue
        data = [f"--data={DATA / wanted}"] if wanted else []
        (answer,) = _flowbench([["reproduce", name, *data]])
        found.append(Path(answer["study"]))
    pages = GALLERY / CLAIMS
    for study in found:
        shutil.copytree(ROOT / "reports" / CLAIMS / study.name, pages / study.name, dirs_exist_ok=True)
    return write_claims_index([StudyFolder(ROOT / study) for study in found], pages)


def _flowbench(lines: Iterable[Sequence[str]]) -> list[dict[str, Any]]:
    """What flowbench answers to each of some command lines, all run at once; ends with it if one fails."""
    start = [sys.executable, "cli.py"]
    processes = [
        subprocess.Popen([*start, *line, "--json"], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        for line in lines
    ]
    answers = [process.communicate()[0] for process in processes]
    if failed := next((process.returncode for process in processes if process.returncode), 0):
        sys.exit(failed)
    return [json.loads(answer) for answer in answers]


if __name__ == "__main__":
    main()
