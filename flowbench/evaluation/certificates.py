"""Checks that a fitted model's likelihoods are those of a density, each with the figure that decides it."""

import math
from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.evaluation.evaluation_options import COARSE, EvaluationOptions
from flowbench.evaluation.normalisation import DRAWS, Mass, Places, bridge_mass, quadrature_mass
from flowbench.evaluation.reported import Likelihoods
from flowbench.evaluation.rounding import ROUNDING
from flowbench.evaluation.solver_error import Regime
from flowbench.models.conditioned import Conditioned
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density import Flow
from flowbench.models.density_model import DensityModel
from flowbench.models.probability_mass import ProbabilityMass
from flowbench.models.rows import Rows
from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.store import Certificate

#: The failures of a check that are the model's own: a solve that fails, draws that are not finite, a number
#: that overflows, a matrix without a factor. Anything else is a fault of the code and is raised.
MODEL_FAILURES = (
    IntegrationError,
    FloatingPointError,
    OverflowError,
    torch.linalg.LinAlgError,  # type: ignore[attr-defined]
)

#: How far from 1 the integral of a density may be, beside three standard errors of the integral.
MASS_BOUND = 0.01
#: Standard errors of an integral. At the first, a density that is off by 0.02 is found 97 times in 100.
#: Beyond the second, no density is certified.
SURE, UNSURE = 0.002, 0.03
#: How many times as many draws a bridge takes if its standard error is between the two.
MORE = 4
#: Contexts at which a conditional density is integrated.
CONTEXTS = 3
#: Rows that go to the base and back, and how far from their start they may end, standard deviations.
ROUND_TRIP_ROWS = 200
ROUND_TRIP_BOUND = 1e-2
#: Rows whose Jacobian is computed, and how far log|det| may be from the integral of the divergence, nats.
JACOBIAN_ROWS = 8
JACOBIAN_BOUND = 1e-3
#: The most columns for which a Jacobian is computed: each column costs one backward pass.
JACOBIAN_FEATURES = 128
#: Rows that are scored together and one by one, and how far the two may differ, nats.
INVARIANCE_ROWS = 16
INVARIANCE_BOUND = {torch.float64: 1e-9, torch.float32: 1e-4}
#: A row is moved by these multiples of the machine epsilon, to measure how much rounding can change its
#: log-likelihood. The rows beside it may change it by `LEEWAY` times the largest such change.
NUDGES, LEEWAY = (1, 4, 16), 4
#: The most combinations of levels whose probabilities are added up, and how far from 1 their sum may be.
MOST_CELLS, CELLS_BOUND = 100_000, 1e-9
#: How far the mean log-likelihood may move when the solver is refined, nats.
REGIME_BOUND = 1e-3


def certify(
    model: DensityModel,
    rows: Rows,
    scored: Likelihoods,
    options: EvaluationOptions,
    generator: torch.Generator,
) -> dict[str, Certificate]:
    """The certificates of `model` by name.

    `rows` are held out, data units, at places in their cells, and `scored` are their likelihoods. `generator`
    draws rows of the model. A conditional density is integrated at several contexts of its train rows. A
    density without a map to a base has no round trip and no Jacobian. A density without a solver has no
    regime and no arithmetic. A density whose divergence is estimated is judged with the exact one.

    A check that one of `MODEL_FAILURES` stops is a failed certificate, whose text is the failure's.
    """
    judged = model.for_evaluation(options.integrator, dtype=getattr(torch, options.dtype))
    flow = judged.flow
    checks: dict[str, Callable[[], Certificate]] = {
        "normalisation": lambda: _normalisation(model, judged, rows, options, generator)
    }
    if isinstance(flow, Flow):
        checks["round_trip"] = lambda: _round_trip(judged, flow, rows[:ROUND_TRIP_ROWS])
        if flow.features <= JACOBIAN_FEATURES:
            checks["jacobian"] = lambda: _jacobian(judged, flow, rows[:JACOBIAN_ROWS])
    mass = judged.mass
    if mass is not None and mass.cells <= MOST_CELLS:
        checks["mass"] = lambda: _probability_mass(mass)
    checks["batch_invariance"] = lambda: _batch_invariance(judged, rows[:INVARIANCE_ROWS])
    found = {name: _attempt(check) for name, check in checks.items()}
    if scored.shift is not None and scored.regime is not None:
        found["solver_regime"] = _solver_regime(scored.shift, scored.regime)
        found["arithmetic"] = _arithmetic(scored.regime)
    return found


def _attempt(check: Callable[[], Certificate]) -> Certificate:
    """What a check finds, or a failed certificate if the model stops it: a fit is not lost for that."""
    try:
        return check()
    except MODEL_FAILURES as error:
        return Certificate(
            math.inf, 0.0, "1", False, f"the check broke down: {' '.join(str(error).split()).rstrip('.')}"
        )


@torch.no_grad()
def _normalisation(
    model: DensityModel,
    judged: DensityModel,
    rows: Rows,
    options: EvaluationOptions,
    generator: torch.Generator,
) -> Certificate:
    # An integral to two digits needs no solves to six digits.
    coarse = model.for_evaluation(options.integrator.coarsened(COARSE), dtype=torch.float32)
    if model.givens is None:
        return _mass_certificate(_mass(coarse, judged, rows.x, generator))
    contexts = model.givens.draw(CONTEXTS, generator)
    masses = [
        _mass(Conditioned(coarse, context), Conditioned(judged, context), rows.x, generator)
        for context in contexts
    ]
    worst = max(masses, key=lambda mass: abs(mass.value - 1) / _reach(mass))
    worst = replace(worst, how=f"{worst.how}, at the worst of {CONTEXTS} contexts of train rows")
    return _mass_certificate(worst)


def _mass(coarse: Places, judged: Places, x: Tensor, generator: torch.Generator) -> Mass:
    """The integral of a density, whose `coarse` solves do for most; `x: (n, d)` are held-out rows."""
    if x.shape[1] <= 2:
        mass = quadrature_mass(coarse, x, generator)
        # A grid misses a density that is thinner than its cells. So a grid does not fail a density by itself,
        # and a grid with a large standard error does not pass one.
        if mass.standard_error <= SURE and abs(mass.value - 1) <= MASS_BOUND:
            return mass
    mass = _bridge(coarse, generator)
    if abs(mass.value - 1) > _reach(mass):
        # Draws of a coarse solve miss a density that is as thin as a surface. That is a fault of the draws.
        mass = _bridge(judged, generator)
    return mass


def _bridge(model: Places, generator: torch.Generator) -> Mass:
    """The mass by the usual number of draws, or by more if those leave it open and more may settle it."""
    mass = bridge_mass(model, generator)
    is_plain = abs(mass.value - 1) > 2 * _reach(mass)
    if is_plain or not SURE < mass.standard_error < UNSURE * MORE**0.5:
        return mass
    return bridge_mass(model, generator, draws=MORE * DRAWS)


def _reach(mass: Mass) -> float:
    """How far from 1 an integral may be if the density has no fault."""
    return MASS_BOUND + 3 * mass.standard_error


def _mass_certificate(mass: Mass) -> Certificate:
    off, reach = abs(mass.value - 1), _reach(mass)
    sure = mass.standard_error <= UNSURE
    # An integral that is too uncertain to pass a density may still be far enough off to fail it.
    says = "" if sure else ", too uncertain to certify anything"
    return Certificate(
        off,
        reach,
        "1",
        off <= reach and sure,
        f"the density adds up to {mass.value:.4f} ± {mass.standard_error:.4f}, by {mass.how}{says}",
        # An integral that is NaN is a fault.
        settled=sure or not off <= reach,
    )


def _probability_mass(mass: ProbabilityMass) -> Certificate:
    """The sum of the probabilities of all combinations of levels."""
    total = mass.log_prob(mass.enumerate()).exp().sum().item()
    return Certificate(
        abs(total - 1),
        CELLS_BOUND,
        "1",
        abs(total - 1) <= CELLS_BOUND,
        f"the probabilities of all {mass.cells:,} combinations of {', '.join(mass.columns)} add up to "
        f"{total:.9f}",
    )


@torch.no_grad()
def _round_trip(model: DensityModel, flow: Flow, rows: Rows) -> Certificate:
    z = model.encoder.to_model(rows.x)[0].to(flow.like)
    context = model.encode_context(rows)
    generator = torch.Generator().manual_seed(0)
    base = flow.to_base(z, generator, context=context).value
    back = flow.to_data(base, generator, context=context).value
    again = flow.to_base(back, generator, context=context).value
    # Between two spikes of a density, a tiny error in the base is a large one in the data. On a spike it is
    # the other way round. A map that is wrong is off in both.
    apart = torch.minimum((back - z).abs().amax(1), (again - base).abs().amax(1))
    off = apart.max().item()
    return Certificate(
        off,
        ROUND_TRIP_BOUND,
        "standard deviations",
        off <= ROUND_TRIP_BOUND,
        f"{len(rows)} rows come back from the base to within {off:.1e} of a standard deviation, in model "
        "space or in the base",
    )


def _jacobian(model: DensityModel, flow: Flow, rows: Rows) -> Certificate:
    """log|det| of the map by autodiff through every step of the solver, against the model's own."""
    generator = torch.Generator().manual_seed(0)
    context = model.encode_context(rows)
    with torch.no_grad():
        z, log_det = model.encoder.to_model(rows.x)
        log_det = log_det + flow.to_base(z.to(flow.like), generator, context=context).log_det.cpu()
    x = rows.x.clone().requires_grad_()
    with torch.enable_grad():
        z = model.encoder.to_model(x)[0].to(flow.like)
        base = _differentiable(flow).to_base(z, context=context).value
        columns = [
            torch.autograd.grad(base[:, i].sum(), x, retain_graph=True)[0] for i in range(base.shape[1])
        ]
    expected = torch.linalg.slogdet(torch.stack(columns, 1).double()).logabsdet
    off = (log_det - expected).abs().max().item()
    return Certificate(
        off,
        JACOBIAN_BOUND,
        "nats",
        off <= JACOBIAN_BOUND,
        f"log|det| of {len(rows)} rows is that of the solver's own steps, by autodiff, to within "
        f"{off:.1e} nat",
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
def _batch_invariance(model: DensityModel, rows: Rows) -> Certificate:
    def score(rows: Rows) -> Tensor:
        generator = torch.Generator().manual_seed(0)
        return model.score_places(rows.x, generator, context=rows.context).log_prob

    def alone(rows: Rows) -> Tensor:
        return torch.cat([score(row) for row in rows.split(1)])

    dtype = model.flow.like.dtype
    backwards = torch.arange(len(rows)).flip(0)
    together, apart = score(rows), alone(rows)
    off = torch.maximum((together - apart).abs(), (together - score(rows[backwards])[backwards]).abs())
    if rows.context is not None:
        # The rows with one another's contexts: a context that leaks or that changes its row shows here too.
        mixed = Rows(rows.x, rows.context[backwards])
        off = torch.maximum(off, (score(mixed) - alone(mixed)).abs())
    bound = torch.full_like(off, INVARIANCE_BOUND[dtype])
    if (off > bound).any():
        # Sums over batches of other sizes round differently, and a density as thin as a surface magnifies
        # that. Rounding does not excuse a row that gets another number when the same call is repeated.
        eps = torch.finfo(dtype).eps
        moved = torch.stack([(alone(_nudged(rows, units * eps)) - apart).abs() for units in NUDGES]).amax(0)
        bound = torch.where(alone(rows) == apart, bound.maximum(LEEWAY * moved), bound)
    beyond = off > bound
    worst = int((off * (beyond | ~beyond.any())).argmax())
    return Certificate(
        off[worst].item(),
        bound[worst].item(),
        "nats",
        bool((off <= bound).all()),
        f"{len(rows)} rows scored together, one by one and in another order agree to within "
        f"{off[worst].item():.1e} nat",
    )


def _nudged(rows: Rows, share: float) -> Rows:
    """Rows with every number, of their contexts too, larger by this share of itself."""
    return rows.each(lambda values: values * (1 + share))


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
        return Certificate(
            math.inf,
            bound,
            "nats",
            False,
            "rounding could not be measured: float32 fails, or the model has no finite draws",
        )
    return Certificate(
        regime.rounding,
        bound,
        "nats",
        regime.rounding <= bound,
        f"rounding moves a row by {regime.rounding:.1e} nat, the solver by {regime.error:.1e}",
    )
