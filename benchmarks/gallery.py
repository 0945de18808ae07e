"""`python -m benchmarks.gallery [REPORT...]`: make the reports in reports/gallery anew.

On two real tables, and on one of them as it is, every model gets 300 seconds behind the marginal Gaussianiser
and as many behind plain standardisation; the two halves run side by side and take an hour a table. Tables and
runs are kept in datasets/ and runs/, so a comparison that was interrupted goes on with what is missing.
"""

import argparse
import json
import subprocess
import sys
from collections.abc import Iterable, Sequence
from typing import Any

from benchmarks.harness import ROOT
from benchmarks.tables import TABLES, write_tables
from flowbench.registry import MODELS

SECONDS = 300
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
    parser.add_argument("reports", nargs="*", metavar="REPORT", help=f"{', '.join(REPORTS)}; by default all")
    chosen = parser.parse_args().reports or list(REPORTS)
    unknown = set(chosen) - set(REPORTS)
    if unknown:
        parser.error(f"unknown report {', '.join(sorted(unknown))}; there are {', '.join(REPORTS)}")
    tables = write_tables(ROOT / "datasets", [name for name in chosen if name in TABLES])
    for name in chosen:
        if name in TABLES and name not in tables:
            print(f"{name}: left out, its table is not beside the checkout", file=sys.stderr)
            continue
        halves = _flowbench(["compare", *arguments] for arguments in REPORTS[name])
        runs = [run for half in halves for run in half["runs"]]
        (answer,) = _flowbench([["report", *runs, f"--output=reports/gallery/{name}"]])
        print(answer["report"])


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
