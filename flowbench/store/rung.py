"""One solver of a comparison of solvers, and the choice of one; without torch, for reports."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rung:
    """A solver with its cost and its errors.

    `setting` is the tolerance, below 1, or the number of steps. `bias` is by how much the solver raises the
    mean log-likelihood, nats, and `low` and `high` are the ends of its interval. 99 in 100 rows are off by
    less than `row_error`, nats. `rows_per_second` counts CPU seconds, and `nfe` is that of the slowest row.
    If the solve fails, these are None and `failure` says why.
    """

    engine: str
    method: str
    dtype: str
    setting: float
    nfe: int | None = None
    rows_per_second: float | None = None
    bias: float | None = None
    low: float | None = None
    high: float | None = None
    row_error: float | None = None
    failure: str = ""

    @property
    def family(self) -> str:
        """Engine, method and dtype, as text."""
        return f"{self.engine} {self.method} {self.dtype}"

    @property
    def label(self) -> str:
        """The family with its tolerance or steps, as text."""
        how = f"{self.setting:.0f} steps" if self.setting >= 1 else f"{self.setting:g}"
        return f"{self.family} {how}"

    @property
    def worst_bias(self) -> float:
        """The end of the interval that is farther from 0; infinite where the solve fails."""
        if self.low is None or self.high is None:
            return float("inf")
        return max(abs(self.low), abs(self.high))

    @property
    def options(self) -> dict[str, Any]:
        """The options of `evaluation.integrator`; `evaluation.dtype` stands beside them."""
        own: dict[str, Any] = {"name": self.engine, "method": self.method}
        if self.setting >= 1:
            return own | {"steps": int(self.setting)}
        return own | {"atol": self.setting, "rtol": self.setting}

    @property
    def settings(self) -> tuple[str, ...]:
        """The values of `--set` with which `score` uses this solver, whatever the run's own evaluation is."""
        options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.options.items())
        return (
            f"evaluation.integrator={{{options}}}",
            f"evaluation.dtype={self.dtype}",
            "evaluation.divergence=exact",
        )


def recommend(rungs: list[Rung], error: float) -> Rung | None:
    """The fastest solver whose whole interval of the bias is within `error`, nats; None if there is none."""
    good = [rung for rung in rungs if rung.worst_bias <= error]
    return max(good, key=lambda rung: rung.rows_per_second or 0.0, default=None)
