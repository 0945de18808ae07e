"""What is wrong with a row's log-likelihood, in words."""

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
    """What is wrong with a row: a `kind`, the same for all rows alike, and the `text` of this row."""

    kind: str
    text: str

    @classmethod
    def of(cls, kind: str, cause: str = "") -> "Flag":
        """The flag of this kind, with a cause behind it where there is one."""
        return cls(kind, f"{kind}: {cause}" if cause else kind)


def flags_of(found: Likelihoods) -> dict[int, Flag]:
    """The rows of `found: (n,)`, by number, with which something is wrong; of several things the worst."""
    flags = {row: Flag.of(ABOVE) for row in _numbers(found.flagged)}
    # Where the density is not positive and finite, what its error is says nothing.
    for row in _numbers(found.log_prob.isfinite() & ~found.error.isfinite()):
        cause = found.unrefined.get(row)
        flags[row] = Flag.of(UNKNOWN_ERROR, f"the finer solve failed: {cause}" if cause else "")
    for which, kind in (
        (found.log_prob.isposinf(), INFINITE_DENSITY),
        (found.log_prob.isneginf(), ZERO_DENSITY),
        (found.log_prob.isnan(), NO_NUMBER),
    ):
        flags |= {row: Flag.of(kind) for row in _numbers(which)}
    return flags | {row: Flag.of(SOLVE_FAILED, cause) for row, cause in found.failed.items()}


def _numbers(which: Tensor) -> list[int]:
    """The numbers of the rows for which `which: (n,)` is true."""
    numbers: list[int] = which.nonzero().flatten().tolist()
    return numbers
