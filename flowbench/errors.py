"""Every error that flowbench raises on purpose.

A message says what failed, where (file, column, row, option) and what to do about it. Library code raises
these errors and never exits the process; `flowbench.cli` turns each class into an exit code.
"""

from collections.abc import Collection, Mapping
from difflib import get_close_matches

#: How many names a message lists before it stops.
MOST_NAMES_LISTED = 20


def unknown_name(kind: str, name: str, known: Collection[str]) -> str:
    """The error message for a `name` that is not among the `known` names of a `kind`, such as "column"."""
    close = get_close_matches(name, known, n=1)
    hint = f"did you mean `{close[0]}`? " if close else ""
    shown = list(known)[:MOST_NAMES_LISTED]
    more = f", and {len(known) - len(shown)} more" if len(known) > len(shown) else ""
    return f"unknown {kind} `{name}`; {hint}available: {', '.join(shown) or 'none'}{more}"


class FlowbenchError(Exception):
    """Base class of every error that flowbench raises on purpose."""


class ConfigurationError(FlowbenchError, ValueError):
    """An option, name or combination of options that cannot work."""


class UnknownNameError(ConfigurationError):
    """A name that is in no registry table, or a run that is not there."""


class UnknownColumnError(UnknownNameError):
    """A column that the table does not have."""


class DataError(FlowbenchError, ValueError):
    """A table that cannot be read, or that holds values which cannot be modelled."""


class RunFailedError(FlowbenchError):
    """A fit that diverged and could not be rescued."""


class IntegrationError(RunFailedError):
    """An ODE solve that met its evaluation cap, underflowed its step or left the finite numbers.

    `cause` is a short reason, such as "it met its cap of 20 evaluations". `rows` maps each row that failed,
    by its index in the batch from 0, to its own cause. It is empty for a solver that cannot tell rows apart,
    since they share their steps.
    """

    def __init__(self, message: str, *, cause: str = "", rows: Mapping[int, str] | None = None) -> None:
        super().__init__(message)
        self.cause = cause
        self.rows = dict(rows or {})


class RunExistsError(FlowbenchError):
    """A run folder that is already there and must not be overwritten."""


class RunLockedError(FlowbenchError):
    """A run folder that another process is writing to."""


class DamagedFileError(FlowbenchError):
    """A file that is damaged, was not written by flowbench, or breaks the rules of safe reading."""
