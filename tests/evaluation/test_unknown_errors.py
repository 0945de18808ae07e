"""What is not known about an error is infinite or NaN and flagged, never small."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from bent import bent_flow, drawn_likelihoods
from torch import Tensor

from flowbench.data.lattice import Lattice
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.evaluation.certificates import certify
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.flags import flags_of
from flowbench.evaluation.reported import Likelihoods, reported_likelihoods
from flowbench.evaluation.rounding import ROUNDING
from flowbench.evaluation.solver_error import covering_factor
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density import Density, Mapped, Scores
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.ode.integrator import Velocity
from flowbench.ode.per_row_engine import PerRowOptions

LOOSE = EvaluationOptions(integrator=PerRowOptions(atol=1e-3, rtol=1e-3))
NOT_KNOWN = "how far it may be off is not known"


def modelled(flow: Density) -> DensityModel:
    return DensityModel(TableEncoder(("a", "b")), flow)


def gaussian(flow_class: type[GaussianFlow]) -> DensityModel:
    return modelled(flow_class(2, GaussianOptions(), torch.Generator()))


def normal_rows(n: int) -> Tensor:
    return torch.randn(n, 2, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def test_a_factor_covers_no_change_that_is_not_known() -> None:
    change = torch.linspace(0.1, 0.2, 30, dtype=torch.float64)
    local = torch.ones_like(change)
    assert 0.19 < covering_factor(change, local) < 0.2
    assert math.isinf(covering_factor(change[:0], local[:0]))
    change[3] = math.nan
    assert math.isinf(covering_factor(change, local))


def test_rounding_that_hides_all_changes_bounds_the_factor() -> None:
    change = torch.full((30,), ROUNDING / 2, dtype=torch.float64)
    local = torch.linspace(1e-8, 1e-6, 30, dtype=torch.float64)
    assert covering_factor(change, local) * local.max().item() == pytest.approx(ROUNDING)


class OnlyFloat64(GaussianFlow):
    """A density that has no numbers in float32."""

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        scores = super()._score(x, context, generator)
        return Scores(scores.log_prob if x.dtype == torch.float64 else scores.log_prob * math.nan)


def test_rounding_that_cannot_be_measured_is_not_small() -> None:
    found = reported_likelihoods(gaussian(OnlyFloat64), normal_rows(5), EvaluationOptions(max_error=1.0))
    assert found.log_prob.isfinite().all() and found.error.isposinf().all() and found.flagged.all()
    flags = flags_of(found)
    assert sorted(flags) == [0, 1, 2, 3, 4]
    assert flags[0].kind == NOT_KNOWN
    assert flags[0].text == f"{NOT_KNOWN}: its arithmetic part could not be measured"


class DrawsNothing(GaussianFlow):
    """A density whose draws are not finite."""

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        x, scores = super()._draw(n, context, generator)
        return x * math.nan, scores


@pytest.mark.parametrize("cells", [{}, {"a": Lattice(1.0)}])
def test_without_draws_to_measure_it_on_no_error_is_small(cells: dict[str, Lattice]) -> None:
    dequantiser = Dequantiser(("a", "b"), cells)
    rows = dequantiser.restore(normal_rows(5))
    model = DensityModel(TableEncoder(("a", "b"), [], dequantiser), gaussian(DrawsNothing).flow)
    found = reported_likelihoods(model, rows, EvaluationOptions())
    assert found.log_prob.isfinite().all()
    assert set(found.parts) == {"arithmetic", "dequantisation"} if cells else {"arithmetic"}
    assert all(part.isposinf().all() for part in found.parts.values())


def test_a_number_that_is_none_has_no_error() -> None:
    class Patchy(GaussianFlow):
        def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
            log_prob = super()._score(x, context, generator).log_prob.clone()
            return Scores(log_prob.masked_fill(x[:, 0] > 8, math.nan).masked_fill(x[:, 0] < -8, -math.inf))

    rows = torch.tensor([[0.0, 0.0], [9.0, 0.0], [-9.0, 0.0]], dtype=torch.float64)
    found = reported_likelihoods(gaussian(Patchy), rows, EvaluationOptions())
    assert found.error[0] < 1e-12
    assert found.error[1].isnan() and found.error[2].isposinf()


class FailsOnTheRight(ContinuousFlow):
    """A flow whose solves below the tolerance `below` fail for rows with x > `edge`."""

    edge, below = 0.0, 0.9e-3

    def rates(
        self, field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, ...]:
        velocity, divergence = super().rates(field, t, x, probes, context)
        if self.integrator.options.model_dump()["atol"] >= self.below:
            return velocity, divergence
        return torch.where(x[:, :1] > self.edge, torch.nan, velocity), divergence


def failing_on_the_right(edge: float) -> DensityModel:
    flow = bent_flow()
    flow.__class__ = FailsOnTheRight
    assert isinstance(flow, FailsOnTheRight)
    flow.edge = edge
    return modelled(flow)


def test_a_model_whose_finer_solves_mostly_fail_has_no_typical_error() -> None:
    # Two thirds of the model's draws are farther to the right.
    model = failing_on_the_right(1.5)
    rows = normal_rows(40) * 0.1 - 4.0
    found = reported_likelihoods(model, rows, LOOSE, strict=False)
    kept = [row for row in range(40) if row not in found.unrefined]
    # Finer solves of these rows succeed, but the change of most of the model's draws is not known.
    assert len(kept) >= 20 and found.log_prob[kept].isfinite().all()
    assert found.error[kept].isposinf().all()
    assert found.regime is not None and not found.regime.is_convergent


def test_rows_are_not_covered_by_those_whose_finer_solve_did_not_fail() -> None:
    rows = normal_rows(60) * 0.5 + 1.5
    # None of the model's draws are as far to the right.
    rows[::10, 0] = 8.0
    options = LOOSE.model_copy(update={"error_rows": 30})
    found = reported_likelihoods(failing_on_the_right(6.0), rows, options, strict=False)
    # About a tenth of the refined rows fails, and so may a tenth of the others.
    assert 1 <= len(found.unrefined) <= 6
    refined = torch.randperm(60, generator=torch.Generator().manual_seed(0)) < 30
    assert found.error[~refined].isposinf().all()
    lost = torch.zeros(60, dtype=torch.bool)
    lost[list(found.unrefined)] = True
    assert found.error[lost].isposinf().all() and found.error[refined & ~lost].isfinite().all()


def test_draws_that_are_rounded_have_the_errors_of_exact_solves() -> None:
    model = modelled(bent_flow())
    native = {"name": "native", "atol": 1e-5, "rtol": 1e-5}
    options = EvaluationOptions(integrator=native, divergence={"name": "hutchinson"}, dtype="float32")
    x, drawn = drawn_likelihoods(
        model, 60, options, torch.Generator().manual_seed(5), restore=lambda x: np.round(x, 2)
    )
    reference = model.for_evaluation(PerRowOptions(atol=1e-11, rtol=1e-11)).log_prob(x)
    assert ((drawn.log_prob - reference).abs() <= drawn.error).double().mean() >= 0.97


@pytest.mark.parametrize(
    ("failure", "is_models"),
    [
        (torch.linalg.LinAlgError("the matrix is singular"), True),  # type: ignore[attr-defined]
        (FloatingPointError("no finite draws"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (ValueError("too many values to unpack"), False),
        (ZeroDivisionError("division by zero"), False),
    ],
)
def test_a_certificate_fails_for_a_fault_of_the_model_and_not_of_the_code(
    failure: Exception, is_models: bool
) -> None:
    class Faulty(GaussianFlow):
        def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
            raise failure

    x = normal_rows(20)
    scored = Likelihoods(x[:, 0], x[:, 0], x[:, 0] > 9)
    judge = partial(
        certify, gaussian(Faulty), Rows(x), scored, EvaluationOptions(), torch.Generator().manual_seed(0)
    )
    if not is_models:
        with pytest.raises(type(failure), match=str(failure)):
            judge()
        return
    found = judge()["round_trip"]
    assert not found.passed and found.settled
    assert found.text == f"the check broke down: {failure}"
