"""How densities are trained by default, for a kind of data and a budget."""

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Adaptation:
    """Changes of training phases and options for a kind of data, or for a budget.

    They hold for one `kind` of data, "toy" or "table", or for both if it is None. They hold for budgets of at
    least `seconds`; 0 means any budget.
    """

    kind: str | None = None
    seconds: float = 0.0
    phase: dict[str, Any] = field(default_factory=dict)
    options: dict[str, Any] = field(default_factory=dict)

    def suits(self, kind: str, seconds: float | None) -> bool:
        """Whether the changes hold for `kind` and a budget of `seconds`; None is a budget in steps."""
        return self.kind in (None, kind) and self.seconds <= (seconds or 0)


def likelihood_phases(learning_rate: float) -> tuple[dict[str, Any], ...]:
    """The default training phases of a flow whose likelihood takes one pass, at its own learning rate."""
    # Measured: benchmarks/DEFAULTS.md#discrete-flows
    own = {"optimizer": "soap", "batch_size": 1024, "learning_rate": learning_rate, "decline": 0.25}
    return ({"objective": "likelihood", **own},)
