"""Where a training run stands."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Progress:
    """Where training stands, for a progress line and for the log.

    `loss` and the `terms` that it is made of, by name, where there are several, are means since the last
    record; `validation_nll` is in nats, data units, and `nfe` what its solve took; `fraction` is the
    share of the budget that is spent and `seconds_left` an estimate.
    """

    step: int
    phase: int
    objective: str
    loss: float
    terms: dict[str, float]
    learning_rate: float
    validation_nll: float
    best_nll: float
    nfe: int | None
    rows_per_second: float
    wall_seconds: float
    cpu_seconds: float
    fraction: float
    seconds_left: float
