"""Certificates pass on healthy models, and each catches the fault that it is there for."""

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import IntegrationError
from flowbench.evaluation.certificates import certify
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.normalisation import Mass, bridge_mass, quadrature_mass
from flowbench.evaluation.reported import Likelihoods, reported_likelihoods
from flowbench.models.classical.gaussian import GaussianFlow, GaussianOptions
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import Flow, Mapped, Scores
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.ode.integrator import IntegratorOptions, State, Velocity
from flowbench.options import PartOptions
from flowbench.registry import MODELS
from flowbench.store import Certificate
from flowbench.workflows.config import resolve
from flowbench.workflows.preparation import Watch, build_encoder, make_trainer, prepare


def cloud(n: int, features: int, seed: int = 0) -> Tensor:
    """A bent, skewed cloud in unequal units."""
    z = torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    z[:, -1] += 0.5 * z[:, 0] ** 2
    return 10 + z * torch.logspace(0, -1, features, dtype=torch.float64)


SMALL: dict[str, dict[str, Any]] = {
    "cnf": {"flow.field": {"name": "time-mlp", "width": 32, "scales": 2}},
    "maf": {"flow.hidden": (16,)},
    "nsf": {"flow.hidden": (16,)},
    "coupling": {"flow.hidden": (16,)},
    "ngboost": {"flow.stages": 30, "flow.learning_rate": 0.1},
    "kde": {"flow.max_rows": 500},
}


@cache
def fitted(name: str, features: int) -> DensityModel:
    rows, columns = cloud(6000, features), [f"x{i}" for i in range(features)]
    overrides: dict[str, Any] = {"plan.steps": 150, "plan.validation_steps": 50, **SMALL.get(name, {})}
    config = resolve("array", name, overrides=overrides)
    prepared = prepare(config, build_encoder(config, columns), Rows(rows[1000:]), Rows(rows[:1000]))
    make_trainer(prepared, Watch()).run()
    return prepared.model


#: Tight enough for a gross fault to be told from, at half the price of the default.
LOOSER = {"name": "per-row", "atol": 1e-4, "rtol": 1e-4}


def certificates(model: DensityModel, **options: object) -> dict[str, Certificate]:
    x = cloud(300, len(model.columns), seed=1)
    chosen = EvaluationOptions(**options)
    scored = reported_likelihoods(model, x, chosen)
    return certify(model, Rows(x), scored, chosen, torch.Generator().manual_seed(0))


def failed(found: dict[str, Certificate]) -> set[str]:
    return {name for name, each in found.items() if not each.passed}


@pytest.mark.parametrize("features", [1, 2, 4])
@pytest.mark.parametrize("name", MODELS.names())
def test_healthy_models_pass(name: str, features: int) -> None:
    found = certificates(fitted(name, features))
    assert not failed(found), found
    expected = {"normalisation", "batch_invariance"}
    if issubclass(MODELS.get(name), Flow):
        expected |= {"round_trip", "jacobian"}
    if name == "cnf":
        expected |= {"solver_regime", "arithmetic"}
    assert set(found) == expected
    assert all(each.text and each.value <= each.bound for each in found.values())


class Scaled(DensityModel):
    """A density that is two hundredths too large everywhere."""

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        scores = super()._score(x, context, generator)
        return Scores(scores.log_prob + math.log(1.02), scores.nfe, scores.local_error)


class TermDropped(ContinuousFlow):
    """A flow whose divergence leaves out its first term."""

    def rates(
        self, field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> State:
        first = torch.zeros(1, *x.shape, dtype=x.dtype)
        first[..., 0] = 1
        velocity, divergence = super().rates(field, t, x, probes, context)
        return velocity, divergence - self.field.jvp(t, x, first)[1][0, :, 0]


class NoiseRedrawn(ContinuousFlow):
    """A flow whose divergence has other noise at every evaluation."""

    def rates(
        self, field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> State:
        velocity, divergence = super().rates(field, t, x, probes, context)
        return velocity, divergence + 0.1 * torch.randn(divergence.shape, dtype=x.dtype)


def broken(flow_class: type[ContinuousFlow], features: int = 2) -> DensityModel:
    healthy = fitted("cnf", features)
    assert isinstance(healthy.flow.options, ContinuousOptions)
    flow = flow_class(features, healthy.flow.options, torch.Generator())
    flow.load_state_dict(healthy.flow.state_dict())
    return DensityModel(healthy.encoder, flow, healthy.background)


def test_a_density_that_is_too_large_is_caught() -> None:
    healthy = fitted("cnf", 2)
    model = Scaled(healthy.encoder, healthy.flow, healthy.background)
    found = certificates(model)
    assert failed(found) == {"normalisation"}
    assert found["normalisation"].value == pytest.approx(0.02, abs=0.003)


def test_two_steps_of_euler_are_caught() -> None:
    found = certificates(fitted("cnf", 2), integrator={"name": "native", "method": "euler", "steps": 2})
    assert {"round_trip", "solver_regime"} <= failed(found)


class Shifted(GaussianFlow):
    """A flow whose way back is off by 1 for one row in forty."""

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        mapped = super()._to_data(z, context, generator)
        return Mapped(mapped.value + (z[:, :1] > 1.96), mapped.log_det)


class Rounded(GaussianFlow):
    """A flow that rounds its base to five digits."""

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        mapped = super()._to_base(x, context, generator)
        return Mapped(mapped.value.round(decimals=5), mapped.log_det)


def gaussian(flow_class: type[GaussianFlow], spread: float) -> DensityModel:
    flow = flow_class(2, GaussianOptions(), torch.Generator()).double()
    with torch.no_grad():
        flow.mean.fill_(10.0)
        flow.log_diagonal.fill_(math.log(spread))
    return DensityModel(TableEncoder("ab"), flow)


def test_a_few_rows_that_do_not_come_back_are_caught() -> None:
    found = certificates(gaussian(Shifted, 1.0))["round_trip"]
    assert not found.passed
    assert found.value == pytest.approx(1)


def test_rows_between_spikes_come_back_from_whence_rounding_sends_them() -> None:
    # Where the map widens a millionfold, the last digit that is kept is worth ten in the data.
    assert certificates(gaussian(Rounded, 1e6))["round_trip"].passed


@pytest.mark.parametrize("features", [2, 4])
def test_a_dropped_term_of_the_divergence_is_caught(features: int) -> None:
    assert "jacobian" in failed(certificates(broken(TermDropped, features), integrator=LOOSER))


def test_noise_that_is_redrawn_is_caught() -> None:
    grid = {"name": "native", "method": "rk4", "steps": 20}
    assert "batch_invariance" in failed(certificates(broken(NoiseRedrawn), integrator=grid))
    # A solver that controls its error cannot follow it at all.
    with pytest.raises(IntegrationError):
        certificates(broken(NoiseRedrawn), integrator={"name": "per-row", "max_nfe": 500})


@pytest.mark.parametrize("method", ["heun2", "explicit_adams", "rk4", "euler"])
def test_every_method_of_every_engine_can_be_certified(method: str) -> None:
    grid = {"name": "torchdiffeq", "method": method, "steps": 40}
    found = certificates(fitted("cnf", 2), integrator=grid)
    assert "broke down" not in " ".join(each.text for each in found.values())


def test_a_loose_solver_that_is_right_is_certified() -> None:
    loose = {"name": "per-row", "atol": 1e-3, "rtol": 1e-3}
    assert certificates(fitted("cnf", 2), integrator=loose)["normalisation"].passed


def test_a_coarse_solve_alone_condemns_no_density() -> None:
    class Coarse(DensityModel):
        """One whose solves are wrong where they are coarse."""

        def for_evaluation(self, integrator: PartOptions, **chosen: Any) -> Any:
            assert isinstance(integrator, IntegratorOptions)
            kind = Scaled if integrator.atol >= 1e-3 else DensityModel
            flow = self.flow.for_evaluation(integrator, **chosen)
            return kind(self.encoder, flow)

    healthy = normal(4)
    assert certificates(Coarse(healthy.encoder, healthy.flow))["normalisation"].passed
    always = Scaled(healthy.encoder, healthy.flow)
    assert failed(certificates(always)) == {"normalisation"}


@pytest.mark.parametrize(
    ("value", "standard_error", "draws"),
    [
        (1.0, 0.001, [2000]),
        # More draws may settle these.
        (1.0, 0.02, [2000, 8000]),
        (1.0, 0.05, [2000, 8000]),
        # The coarse solve condemns it, and so does the exact one: barely, or by far.
        (1.02, 0.002, [2000, 2000]),
        (1.03, 0.003, [2000, 8000, 2000, 8000]),
        (1.5, 0.05, [2000, 2000]),
        # Nothing that can be afforded would settle it.
        (1.0, 0.07, [2000]),
    ],
)
def test_a_bridge_takes_more_draws_where_they_may_settle_it(
    value: float, standard_error: float, draws: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    taken = []

    def found(model: DensityModel, generator: torch.Generator, *, draws: int = 2000) -> Mass:
        taken.append(draws)
        return Mass(value, standard_error, "a stand-in")

    monkeypatch.setattr("flowbench.evaluation.certificates.bridge_mass", found)
    certificates(fitted("planar", 4))
    assert taken == draws


def test_a_check_that_breaks_down_is_a_failed_one() -> None:
    class Broken(DensityModel):
        def sample_line(self, n: int, generator: torch.Generator, *, context: Tensor | None = None) -> Tensor:
            x = super().sample_line(n, generator, context=context)
            x[0, 0] = torch.inf
            return x

    healthy = fitted("planar", 4)
    model = Broken(healthy.encoder, healthy.flow)
    x = cloud(300, 4, seed=1)
    found = certify(
        model, Rows(x), Likelihoods(x, x, x), EvaluationOptions(), torch.Generator().manual_seed(0)
    )
    assert failed(found) == {"normalisation"}
    assert found["normalisation"].text == "the check broke down: 1 of 2,000 draws of the model are not finite"


def test_an_estimated_divergence_is_certified_by_the_exact_one() -> None:
    native = {"name": "native", "atol": 1e-6, "rtol": 1e-6}
    found = certificates(fitted("cnf", 2), integrator=native, divergence={"name": "hutchinson"})
    assert found["normalisation"].passed and found["jacobian"].passed
    # The native engine steps all rows alike.
    assert "batch_invariance" in failed(found)


@pytest.mark.parametrize("engine", ["native", "torchdiffeq"])
def test_a_step_that_the_batch_decides_is_caught(engine: str) -> None:
    found = certificates(fitted("cnf", 2), integrator={"name": engine, "atol": 1e-6, "rtol": 1e-6})
    assert failed(found) == {"batch_invariance"}


@pytest.mark.parametrize(("digits", "passes"), [(1, True), (1000, False)])
def test_a_last_digit_that_a_thin_density_makes_much_of_is_no_fault(digits: int, passes: bool) -> None:
    class InCompany(DensityModel):
        """One that sees rows that are not alone elsewhere, by so much of their last digit."""

        def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
            moved = x * (1 + digits * 2.0**-52) if len(x) > 1 else x
            return super()._score(moved, context, generator)

    thin = gaussian(GaussianFlow, 1e-6)
    model = InCompany(thin.encoder, thin.flow)
    x, chosen = 10 + 1e-6 * (cloud(300, 2) - 10), EvaluationOptions()
    scored = reported_likelihoods(model, x, chosen)
    found = certify(model, Rows(x), scored, chosen, torch.Generator().manual_seed(0))["batch_invariance"]
    assert found.passed == passes
    assert found.value > 1e-9


def test_float32_at_a_tolerance_that_it_cannot_follow_is_caught() -> None:
    tight = {"name": "per-row", "atol": 1e-9, "rtol": 1e-9}
    assert "arithmetic" in failed(certificates(fitted("cnf", 2), integrator=tight, dtype="float32"))
    loose = {"name": "per-row", "atol": 1e-4, "rtol": 1e-4}
    assert certificates(fitted("cnf", 2), integrator=loose, dtype="float32")["arithmetic"].passed


def normal(features: int, factor: float = 1.0) -> DensityModel:
    flow = GaussianFlow(features, GaussianOptions(), torch.Generator())
    flow.initialise(cloud(5000, features) - 10)
    kind = Scaled if factor == 1.02 else DensityModel
    return kind(TableEncoder(tuple("abcdefghi"[:features])), flow).for_evaluation(
        EvaluationOptions().integrator
    )


@pytest.mark.parametrize("features", [1, 2, 3, 9])
def test_masses_of_a_known_density(features: int) -> None:
    rows = (cloud(500, features) - 10,) if features <= 2 else ()
    integrate: Callable[..., Mass] = quadrature_mass if features <= 2 else bridge_mass
    generator = torch.Generator().manual_seed(0)
    mass, scaled = (integrate(normal(features, factor), *rows, generator) for factor in (1.0, 1.02))
    assert mass.value == pytest.approx(1, abs=3 * mass.standard_error + 1e-3)
    assert scaled.value == pytest.approx(1.02, abs=3 * scaled.standard_error + 1e-3)
    assert mass.standard_error < 0.02


def test_the_error_of_a_bridge_is_how_far_it_scatters() -> None:
    model = normal(4)
    found = [bridge_mass(model, torch.Generator().manual_seed(seed)) for seed in range(20)]
    values = np.array([each.value for each in found])
    assert values.std(ddof=1) == pytest.approx(np.mean([each.standard_error for each in found]), rel=0.5)
    assert abs(values.mean() - 1) < 3 * values.std() / 20**0.5


@pytest.mark.parametrize("correlation", [0.99, 0.999, 0.99999])
def test_thin_densities_are_judged_by_more_than_a_grid(correlation: float) -> None:
    """A grid's integral of them is uncertain, which must neither condemn nor acquit."""
    flow = GaussianFlow(2, GaussianOptions(), torch.Generator())
    normals = torch.randn(5000, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    normals[:, 1] = correlation * normals[:, 0] + (1 - correlation**2) ** 0.5 * normals[:, 1]
    flow.initialise(normals)

    class Doubled(DensityModel):
        def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
            scores = super()._score(x, context, generator)
            return Scores(scores.log_prob + math.log(2), scores.nfe)

    x, chosen = normals[:300], EvaluationOptions()
    for kind, passes in ((DensityModel, True), (Doubled, False)):
        model = kind(TableEncoder(("a", "b")), flow)
        scored = reported_likelihoods(model, x, chosen)
        found = certify(model, Rows(x), scored, chosen, torch.Generator().manual_seed(0))
        assert found["normalisation"].passed == passes, found["normalisation"].text


def test_a_density_thinner_than_a_cell_is_not_condemned_by_a_grid() -> None:
    model = normal(2)
    assert isinstance(model.flow, GaussianFlow)
    with torch.no_grad():
        model.flow.log_diagonal[1] = -7.0
    mass = quadrature_mass(model, cloud(500, 2) - 10, torch.Generator().manual_seed(0))
    assert abs(mass.value - 1) > 0.1
    assert certificates(model)["normalisation"].passed
