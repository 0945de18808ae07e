"""How a fitted model of series is judged."""

from pydantic import Field, NonNegativeInt, PositiveInt

from flowbench.options import Options, part_of
from flowbench.registry import INTEGRATORS


class SeriesEvaluationOptions(Options):
    """Solver and sizes of the evaluation that ends a fit of series.

    `integrator` solves the paths of latent states for what is reported. At most `test_series` test series are
    scored. A likelihood that is known by bounds takes `draws` draws of the latent state; 4 to some power
    shows how the bound tightens. `error_series` of them are solved again at a tenth of the tolerance.

    Predictions take `predictions` draws. For interpolation, a share `held_out` of the inner observations of a
    series is predicted from the others. For extrapolation, the observations after the first `seen` share of
    its time are predicted from those before. `curves` test series are pictured, and `samples` are drawn.
    """

    integrator: part_of(INTEGRATORS, "per-row") = {  # type: ignore[valid-type]
        "name": "per-row",
        "atol": 1e-6,
        "rtol": 1e-6,
    }
    test_series: PositiveInt = 500
    draws: PositiveInt = 256
    error_series: PositiveInt = 100
    predictions: int = Field(default=100, ge=2)
    held_out: float = Field(default=0.3, gt=0, lt=1)
    seen: float = Field(default=0.5, gt=0, lt=1)
    curves: NonNegativeInt = 6
    samples: NonNegativeInt = 20
