"""Checks that a fitted model's likelihoods are those of a density, each with the figure that decides it."""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from flowbench.errors import FlowbenchError
from flowbench.evaluation.evaluation_options import COARSE, EvaluationOptions
from flowbench.evaluation.normalisation import DRAWS, Mass, bridge_mass, quadrature_mass
from flowbench.evaluation.reported import Likelihoods
from flowbench.evaluation.rounding import ROUNDING
from flowbench.evaluation.solver_error import Regime
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density import Flow
from flowbench.models.density_model import DensityModel
from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.store import Certificate

#: How far from 1 the integral of a density may be, beside the error of the integral itself.
MASS_BOUND = 0.01
#: Standard errors of an integral: at the first a density that is off by 0.02 is told 97 times in 100; beyond
#: the second nothing is certified.
SURE, UNSURE = 0.002, 0.03
#: As many times the draws are taken where a bridge is less sure than that, if they may settle it.
MORE = 4
#: Rows that go to the base and back, and how far from their start they may end, standard deviations.
ROUND_TRIP_ROWS = 200
ROUND_TRIP_BOUND = 1e-2
#: Rows whose Jacobian is taken, and how far log|det| may be from the integral of the divergence, nats.
JACOBIAN_ROWS = 8
JACOBIAN_BOUND = 1e-3
#: Columns up to which a Jacobian is taken: it costs a pass backwards for each.
JACOBIAN_FEATURES = 128
#: Rows that are scored together and one by one, and how far the two may differ, nats.
INVARIANCE_ROWS = 16
INVARIANCE_BOUND = {torch.float64: 1e-9, torch.float32: 1e-4}
#: By as many of the last digit's units a row is moved to see what rounding does to it, and as many times the
#: largest of that its batch-mates may move it.
NUDGES, LEEWAY = (1, 4, 16), 4
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

    What does not apply is left out: a density without a map has no round trip and no Jacobian, one without a
    solver no regime, and one whose divergence is estimated is judged with the exact one. A check that breaks
    down is a failed one.
    """
    judged = model.for_evaluation(options.integrator, dtype=getattr(torch, options.dtype))
    flow = judged.flow
    checks: dict[str, Callable[[], Certificate]] = {
        "normalisation": lambda: _normalisation(model, judged, x, options, generator)
    }
    if isinstance(flow, Flow):
        checks["round_trip"] = lambda: _round_trip(judged, flow, x[:ROUND_TRIP_ROWS])
        if flow.features <= JACOBIAN_FEATURES:
            checks["jacobian"] = lambda: _jacobian(judged, flow, x[:JACOBIAN_ROWS])
    checks["batch_invariance"] = lambda: _batch_invariance(judged, x[:INVARIANCE_ROWS])
    found = {name: _attempt(check) for name, check in checks.items()}
    if scored.shift is not None and scored.regime is not None:
        found["solver_regime"] = _solver_regime(scored.shift, scored.regime)
        found["arithmetic"] = _arithmetic(scored.regime)
    return found


def _attempt(check: Callable[[], Certificate]) -> Certificate:
    """What a check finds, or that it broke down: a fit is not lost for a model that cannot be judged."""
    try:
        return check()
    except (FlowbenchError, ValueError, ArithmeticError, RuntimeError) as error:
        return Certificate(
            math.inf, 0.0, "1", False, f"the check broke down: {' '.join(str(error).split()).rstrip('.')}"
        )


@torch.no_grad()
def _normalisation(
    model: DensityModel,
    judged: DensityModel,
    x: Tensor,
    options: EvaluationOptions,
    generator: torch.Generator,
) -> Certificate:
    # An integral to two digits needs no solves to six.
    coarse = model.for_evaluation(options.integrator.coarsened(COARSE), dtype=torch.float32)
    if x.shape[1] <= 2:
        mass = quadrature_mass(coarse, x, generator)
        # A density thinner than a cell slips through any grid, so that a grid alone does not condemn it, nor
        # does one that tells little acquit it.
        if mass.standard_error <= SURE and abs(mass.value - 1) <= MASS_BOUND:
            return _mass_certificate(mass)
    mass = _bridge(coarse, x, generator)
    if abs(mass.value - 1) > _reach(mass):
        # Draws of a coarse solve lie beside a density that is as thin as a surface, and condemn only
        # themselves.
        mass = _bridge(judged, x, generator)
    return _mass_certificate(mass)


def _bridge(model: DensityModel, x: Tensor, generator: torch.Generator) -> Mass:
    """The mass by as many draws as usual, or by more where these say too little and more may settle it."""
    mass = bridge_mass(model, x, generator)
    is_plain = abs(mass.value - 1) > 2 * _reach(mass)
    if is_plain or not SURE < mass.standard_error < UNSURE * MORE**0.5:
        return mass
    return bridge_mass(model, x, generator, draws=MORE * DRAWS)


def _reach(mass: Mass) -> float:
    """How far from 1 an integral may be before it tells of a fault."""
    return MASS_BOUND + 3 * mass.standard_error


def _mass_certificate(mass: Mass) -> Certificate:
    off, reach = abs(mass.value - 1), _reach(mass)
    sure = mass.standard_error <= UNSURE
    # Too uncertain to certify anything, it may still tell of a fault.
    says = "" if sure else ", too uncertain to certify anything"
    return Certificate(
        off,
        reach,
        "1",
        off <= reach and sure,
        f"the density adds up to {mass.value:.4f} ± {mass.standard_error:.4f}, by {mass.how}{says}",
        settled=sure or off > reach,
    )


@torch.no_grad()
def _round_trip(model: DensityModel, flow: Flow, x: Tensor) -> Certificate:
    z = model.to_model(x)[0].to(flow.like)
    generator = torch.Generator().manual_seed(0)
    base = flow.to_base(z, generator).value
    back = flow.to_data(base, generator).value
    again = flow.to_base(back, generator).value
    # Between two spikes of a density the least error in the base is a large one in the data, and on a spike
    # the other way round: a map that is wrong is so in both.
    apart = torch.minimum((back - z).abs().amax(1), (again - base).abs().amax(1))
    off = apart.max().item()
    return Certificate(
        off,
        ROUND_TRIP_BOUND,
        "standard deviations",
        off <= ROUND_TRIP_BOUND,
        f"{len(x)} rows come back from the base to within {off:.1e} of a standard deviation, in model space "
        "or in the base",
    )


def _jacobian(model: DensityModel, flow: Flow, x: Tensor) -> Certificate:
    """log|det| of the map by autodiff, through every step of the solver, against what the model adds up."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        z, log_det = model.to_model(x)
        log_det = log_det + flow.to_base(z.to(flow.like), generator).log_det.cpu()
    rows = x.clone().requires_grad_()
    with torch.enable_grad():
        base = _differentiable(flow).to_base(model.to_model(rows)[0].to(flow.like)).value
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
    given = copied.integrator.options
    if not copied.integrator.differentiable:
        # The map that the engines approximate is the same.
        options = NativeOptions(atol=given.atol, rtol=given.rtol, max_nfe=given.max_nfe)
        copied.integrator = NativeIntegrator(options)
    return copied


@torch.no_grad()
def _batch_invariance(model: DensityModel, x: Tensor) -> Certificate:
    def score(rows: Tensor) -> Tensor:
        return model.score(rows, torch.Generator().manual_seed(0)).log_prob

    def alone(rows: Tensor) -> Tensor:
        return torch.cat([score(row[None]) for row in rows])

    dtype = model.flow.like.dtype
    together, apart = score(x), alone(x)
    off = torch.maximum((together - apart).abs(), (together - score(x.flip(0)).flip(0)).abs())
    bound = torch.full_like(off, INVARIANCE_BOUND[dtype])
    if (off > bound).any():
        # Batches of other sizes are added up in another order, and a density as thin as a surface makes much
        # of the last digit. A row that is scored otherwise the second time has no such excuse.
        eps = torch.finfo(dtype).eps
        moved = torch.stack([(alone(x * (1 + units * eps)) - apart).abs() for units in NUDGES]).amax(0)
        bound = torch.where(alone(x) == apart, bound.maximum(LEEWAY * moved), bound)
    beyond = off > bound
    worst = int((off * (beyond | ~beyond.any())).argmax())
    return Certificate(
        off[worst].item(),
        bound[worst].item(),
        "nats",
        bool((off <= bound).all()),
        f"{len(x)} rows scored together, one by one and in another order agree to within "
        f"{off[worst].item():.1e} nat",
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
    if not math.isfinite(regime.rounding):
        return Certificate(math.inf, bound, "nats", False, "rounding could not be measured: float32 fails")
    return Certificate(
        regime.rounding,
        bound,
        "nats",
        regime.rounding <= bound,
        f"rounding moves a row by {regime.rounding:.1e} nat, the solver by {regime.error:.1e}",
    )
