"""How a fitted model is judged."""

from pydantic import Field, NonNegativeInt, PositiveInt

from flowbench.options import Options, part_of
from flowbench.registry import INTEGRATORS


class EvaluationOptions(Options):
    """Solver and sizes of the evaluation that ends a fit.

    Reported log-likelihoods are float64 with the exact divergence, solved by `integrator`. At most
    `test_rows` test rows are scored; `error_rows` of them again under a refined solver, for its error.
    `samples` rows are drawn; the density is tabulated on `grid` x `grid` points where there are two columns.
    """

    integrator: part_of(INTEGRATORS, "per-row") = {  # type: ignore[valid-type]
        "name": "per-row",
        "atol": 1e-6,
        "rtol": 1e-6,
    }
    test_rows: PositiveInt = 5000
    error_rows: PositiveInt = 200
    samples: PositiveInt = 2000
    grid: int = Field(default=100, ge=2)
    paths: NonNegativeInt = 200
