"""One solver of a ladder, and the cheapest that is good enough; without torch, so that it can be drawn."""

import json
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Rung:
    """A solver, what it costs and what it gets wrong.

    `bias` is by how much it raises the mean log-likelihood, nats, with the interval from `low` to `high`;
    99 in 100 rows are off by less than `row_error`, nats. `rows_per_second` are of CPU time, and `nfe` is
    that of the slowest row. The figures are None where the solve fails, which `failure` tells of.
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
        """What `score` takes with `--set` to use it, whatever the run's own evaluation is."""
        options = ", ".join(f"{name} = {json.dumps(value)}" for name, value in self.options.items())
        return (
            f"evaluation.integrator={{{options}}}",
            f"evaluation.dtype={self.dtype}",
            "evaluation.divergence=exact",
        )


def recommend(rungs: list[Rung], error: float) -> Rung | None:
    """The fastest solver whose bias is surely below `error`, nats; None where there is none."""
    good = [rung for rung in rungs if rung.worst_bias <= error]
    return max(good, key=lambda rung: rung.rows_per_second or 0.0, default=None)
