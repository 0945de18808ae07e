"""Peak memory of scoring and sampling, as tables get longer."""

from benchmarks.harness import Entry, Outcome, attempt

FLOWBENCH = "benchmarks.contenders.flowbench_cnf"
MIB = 2**20


def run(*, quick: bool) -> Outcome:
    """10^4 to 10^7 rows (quick: 10^5)."""
    outcome = Outcome(
        notes=[
            "Resident memory of a process of its own at its peak, less that of the same process with the "
            "fewest rows.",
            "A small field at a tolerance of 1e-2, float64, since only the memory is of interest. "
            "Rows and their log-likelihoods themselves take 24 bytes a row.",
            "`flowbench reproduce memory` measures the memory of gradients as their solves get longer.",
        ]
    )
    sizes = (10**4, 10**5) if quick else (10**4, 10**5, 10**6, 10**7)
    for direction in ("scoring", "sampling"):
        entries = {
            f"{size:,} rows": Entry(
                f"{direction} {size}", f"{FLOWBENCH}:many", {"rows": size, "direction": direction}
            )
            for size in sizes
        }
        _add(outcome, direction, entries)
    return outcome


def _add(outcome: Outcome, title: str, entries: dict[str, Entry]) -> None:
    least = 0
    for name, entry in entries.items():
        timing = attempt(entry)
        if timing.error:
            outcome.add(title, {"what": name, "failed": timing.error})
            continue
        least = least or timing.peak_bytes
        outcome.add(
            title,
            {
                "what": name,
                "peak MiB": round(timing.peak_bytes / MIB),
                "more than the first, MiB": round((timing.peak_bytes - least) / MIB),
                "CPU s": round(timing.median, 2),
            },
        )
