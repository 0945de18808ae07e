"""How a fitted model is judged."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from flowbench.options import Options, part_of
from flowbench.registry import DIVERGENCES, INTEGRATORS

#: Tolerance at which a density is pictured or integrated.
COARSE = 1e-3


class EvaluationOptions(Options):
    """Solver and sizes of the evaluation that ends a fit.

    Reported log-likelihoods are solved by `integrator`, in float64 and with the exact divergence unless
    `dtype` and `divergence` say otherwise (those of draws are always so, unless columns are dequantised). An
    estimated divergence is averaged over `trace_draws` solves, the log-density of a row with dequantised
    columns over `dequantisation_draws` places in its cell, an even number. At most `test_rows` test rows are
    scored; `error_rows` rows (at most 500 where a row's number is the mean of several solves, which leave far
    more open) are solved again at a tenth of the tolerance, for the error of each, and those above
    `max_error`, nats, ever finer until they are not, where there is nothing to average. `samples` rows are
    drawn, `paths` of them with their way from the base; the density is tabulated on `grid` x `grid` points
    where there are two columns. `certificates` are checks of the model's likelihoods
    (`flowbench.evaluation.certificates`).
    """

    integrator: part_of(INTEGRATORS, "per-row") = {  # type: ignore[valid-type]
        "name": "per-row",
        "atol": 1e-6,
        "rtol": 1e-6,
    }
    divergence: part_of(DIVERGENCES, "exact") = {"name": "exact"}  # type: ignore[valid-type]
    trace_draws: int = Field(default=8, ge=2)
    dequantisation_draws: int = Field(default=8, ge=4, multiple_of=2)
    dtype: Literal["float64", "float32"] = "float64"
    test_rows: PositiveInt = 5000
    error_rows: PositiveInt = 5000
    max_error: PositiveFloat | None = None
    samples: PositiveInt = 2000
    grid: int = Field(default=100, ge=2)
    paths: NonNegativeInt = 200
    certificates: bool = True

    @model_validator(mode="after")
    def _divergence_is_chosen(self) -> Self:
        if self.divergence.name == "auto":
            raise ValueError(
                "the divergence `auto` is for training; an evaluation's is exact unless `divergence` names "
                "an estimator"
            )
        return self
