"""How a fitted model is judged."""

from typing import Literal, Self

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt, model_validator

from flowbench.encoding.dequantiser import PLACES
from flowbench.options import Options, part_of
from flowbench.registry import DIVERGENCES, INTEGRATORS

#: Tolerance at which a density is pictured or integrated.
COARSE = 1e-3


class EvaluationOptions(Options):
    """Solver and sizes of the evaluation that ends a fit.

    `integrator` solves for the log-likelihoods that are reported. `dtype` is their floating-point type and
    `divergence` the estimator of the divergence. Draws of a model without dequantised columns are always
    scored in float64 with the exact divergence. An estimated divergence is averaged over `trace_draws`
    solves. The log-density of a row with dequantised columns is averaged over `dequantisation_draws` places
    in its cell, an even number.

    At most `test_rows` test rows are scored. `error_rows` of them are solved again at a tenth of the
    tolerance, to find their errors. They are at most 500 if a row's number is a mean of several solves, since
    the error of the mean is far larger. A row whose error is above `max_error`, nats, is solved ever finer
    until it is not, unless its number is such a mean.

    `samples` rows are drawn. `paths` of them are followed from the base. A density of two columns is
    tabulated on `grid` x `grid` points. `certificates` says whether the model's likelihoods are checked
    (`flowbench.evaluation.certificates`).
    """

    integrator: part_of(INTEGRATORS, "per-row") = {  # type: ignore[valid-type]
        "name": "per-row",
        "atol": 1e-6,
        "rtol": 1e-6,
    }
    divergence: part_of(DIVERGENCES, "exact") = {"name": "exact"}  # type: ignore[valid-type]
    trace_draws: int = Field(default=8, ge=2)
    dequantisation_draws: int = Field(default=PLACES, ge=4, multiple_of=2)
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
