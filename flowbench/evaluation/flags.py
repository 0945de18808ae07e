"""Faults of a row's log-likelihood, in words."""

from dataclasses import dataclass

from torch import Tensor

from flowbench.evaluation.reported import Likelihoods

NO_NUMBER = "the log-likelihood is not a number"
SOLVE_FAILED = "the solve failed"
ZERO_DENSITY = "the density is zero there"
INFINITE_DENSITY = "the density is infinite there"
UNKNOWN_ERROR = "how far it may be off is not known"
ABOVE = "may be off by more than the largest error asked for"


@dataclass(frozen=True)
class Flag:
    """A fault of a row: its `kind`, which many rows share, and its `text`, with the cause for this row."""

    kind: str
    text: str

    @classmethod
    def of(cls, kind: str, cause: str = "") -> "Flag":
        """The flag of this kind, with the cause appended if there is one."""
        return cls(kind, f"{kind}: {cause}" if cause else kind)


def flags_of(found: Likelihoods) -> dict[int, Flag]:
    """The flag of each row of `found: (n,)` that has a fault, by the row's number; the worst of several."""
    flags = {row: Flag.of(ABOVE) for row in _numbers(found.flagged)}
    # The error of a density that is not positive and finite means nothing.
    for row in _numbers(found.log_prob.isfinite() & ~found.error.isfinite()):
        flags[row] = Flag.of(UNKNOWN_ERROR, _why_unknown(found, row))
    for which, kind in (
        (found.log_prob.isposinf(), INFINITE_DENSITY),
        (found.log_prob.isneginf(), ZERO_DENSITY),
        (found.log_prob.isnan(), NO_NUMBER),
    ):
        flags |= {row: Flag.of(kind) for row in _numbers(which)}
    return flags | {row: Flag.of(SOLVE_FAILED, cause) for row, cause in found.failed.items()}


def _why_unknown(found: Likelihoods, row: int) -> str:
    """Why the error of a row is not known; empty if nothing tells."""
    if cause := found.unrefined.get(row):
        return f"the finer solve failed: {cause}"
    unknown = [name.replace("_", " ") for name, part in found.parts.items() if not part[row].isfinite()]
    return f"its {' and its '.join(unknown)} part could not be measured" if unknown else ""


def _numbers(which: Tensor) -> list[int]:
    """The numbers of the rows for which `which: (n,)` is true."""
    numbers: list[int] = which.nonzero().flatten().tolist()
    return numbers
