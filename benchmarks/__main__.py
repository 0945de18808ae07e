"""`python -m benchmarks [CASE...] [--quick]`: measure, write results/<case>.json, then the page of all."""

import argparse
import resource
import time
from collections.abc import Callable
from importlib import import_module

from benchmarks import harness
from benchmarks.report import write_report

CASES = ("gradient",)


def main() -> None:
    """Parse the command line and run the cases one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; by default all")
    parser.add_argument("--quick", action="store_true", help="fewer repetitions: all cases in 10 minutes")
    parser.add_argument("--report", action="store_true", help="only write RESULTS.md from what is there")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    for case in () if arguments.report else arguments.cases or CASES:
        began, before = time.monotonic(), children_cpu_seconds()
        run: Callable[..., harness.Outcome] = import_module(f"benchmarks.cases.{case.replace('-', '_')}").run
        outcome = run(quick=arguments.quick)
        spent = children_cpu_seconds() - before
        path = harness.write(case, outcome, quick=arguments.quick, cpu_seconds=spent)
        seconds = time.monotonic() - began
        print(f"{case}: {path.relative_to(harness.ROOT)} after {seconds:.0f} s", flush=True)
    print(write_report())


def children_cpu_seconds() -> float:
    """CPU time of the contenders that have ended."""
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


if __name__ == "__main__":
    main()
