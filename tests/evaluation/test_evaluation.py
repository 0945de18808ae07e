"""Reported likelihoods and grids, against closed forms and much tighter solves."""

import math
from typing import cast

import numpy as np
import pytest
import torch
from bent import bent_flow, drawn_likelihoods
from scipy.stats import multivariate_normal
from torch import Tensor

from flowbench.data.lattice import Lattice
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.encoding.standardise import Standardise, StandardiseOptions
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.encoding.transform import Transform
from flowbench.errors import IntegrationError
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.failures import failing_rows
from flowbench.evaluation.flags import flags_of
from flowbench.evaluation.grid import data_box, grid_axes, grid_mass, tabulate
from flowbench.evaluation.reported import Likelihoods, reported_likelihoods
from flowbench.models.background import Background
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.classical.gaussian_mixture import MixtureDensity, MixtureOptions
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density import Density, Scores
from flowbench.models.density_model import DensityModel
from flowbench.ode.integrator import Velocity
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqOptions
from flowbench.registry import MODELS

NORMAL = multivariate_normal([3, -2], [[2.0, 0.6], [0.6, 0.5]])


def model(flow: Density) -> DensityModel:
    transform = Standardise(("a", "b"), StandardiseOptions())
    transform.fit(torch.tensor(NORMAL.rvs(500, random_state=0)))
    return DensityModel(TableEncoder(("a", "b"), [transform]), flow)


def normal_itself() -> DensityModel:
    flow = GaussianFlow(2, GaussianOptions(), torch.Generator()).double()
    factor = np.linalg.cholesky(NORMAL.cov)
    with torch.no_grad():
        flow.mean.copy_(torch.tensor(NORMAL.mean))
        flow.log_diagonal.copy_(torch.tensor(np.log(factor.diagonal())))
        flow.below_diagonal.copy_(torch.tensor(factor[1:2, 0]))
    return DensityModel(TableEncoder(("a", "b")), flow)


def in_cells(model: DensityModel, cells: Dequantiser | None) -> DensityModel:
    """The same density, of rows whose values stand for cells."""
    encoder = TableEncoder(model.columns, cast(list[Transform], list(model.encoder.transforms)), cells)
    return DensityModel(encoder, model.flow, model.background)


def options(tolerance: float = 1e-5, **values: object) -> EvaluationOptions:
    return EvaluationOptions(integrator=PerRowOptions(atol=tolerance, rtol=tolerance), **values)


def true_errors(reported: Likelihoods, bent: DensityModel, x: Tensor) -> Tensor:
    reference = bent.for_evaluation(PerRowOptions(atol=1e-12, rtol=1e-12)).log_prob(x)
    return (reported.log_prob - reference).abs()


def test_a_gaussian_in_data_units_against_scipy() -> None:
    rows = NORMAL.rvs(200_000, random_state=1)
    gaussian = model(GaussianFlow(2, GaussianOptions(), torch.Generator()))
    gaussian.flow.initialise(gaussian.encoder.to_model(torch.tensor(rows))[0])
    reported = reported_likelihoods(gaussian, torch.tensor(rows[:1000]), EvaluationOptions())
    assert reported.nfe is None and reported.regime is None
    assert reported.log_prob.dtype == torch.float64
    assert np.abs(reported.log_prob.numpy() - NORMAL.logpdf(rows[:1000])).max() < 0.05
    # Nothing but rounding.
    assert (reported.error > 0).all() and (reported.error < 1e-12).all()


@pytest.mark.parametrize("tolerance", [1e-3, 1e-5])
@pytest.mark.parametrize("error_rows", [300, 100])
def test_stated_errors_hold_and_are_no_larger_than_they_need(tolerance: float, error_rows: int) -> None:
    x = torch.tensor(NORMAL.rvs(300, random_state=2))
    bent = model(bent_flow())
    reported = reported_likelihoods(bent, x, options(tolerance, error_rows=error_rows))
    reference = bent.for_evaluation(PerRowOptions(atol=1e-12, rtol=1e-12)).log_prob(x)
    errors = (reported.log_prob - reference).abs()
    # Few refined rows tell the others' errors only roughly.
    assert (errors <= reported.error).double().mean() >= (0.99 if error_rows == 300 else 0.97)
    assert reported.error.median() <= 10 * errors.median()
    assert reported.regime is not None and reported.regime.is_convergent
    refined = torch.randperm(300, generator=torch.Generator().manual_seed(0)) < error_rows
    off = (reference - reported.log_prob)[refined]
    # The finer solve removes most of the error: about a tenth of it is left.
    assert reported.shift == pytest.approx(off.mean().item(), abs=0.3 * off.abs().mean().item())


def test_a_rows_error_does_not_depend_on_the_rows_beside_it() -> None:
    x = torch.tensor(NORMAL.rvs(20, random_state=2))
    bent = model(bent_flow())
    together = reported_likelihoods(bent, x, options())
    alone = reported_likelihoods(bent, x[7:8], options())
    assert alone.log_prob.item() == pytest.approx(together.log_prob[7].item(), abs=1e-9)
    assert alone.error.item() == pytest.approx(together.error[7].item(), rel=1e-3)


def test_rows_above_the_largest_error_are_solved_finer() -> None:
    x = torch.tensor(NORMAL.rvs(200, random_state=2))
    bent = model(bent_flow())
    loose = reported_likelihoods(bent, x, options(1e-3))
    bound = loose.error.median().item()
    tight = reported_likelihoods(bent, x, options(1e-3, max_error=bound))
    kept = loose.error <= bound
    assert not kept.all()
    assert torch.equal(tight.log_prob[kept], loose.log_prob[kept])
    assert (tight.error <= bound).all() and not tight.flagged.any()
    errors = true_errors(tight, bent, x)
    assert (errors <= tight.error).double().mean() >= 0.99


def test_an_error_is_the_sum_of_its_parts() -> None:
    x = torch.tensor(NORMAL.rvs(40, random_state=2))
    bent = model(bent_flow())
    native = {"name": "native", "atol": 1e-6, "rtol": 1e-6}
    estimated = EvaluationOptions(integrator=native, divergence={"name": "hutchinson"})
    cells = Dequantiser(("a", "b"), {"a": Lattice(0.1, 0.0)})
    for given, dequantiser, names in (
        (options(), None, {"solver", "arithmetic"}),
        (options(1e-3, max_error=1e-4), None, {"solver", "arithmetic"}),
        (options(), cells, {"solver", "arithmetic", "dequantisation"}),
        (estimated, None, {"solver", "arithmetic", "trace"}),
    ):
        found = reported_likelihoods(in_cells(bent, dequantiser), x, given)
        assert set(found.parts) == names
        total = sum(found.parts.values(), torch.zeros_like(found.error))
        assert torch.allclose(total, found.error, rtol=1e-12)
        assert all((part >= 0).all() for part in found.parts.values())
    closed = reported_likelihoods(normal_itself(), x, EvaluationOptions())
    assert set(closed.parts) == {"arithmetic"} and torch.equal(closed.parts["arithmetic"], closed.error)


def test_rows_that_no_solve_makes_good_enough_are_flagged() -> None:
    x = torch.tensor(NORMAL.rvs(20, random_state=2))
    reported = reported_likelihoods(model(bent_flow()), x, options(1e-3, max_error=1e-30))
    assert reported.flagged.all()


@pytest.mark.parametrize("engine", ["native", "per-row"])
def test_an_estimated_divergence_has_an_error_that_covers_it(engine: str) -> None:
    x = torch.tensor(NORMAL.rvs(200, random_state=2))
    bent = model(bent_flow())
    solver = {"name": engine, "atol": 1e-6, "rtol": 1e-6}
    estimated = EvaluationOptions(integrator=solver, divergence={"name": "hutchinson"})
    reported = reported_likelihoods(bent, x, estimated)
    errors = true_errors(reported, bent, x)
    assert errors.median() > 1e-3
    assert (errors <= reported.error).double().mean() >= 0.97


def test_float32_is_told_by_its_errors() -> None:
    x = torch.tensor(NORMAL.rvs(200, random_state=2))
    bent = model(bent_flow())
    reported = reported_likelihoods(bent, x, options(dtype="float32"))
    errors = true_errors(reported, bent, x)
    assert (errors <= reported.error).double().mean() >= 0.99
    # At this tolerance it is rounding that decides, which no refinement lessens.
    rounded = reported_likelihoods(bent, x, options(1e-8, dtype="float32"))
    assert rounded.error.median() > 1e-7
    assert (true_errors(rounded, bent, x) <= rounded.error).double().mean() >= 0.98


def test_a_fixed_grid_has_errors_too() -> None:
    x = torch.tensor(NORMAL.rvs(200, random_state=2))
    bent = model(bent_flow())
    grid = EvaluationOptions(integrator=TorchdiffeqOptions(method="rk4", steps=40))
    reported = reported_likelihoods(bent, x, grid)
    errors = true_errors(reported, bent, x)
    assert (errors <= reported.error).double().mean() >= 0.99
    assert reported.regime is not None
    # Half the step, a sixteenth of the error.
    assert reported.regime.order == pytest.approx(math.log10(16), abs=0.2)


def test_two_steps_of_euler_are_no_solve() -> None:
    x = torch.tensor(NORMAL.rvs(50, random_state=2))
    grid = EvaluationOptions(integrator=TorchdiffeqOptions(method="euler", steps=2))
    reported = reported_likelihoods(model(bent_flow()), x, grid)
    assert reported.shift is not None and abs(reported.shift) > 0.1


def test_float32_is_told_where_nothing_is_solved() -> None:
    x = torch.tensor(NORMAL.rvs(50, random_state=2))
    flow = MODELS.get("maf")(2, MODELS.get("maf").Options(hidden=(16,)), torch.Generator().manual_seed(0))
    rounded = model(flow)
    reported = reported_likelihoods(rounded, x, options(dtype="float32"))
    exact = rounded.for_evaluation(PerRowOptions()).log_prob(x)
    assert ((reported.log_prob - exact).abs() <= reported.error).all()
    assert reported.error.max() > 1e-9


def test_errors_with_probes_are_no_larger_for_rows_that_are_not_refined() -> None:
    x = torch.tensor(NORMAL.rvs(1500, random_state=2))
    native = {"name": "native", "atol": 1e-5, "rtol": 1e-5}
    estimated = {"name": "hutchinson", "probes": 4}
    found = reported_likelihoods(
        model(bent_flow()), x, EvaluationOptions(integrator=native, divergence=estimated, error_rows=100)
    )
    assert found.shift is not None and abs(found.shift) < 1e-3
    assert found.error[100:].median() <= 2 * found.error[:100].median()


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_draws_have_errors_that_hold(tolerance: float) -> None:
    bent = model(bent_flow())
    x, drawn = drawn_likelihoods(bent, 1000, options(tolerance), torch.Generator().manual_seed(5))
    errors = true_errors(drawn, bent, x)
    assert (errors <= drawn.error).double().mean() >= 0.97
    # Wider than those of rows that are solved twice, since local errors tell rows apart only roughly.
    assert drawn.error.median() <= 50 * errors.median()
    again, same = drawn_likelihoods(bent, 1000, options(tolerance), torch.Generator().manual_seed(5))
    assert torch.equal(again, x) and torch.equal(same.error, drawn.error)


@pytest.mark.parametrize("tolerance", [1e-3, 1e-6])
def test_rows_that_are_the_backgrounds_do_not_widen_the_errors_of_others(tolerance: float) -> None:
    def reported(background: Background | None) -> tuple[Likelihoods, Likelihoods]:
        mixed = DensityModel(bare.encoder, bare.flow, background)
        drawn = drawn_likelihoods(mixed, 1000, options(tolerance), torch.Generator().manual_seed(5))[1]
        return drawn, reported_likelihoods(mixed, x, options(tolerance, error_rows=300))

    bare = model(bent_flow())
    # A tenth of the density lies where the flow has next to none: there only rounding moves a log-density.
    background = Background(2)
    background.mixture.fit(12 + 0.1 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    background.share.fill_(0.1)
    far, _ = bare.encoder.to_data(12 + 0.1 * torch.randn(50, 2, generator=torch.Generator().manual_seed(1)))
    x = torch.cat([far, torch.tensor(NORMAL.rvs(550, random_state=2))])
    for mixed, own in zip(reported(background), reported(None), strict=True):
        assert mixed.error.median() <= 3 * own.error.median()


def test_rows_of_the_background_do_not_narrow_the_errors_of_others() -> None:
    bare = model(bent_flow())
    background = Background(2)
    background.mixture.fit(12 + 0.1 * torch.randn(50, 2, generator=torch.Generator().manual_seed(0)))
    background.share.fill_(0.1)
    mixed = DensityModel(bare.encoder, bare.flow, background)
    far, _ = bare.encoder.to_data(12 + 0.1 * torch.randn(600, 2, generator=torch.Generator().manual_seed(1)))
    x = torch.cat([far, torch.tensor(NORMAL.rvs(200, random_state=2))])
    for rows in (x, x.flip(0)):
        found = reported_likelihoods(mixed, rows, options(1e-3, error_rows=200))
        errors = true_errors(found, mixed, rows)
        others = errors > 1e-9
        assert (errors <= found.error)[others].double().mean() >= 0.98


def test_one_refined_row_does_not_decide_the_errors_of_all() -> None:
    x = torch.tensor(NORMAL.rvs(400, random_state=2))
    bent = model(bent_flow())
    found = reported_likelihoods(bent, x, options(1e-3, error_rows=1))
    assert (true_errors(found, bent, x) <= found.error).double().mean() >= 0.97


@pytest.mark.parametrize("name", ["planar", "sylvester", "maf", "nsf"])
def test_draws_that_nothing_is_solved_for_have_errors_that_hold(name: str) -> None:
    flow = MODELS.get(name)(2, MODELS.get(name).Options(), torch.Generator().manual_seed(3))
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter += 0.5 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(4))
    drawn_from = model(flow)
    x, drawn = drawn_likelihoods(drawn_from, 1000, EvaluationOptions(), torch.Generator().manual_seed(5))
    scored = drawn_from.for_evaluation(PerRowOptions()).log_prob(x)
    assert ((drawn.log_prob - scored).abs() <= drawn.error).double().mean() >= 0.97


def test_a_large_log_likelihood_has_a_large_error() -> None:
    gaussian = model(GaussianFlow(2, GaussianOptions(), torch.Generator()))
    near, far = reported_likelihoods(gaussian, torch.tensor([[3.0, -2.0], [1e6, 0]]), options()).error
    assert near < 1e-12
    assert far > 1e-5


def test_rounding_is_measured_where_float32_cannot_follow_the_solver() -> None:
    x = torch.tensor(NORMAL.rvs(20, random_state=2))
    # So few evaluations do for float64 alone: what float32 rounds looks to a solver like error of its steps.
    strict = EvaluationOptions(integrator=PerRowOptions(atol=1e-9, rtol=1e-9, max_nfe=700))
    found = reported_likelihoods(model(bent_flow()), x, strict)
    assert found.regime is not None
    assert 0 < found.regime.rounding < 1e-9


def test_a_solve_that_fails_names_the_rows() -> None:
    x = torch.tensor(NORMAL.rvs(50, random_state=2))
    few = EvaluationOptions(integrator=PerRowOptions(max_nfe=20))
    with pytest.raises(IntegrationError, match="rows 1 to 50 of those scored, as one batch"):
        reported_likelihoods(model(bent_flow()), x, few)


class Breaking(ContinuousFlow):
    """A flow whose velocity is no number for some rows: where x > `edge` at tolerances below `below`."""

    edge, below = 15.0, 1.0

    def rates(
        self, field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> tuple[Tensor, ...]:
        velocity, divergence = super().rates(field, t, x, probes, context)
        if self.integrator.options.model_dump()["atol"] >= self.below:
            return velocity, divergence
        return torch.where(x[:, :1] > self.edge, torch.nan, velocity), divergence


def breaking(below: float = 1.0) -> DensityModel:
    flow = bent_flow()
    flow.__class__ = Breaking
    assert isinstance(flow, Breaking)
    flow.below = below
    return model(flow)


def with_rows_that_fail(n: int = 60) -> tuple[Tensor, list[int], list[int]]:
    """Rows of which some lie beyond the edge, the places of these, and those of the others."""
    x = torch.tensor(NORMAL.rvs(n, random_state=2)).clamp(-1, 6)
    lost = [0, 5, 6, n - 1]
    x[lost, 0] = torch.tensor([60.0, 40.0, 50.0, 80.0], dtype=torch.float64)
    return x, lost, [row for row in range(n) if row not in lost]


@pytest.mark.parametrize("chunk", [1024, 40])
def test_rows_that_fail_take_no_others_with_them(monkeypatch: pytest.MonkeyPatch, chunk: int) -> None:
    monkeypatch.setattr("flowbench.models.density_model.CHUNK", chunk)
    x, lost, others = with_rows_that_fail()
    found = reported_likelihoods(breaking(), x, options(error_rows=20), strict=False)
    assert sorted(found.failed) == lost
    assert set(found.failed.values()) == {"it met a velocity that is not finite"}
    assert found.log_prob[lost].isnan().all() and found.error[lost].isnan().all()
    without = reported_likelihoods(breaking(), x[others], options(error_rows=20))
    assert torch.equal(found.log_prob[others], without.log_prob)
    assert torch.equal(found.error[others], without.error)
    assert (found.nfe, found.shift, found.regime) == (without.nfe, without.shift, without.regime)
    with pytest.raises(IntegrationError, match="row 1 of the batch"):
        reported_likelihoods(breaking(), x, options())


def test_nothing_is_known_where_all_rows_fail() -> None:
    x, lost, _ = with_rows_that_fail()
    found = reported_likelihoods(breaking(), x[lost], options(max_error=1.0), strict=False)
    assert sorted(found.failed) == [0, 1, 2, 3]
    assert found.log_prob.isnan().all() and found.error.isnan().all() and not found.flagged.any()


@pytest.mark.parametrize("max_error", [None, 1e-30])
def test_a_row_whose_finer_solve_fails_keeps_its_number(max_error: float | None) -> None:
    x, lost, others = with_rows_that_fail()
    asked = options(1e-3, max_error=max_error)
    found = reported_likelihoods(breaking(0.9e-3), x, asked, strict=False)
    assert not found.failed
    assert sorted(found.unrefined) == lost
    assert set(found.unrefined.values()) == {"it met a velocity that is not finite"}
    assert found.error[lost].isposinf().all() and found.error[others].isfinite().all()
    if max_error is None:
        assert torch.equal(found.log_prob, reported_likelihoods(model(bent_flow()), x, asked).log_prob)
        assert math.isfinite(found.shift or math.nan)
    else:
        assert found.flagged.all()
    flags = flags_of(found)
    assert {flags[row].kind for row in lost} == {"how far it may be off is not known"}
    assert flags[0].text.endswith("not known: the finer solve failed: it met a velocity that is not finite")


def test_of_rows_that_share_their_steps_those_that_fail_are_found() -> None:
    x, lost, others = with_rows_that_fail()
    shared = EvaluationOptions(integrator=TorchdiffeqOptions(atol=1e-5, rtol=1e-5))
    found = reported_likelihoods(breaking(), x, shared, strict=False)
    assert sorted(found.failed) == lost
    without = reported_likelihoods(breaking(), x[others], shared)
    assert torch.equal(found.log_prob[others], without.log_prob)


def test_a_search_for_rows_that_fail_comes_to_an_end() -> None:
    asked = []

    def solve(rows: Tensor) -> None:
        asked.append(len(rows))
        raise IntegrationError("it failed", cause="it met its cap")

    failed = failing_rows(solve, torch.zeros(1024, 2), IntegrationError("it failed"))
    assert failed == dict.fromkeys(range(1024), "it met its cap")
    assert sum(asked) <= 4 * 1024
    # Only all together fail.
    assert len(failing_rows(len, torch.zeros(5, 2), IntegrationError("it failed", cause="x"))) == 5


def test_draws_that_fail_do_not_stop_rows_from_being_scored() -> None:
    x = torch.tensor(NORMAL.rvs(60, random_state=2))
    # Some of the model's own draws take more evaluations than there are, and so do some rows.
    few = EvaluationOptions(integrator=PerRowOptions(max_nfe=150))
    with pytest.raises(IntegrationError, match="cap of 150"):
        drawn_likelihoods(model(bent_flow()), 200, few, torch.Generator().manual_seed(0))
    found = reported_likelihoods(model(bent_flow()), x, few, strict=False)
    scored = ~found.log_prob.isnan()
    assert 0 < len(found.failed) < 30 and int(scored.sum()) == 60 - len(found.failed)
    assert set(found.failed.values()) == {"it met its cap of 150 evaluations"}
    enough = reported_likelihoods(model(bent_flow()), x[scored], EvaluationOptions())
    assert torch.equal(found.log_prob[scored], enough.log_prob)
    assert (found.error[scored] < 10 * enough.error).all()
    assert (found.error[scored] > 0.1 * enough.error).all()


def test_what_is_wrong_with_a_row_is_told_in_words() -> None:
    inf, nan = math.inf, math.nan
    log_prob = torch.tensor([0.0, -inf, inf, nan, nan, 1.0, 2.0])
    error = torch.tensor([1e-9, nan, nan, nan, nan, inf, 1.0])
    flagged = torch.tensor([False, True, True, True, False, True, True])
    found = Likelihoods(log_prob, error, flagged, failed={4: "it broke"})
    assert {row: (flag.kind, flag.text) for row, flag in flags_of(found).items()} == {
        1: ("the density is zero there",) * 2,
        2: ("the density is infinite there",) * 2,
        3: ("the log-likelihood is not a number",) * 2,
        4: ("the solve failed", "the solve failed: it broke"),
        5: ("how far it may be off is not known",) * 2,
        6: ("may be off by more than the largest error asked for",) * 2,
    }


def test_grid_of_a_known_density() -> None:
    x, y = grid_axes(((-5, 11), (-7, 3)), 200)
    table = tabulate(lambda points: np.asarray(NORMAL.logpdf(points)), x, y)
    assert table[30, 150] == pytest.approx(NORMAL.logpdf([x[30], y[150]]))
    assert grid_mass(table, x, y) == pytest.approx(1, abs=1e-6)


def test_box_grows_around_the_rows() -> None:
    assert data_box(np.array([[0.0, 10.0], [4.0, 30.0]]), margin=0.25) == ((-1.0, 5.0), (5.0, 35.0))


def test_dequantised_rows_get_a_bound_of_the_mass_of_their_cells() -> None:
    cells = Dequantiser(("a", "b"), {"a": Lattice(1.0)})
    rows = cells.restore(torch.tensor(NORMAL.rvs(300, random_state=2))).numpy()
    exact = normal_itself()
    x = torch.tensor(rows)
    found = reported_likelihoods(in_cells(exact, cells), x, options())
    places = rows[:, None] + np.stack([np.linspace(-0.5, 0.5, 4001), np.zeros(4001)], 1)
    inside = NORMAL.logpdf(places)
    true = np.trapezoid(inside, axis=1) / 4000
    off = np.abs(found.log_prob.numpy() - true)
    assert (off <= found.error.numpy()).mean() >= 0.99
    assert np.abs((found.log_prob.numpy() - true).mean()) < 0.01
    mass = np.log(np.trapezoid(np.exp(inside), axis=1) / 4000)
    assert (true <= mass + 1e-9).all()
    # Whoever is scored beside a row, and wherever in its cell it stands.
    alone = reported_likelihoods(in_cells(exact, cells), x[5:6], options())
    assert alone.log_prob == pytest.approx(found.log_prob[5:6], abs=1e-12)


def test_more_places_in_a_cell_lessen_the_error() -> None:
    cells = Dequantiser(("a", "b"), {"a": Lattice(1.0), "b": Lattice(0.5)})
    x = cells.restore(torch.tensor(NORMAL.rvs(200, random_state=2)))
    few, many, most = (
        reported_likelihoods(in_cells(normal_itself(), cells), x, options(dequantisation_draws=draws))
        for draws in (4, 64, 1024)
    )
    assert many.error.median() < few.error.median() / 4
    for found in (few, many):
        assert ((found.log_prob - most.log_prob).abs() <= found.error).float().mean() >= 0.99


def test_draws_of_dequantised_columns_are_their_values() -> None:
    cells = Dequantiser(("a", "b"), {"a": Lattice(1.0)})
    bent = in_cells(model(bent_flow()), cells)
    x, drawn = drawn_likelihoods(bent, 120, options(1e-3), torch.Generator().manual_seed(5))
    assert torch.equal(x[:, 0], x[:, 0].round()) and not torch.equal(x[:, 1], x[:, 1].round())
    scored = reported_likelihoods(bent, x, options(1e-3))
    assert torch.equal(drawn.log_prob, scored.log_prob)


class Flawed(GaussianFlow):
    """One that draws a row which is no number."""

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        x, scores = super()._draw(n, context, generator)
        flawed = torch.arange(n) == 7 if n > 10 else torch.ones(n, dtype=torch.bool)
        return torch.where(flawed[:, None], torch.nan, x), scores


@pytest.mark.parametrize("cells", [Dequantiser(("a", "b"), {"a": Lattice(1.0)}), None])
def test_draws_that_are_no_numbers_cost_no_others_their_likelihood(cells: Dequantiser | None) -> None:
    flawed = in_cells(model(Flawed(2, GaussianOptions(), torch.Generator())), cells)
    _, drawn = drawn_likelihoods(flawed, 50, options(max_error=10.0), torch.Generator().manual_seed(5))
    good = torch.arange(50) != 7
    assert torch.isfinite(drawn.log_prob[good]).all() and torch.isfinite(drawn.error[good]).all()
    assert torch.isfinite(drawn.log_prob).sum() == 49
    assert torch.isnan(drawn.log_prob[7]) and torch.isinf(drawn.error[7]) and drawn.flagged[7]
    assert not drawn.flagged[good].any()
    _, drawn = drawn_likelihoods(flawed, 5, options(), torch.Generator().manual_seed(5))
    assert torch.isnan(drawn.log_prob).all() and torch.isinf(drawn.error).all()


def test_errors_of_dequantised_rows_hold_under_a_solver() -> None:
    cells = Dequantiser(("a", "b"), {"a": Lattice(1.0)})
    bent = model(bent_flow())
    rows = cells.restore(torch.tensor(NORMAL.rvs(60, random_state=2))).numpy()
    found = reported_likelihoods(in_cells(bent, cells), torch.tensor(rows), options(1e-5))
    places = np.stack([np.linspace(-0.49, 0.49, 50), np.zeros(50)], 1)
    finely = bent.for_evaluation(PerRowOptions(atol=1e-6, rtol=1e-6))
    inside = finely.log_prob(torch.tensor(rows[:, None] + places).flatten(0, 1)).reshape(60, 50)
    off = (found.log_prob - inside.mean(1)).abs()
    assert (off <= found.error).double().mean() >= 0.99
    assert off.median() < 0.2 * inside.std(1).median()


def test_a_density_that_is_zero_in_a_cell_makes_its_rows_impossible() -> None:
    cells = Dequantiser(("a", "b"), {"a": Lattice(1.0)})

    class Bounded(GaussianFlow):
        def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
            scores = super()._score(x, context, generator)
            return Scores(torch.where(x[:, 0] > 0, scores.log_prob, -torch.inf))

    flow = Bounded(2, GaussianOptions(), torch.Generator())
    x = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
    found = reported_likelihoods(DensityModel(TableEncoder(("a", "b"), [], cells), flow), x, options())
    assert torch.isneginf(found.log_prob[0]) and torch.isinf(found.error[0])
    assert torch.isfinite(found.log_prob[1]) and torch.isfinite(found.error[1])


def test_errors_of_dequantised_rows_hold_where_one_of_many_cells_is_wide() -> None:
    names = tuple(f"c{i}" for i in range(16))
    flow = GaussianFlow(16, GaussianOptions(), torch.Generator()).double()
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.zero_()
    rows = np.random.default_rng(0).standard_normal((400, 16))
    for wide in (names[0], names[-1]):
        cells = Dequantiser(names, {name: Lattice(1.0 if name == wide else 1e-3) for name in names})
        x = cells.restore(torch.tensor(rows)).numpy()
        found = reported_likelihoods(
            DensityModel(TableEncoder(names, [], cells), flow), torch.tensor(x), options()
        )
        # The mean of (v + u)^2 over a cell of width s is v^2 + s^2 / 12.
        widths = np.array([cells.lattices[name].step for name in names])
        true = -0.5 * (x**2 + widths**2 / 12).sum(1) - 8 * np.log(2 * np.pi)
        assert (np.abs(found.log_prob.numpy() - true) <= found.error.numpy()).mean() >= 0.99


def test_errors_of_dequantised_rows_hold_where_a_density_ends_in_a_cell() -> None:
    rows = np.zeros((2000, 1))
    rows[:, 0] = np.random.default_rng(0).poisson(0.5, 2000)
    cells = Dequantiser(("a",), {"a": Lattice(1.0)})
    # A mixture of narrow normals that fills the cells evenly and ends within 2 per cent of the outer ones.
    flow = MixtureDensity(1, MixtureOptions(), torch.Generator())
    flow.initialise(cells.jitter(torch.tensor(rows), np.random.default_rng(1)))
    stepped = DensityModel(TableEncoder(("a",)), flow)
    found = reported_likelihoods(in_cells(stepped, cells), torch.tensor(rows[:300]), options())
    within = np.linspace(-0.5, 0.5, 2002)[1:-1] - 0.5 / 2001
    true = {
        value: stepped.log_prob(torch.tensor(value + within)[:, None]).mean().item()
        for value in np.unique(rows[:300])
    }
    off = np.abs(found.log_prob.numpy() - [true[value] for value in rows[:300, 0]])
    assert (off <= found.error.numpy()).mean() >= 0.99
