"""`python -m benchmarks [CASE...] [--quick]`: measure, write results/<case>.json, then the page of all."""

import argparse
import resource
import time
from collections.abc import Callable
from importlib import import_module
from typing import Any

from benchmarks import harness
from benchmarks.report import write_report

#: CPU seconds of training.
BUDGETS = (30, 60, 120, 300)
#: The cases by name: a function of a module of `benchmarks.cases`, and what it is called with.
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "gradient": ("gradient:run", {}),
    "series-gradient": ("series_gradient:run", {}),
    "scoring": ("scoring:run", {}),
    **{f"toys-{seconds}": ("quality:toys", {"seconds": float(seconds)}) for seconds in BUDGETS},
    **{f"tables-{seconds}": ("quality:tables", {"seconds": float(seconds)}) for seconds in BUDGETS},
    "peers": ("quality:peers", {"seconds": 60.0}),
    "floor": ("floor:run", {"seconds": 10.0}),
    "race": ("race:run", {}),
    "ablation": ("quality:ablation", {"seconds": 60.0}),
    "sweep": ("quality:sweep", {"seconds": 60.0}),
    **{f"recovery-{d}": ("recovery:run", {"columns": d, "seconds": 120.0}) for d in (2, 8, 32)},
    "regression": ("regression:run", {"seconds": 20.0}),
    "known": ("known_conditional:run", {"seconds": 120.0}),
    "kinds": ("columns:kinds", {"seconds": 60.0}),
    "gaps": ("columns:gaps", {"seconds": 60.0}),
    "mixed": ("mixed:run", {"seconds": 60.0}),
    "memory": ("memory:run", {}),
    "streaming": ("streaming:run", {}),
    "roofline": ("roofline:run", {}),
    "gpu": ("gpu:run", {}),
}
#: What a quick run measures when no case is named.
QUICK = ("gradient", "scoring", "toys-60", "tables-120", "memory", "roofline")


def main() -> None:
    """Parse the command line and run the cases one after another."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument(
        "cases", nargs="*", metavar="CASE", help=f"{', '.join(CASES)}; by default all, or a few if quick"
    )
    parser.add_argument(
        "--quick",
        action="store_true",
        help="fewer and shorter repetitions, of a few cases unless some are named",
    )
    parser.add_argument("--report", action="store_true", help="only write RESULTS.md from what is there")
    arguments = parser.parse_args()
    unknown = set(arguments.cases) - set(CASES)
    if unknown:
        parser.error(f"unknown case {', '.join(sorted(unknown))}; there are {', '.join(CASES)}")
    chosen = arguments.cases or (QUICK if arguments.quick else CASES)
    for case in () if arguments.report else chosen:
        began, before = time.monotonic(), children_cpu_seconds()
        target, values = CASES[case]
        module, _, name = target.partition(":")
        run: Callable[..., harness.Outcome] = getattr(import_module(f"benchmarks.cases.{module}"), name)
        try:
            outcome = run(quick=arguments.quick, **values)
        except harness.NotHereError as error:
            print(f"{case}: left as it is, since {error}", flush=True)
            continue
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
