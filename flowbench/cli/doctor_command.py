"""The command `flowbench doctor`."""

from dataclasses import asdict
from pathlib import Path

from flowbench.cli import parameters as opt
from flowbench.cli import terminal


def doctor(json: opt.JsonOption = False, home: opt.HomeOption = Path()) -> int:
    """Check this machine, in ten to twenty seconds.

    Looks at versions, devices and write access, and makes a small fit whose answer is known.
    """
    from flowbench.workflows.doctor import examine
    from flowbench.workflows.home import Home

    checks = examine(Home(home))
    if json:
        terminal.print_json([asdict(check) for check in checks])
    else:
        terminal.print_table(
            ("check", "verdict", "detail"),
            [(c.name, "ok" if c.passed else "FAILED", c.detail) for c in checks],
        )
    return 0 if all(check.passed for check in checks) else 1
