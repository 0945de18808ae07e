"""Checks that a fitted model's likelihoods are those of a density, each with the figure that decides it."""

import torch
from torch import Tensor

from flowbench.evaluation.likelihood import ROUNDING, Likelihoods, Regime, coarsen
from flowbench.evaluation.normalisation import Mass, bridge_mass, quadrature_mass
from flowbench.evaluation.options import EvaluationOptions
from flowbench.flows.base import Flow
from flowbench.flows.continuous import ContinuousFlow
from flowbench.flows.density_model import DensityModel
from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.store import Certificate

#: How far from 1 the integral of a density may be, beside the error of the integral itself.
MASS_BOUND = 0.01
#: Rows that go to the base and back, and how far from their start they may end, model-space units.
ROUND_TRIP_ROWS = 200
ROUND_TRIP_BOUND = 1e-2
#: Rows whose Jacobian is taken, and how far log|det| may be from the integral of the divergence, nats.
JACOBIAN_ROWS = 8
JACOBIAN_BOUND = 1e-3
#: Columns up to which a Jacobian is taken: it costs a pass backwards for each.
JACOBIAN_FEATURES = 128
#: Rows that are scored together and one by one, and how far the two may differ, nats.
INVARIANCE_ROWS = 16
INVARIANCE_BOUND = 1e-9
#: How far the mean log-likelihood may move when the solver is refined, nats.
REGIME_BOUND = 1e-3


def certify(
    model: DensityModel,
    x: Tensor,
    scored: Likelihoods,
    options: EvaluationOptions,
    generator: torch.Generator,
) -> dict[str, Certificate]:
    """The certificates of `model` by name, with held-out rows `x: (n, d)`, data units, and their likelihoods.

    Raises `IntegrationError` if a solve fails. What does not apply is left out: a density without a map has
    no round trip and no Jacobian, one without a solver no regime.
    """
    judged = model.for_evaluation(options.integrator, divergence=options.divergence, dtype=_dtype(options))
    found = {"normalisation": _normalisation(model, x, options, generator)}
    if isinstance(judged.flow, Flow):
        found["round_trip"] = _round_trip(judged, judged.flow, x[:ROUND_TRIP_ROWS])
        if judged.flow.features <= JACOBIAN_FEATURES:
            found["jacobian"] = _jacobian(judged, judged.flow, x[:JACOBIAN_ROWS])
    found["batch_invariance"] = _batch_invariance(judged, x[:INVARIANCE_ROWS])
    if scored.shift is not None and scored.regime is not None:
        found["solver_regime"] = _solver_regime(scored.shift, scored.regime)
        found["arithmetic"] = _arithmetic(scored.regime)
    return found


def _dtype(options: EvaluationOptions) -> torch.dtype:
    return torch.float32 if options.dtype == "float32" else torch.float64


@torch.no_grad()
def _normalisation(
    model: DensityModel, x: Tensor, options: EvaluationOptions, generator: torch.Generator
) -> Certificate:
    # An integral to two digits needs no solves to six.
    coarse = model.for_evaluation(
        coarsen(options.integrator), divergence=options.divergence, dtype=torch.float32
    )
    if x.shape[1] <= 2:
        found = _mass_certificate(quadrature_mass(coarse, x, generator))
        # A density thinner than a cell slips through any grid, so that a grid alone does not condemn it.
        if found.passed:
            return found
    return _mass_certificate(bridge_mass(coarse, x, generator))


def _mass_certificate(mass: Mass) -> Certificate:
    off, reach = abs(mass.value - 1), MASS_BOUND + 3 * mass.standard_error
    return Certificate(
        off,
        reach,
        "1",
        off <= reach,
        f"the density adds up to {mass.value:.4f} ± {mass.standard_error:.4f}, by {mass.how}",
    )


@torch.no_grad()
def _round_trip(model: DensityModel, flow: Flow, x: Tensor) -> Certificate:
    z = model.to_model(x)[0].to(flow.like.dtype)
    generator = torch.Generator().manual_seed(0)
    off = (flow.to_data(flow.to_base(z, generator).value, generator).value - z).abs().max().item()
    return Certificate(
        off,
        ROUND_TRIP_BOUND,
        "model-space units",
        off <= ROUND_TRIP_BOUND,
        f"{len(x)} rows come back from the base to within {off:.1e} of a standard deviation",
    )


def _jacobian(model: DensityModel, flow: Flow, x: Tensor) -> Certificate:
    """log|det| of the map by autodiff, through every step of the solver, against what the model adds up."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        z, log_det = model.to_model(x)
        log_det = log_det + flow.to_base(z.to(flow.like.dtype), generator).log_det
    rows = x.clone().requires_grad_()
    with torch.enable_grad():
        base = _differentiable(flow).to_base(model.to_model(rows)[0].to(flow.like.dtype)).value
        columns = [
            torch.autograd.grad(base[:, i].sum(), rows, retain_graph=True)[0] for i in range(base.shape[1])
        ]
    expected = torch.linalg.slogdet(torch.stack(columns, 1).double()).logabsdet
    off = (log_det - expected).abs().max().item()
    return Certificate(
        off,
        JACOBIAN_BOUND,
        "nats",
        off <= JACOBIAN_BOUND,
        f"log|det| of {len(x)} rows is that of the solver's own steps, by autodiff, to within {off:.1e} nat",
    )


def _differentiable(flow: Flow) -> Flow:
    """The flow, solved by an engine that autodiff can follow where it solves anything."""
    if not isinstance(flow, ContinuousFlow):
        return flow
    copied = flow.for_evaluation(flow.integrator.options, dtype=flow.like.dtype)
    given = flow.integrator.options.model_dump()
    tolerances = {name: given[name] for name in ("atol", "rtol", "steps", "max_nfe") if given.get(name)}
    method = given["method"] if given.get("steps") else "dopri5"
    copied.integrator = NativeIntegrator(NativeOptions(method=method, **tolerances))
    return copied


@torch.no_grad()
def _batch_invariance(model: DensityModel, x: Tensor) -> Certificate:
    def score(rows: Tensor) -> Tensor:
        return model.score(rows, torch.Generator().manual_seed(0)).log_prob

    together = score(x)
    alone = torch.cat([score(row[None]) for row in x])
    off = max((together - alone).abs().max().item(), (together - score(x.flip(0)).flip(0)).abs().max().item())
    return Certificate(
        off,
        INVARIANCE_BOUND,
        "nats",
        off <= INVARIANCE_BOUND,
        f"{len(x)} rows scored together, one by one and in another order agree to within {off:.1e} nat",
    )


def _solver_regime(shift: float, regime: Regime) -> Certificate:
    says = "" if regime.is_convergent else ", but the rows' errors do not shrink"
    return Certificate(
        abs(shift),
        REGIME_BOUND,
        "nats",
        regime.is_convergent and abs(shift) <= REGIME_BOUND,
        f"a refined solve moves the test NLL by {abs(shift):.1e} nat{says}",
    )


def _arithmetic(regime: Regime) -> Certificate:
    bound = max(regime.error, ROUNDING)
    return Certificate(
        regime.rounding,
        bound,
        "nats",
        regime.rounding <= bound,
        f"rounding moves a row by {regime.rounding:.1e} nat, the solver by {regime.error:.1e}",
    )
