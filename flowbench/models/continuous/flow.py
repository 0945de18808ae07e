"""Continuous normalizing flows (Chen et al. 2018; Grathwohl et al. 2019)."""

import copy
from collections.abc import Callable, Sequence
from typing import Any, ClassVar, Literal, NamedTuple, Self

import torch
from torch import Tensor

from flowbench import options
from flowbench.models.continuous import recipes
from flowbench.models.continuous.fields.velocity_field import VelocityField
from flowbench.models.density import Flow, Mapped
from flowbench.models.mixture import Mixture
from flowbench.models.rows import Rows
from flowbench.models.training_defaults import Adaptation
from flowbench.ode.clock import EVEN, Clock
from flowbench.ode.divergence import DivergenceEstimator
from flowbench.ode.integrator import Derivatives, Integrator, Solution, State, Velocity
from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.options import part_of
from flowbench.registry import DIVERGENCES, FIELDS, INTEGRATORS
from flowbench.statistics.gaussian_mixtures import Tell

#: Maps `(field, t, x: (n, d), probes: (n, k, d), context: (n, c))` to the velocity (n, d), the divergence
#: (n,) and any further integrands, (n,) each. `probes` and `context` are None where there are none. `field`
#: is the flow's, or the same at the time `t` alone.
Rates = Callable[[Velocity, Tensor, Tensor, Tensor | None, Tensor | None], State]


class ContinuousOptions(options.PartOptions):
    """The velocity field, and the solver and the divergence estimator that are used in training."""

    name: Literal["cnf"] = "cnf"
    field: part_of(FIELDS, "time-mlp") = {"name": "time-mlp"}  # type: ignore[valid-type]
    integrator: part_of(INTEGRATORS, "native") = {  # type: ignore[valid-type]
        "name": "native",
        **recipes.TRAINING_TOLERANCES,
    }
    divergence: part_of(DIVERGENCES, "auto") = {"name": "auto"}  # type: ignore[valid-type]


class ContinuousFlow(Flow):
    """The flow of dx/dt = v(t, x) from the base at t = 0 to the data at t = 1.

    log p(x) = log p_base(z) - integral over [0, 1] of div v dt (Chen et al. 2018, theorem 1).
    """

    Options: ClassVar[type[options.PartOptions]] = ContinuousOptions
    default_phases: ClassVar[tuple[dict[str, Any], ...]] = recipes.PHASES
    adaptations: ClassVar[tuple[Adaptation, ...]] = recipes.ADAPTATIONS
    default_background: ClassVar[bool] = True
    presets: ClassVar[dict[str, Callable[[str], dict[str, Any]]]] = {"ffjord": recipes.ffjord}

    def __init__(
        self,
        features: int,
        options: ContinuousOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        self.field = FIELDS.get(options.field.name)(features, options.field, generator, context_features)
        self.integrator: Integrator = INTEGRATORS.get(options.integrator.name)(options.integrator)
        self.divergence = _estimator(options.divergence, self.field)

    def _initialise(self, rows: Rows, seconds: float | None, tell: Tell) -> None:
        self.field.initialise(rows.x, seconds, tell, context=rows.context, weights=rows.weights)

    def variants(self) -> dict[str, Self]:
        """A copy of the flow for each variant of its velocity field."""
        fields = self.field.variants()
        return {name: self._with_field(field) for name, field in fields.items()}

    def _with_field(self, field: VelocityField) -> Self:
        flow = copy.deepcopy(self)
        flow.field = field
        return flow

    @property
    def start(self) -> Mixture | None:
        """The Gaussian mixture of training rows that the field starts from; None if it starts from none."""
        start: Mixture | None = self.field.start
        return start

    def for_validation(self) -> Self:
        """A copy that is solved with adaptive steps.

        On a fixed grid the weights may adapt to the errors of its steps, and the likelihood then looks too
        good.
        """
        flow = super().for_validation()
        if not flow.integrator.options.adaptive:
            flow.integrator = NativeIntegrator(NativeOptions(**recipes.TRAINING_TOLERANCES))
        return flow

    def for_evaluation(
        self,
        integrator: options.PartOptions,
        *,
        divergence: options.PartOptions | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """A copy in `dtype` with the given integrator and divergence estimator.

        The divergence is exact unless another estimator is given.
        """
        flow = super().for_evaluation(integrator, dtype=dtype)
        flow.integrator = INTEGRATORS.get(integrator.name)(integrator)
        flow.divergence = _estimator(divergence or DIVERGENCES.get("exact").Options(), flow.field)
        return flow

    def trajectory(self, z: Tensor, times: Tensor, *, context: Tensor | None = None) -> Tensor:
        """Positions `(k, n, d)` at `times: (k,)` of base points `z: (n, d)`; times increase within [0, 1].

        Raises `ConfigurationError` for other times, and `IntegrationError` if the solve fails.
        """
        self._check(z, context)
        constants = _Constants(None, context)

        def rates(field: Velocity, t: Tensor, state: State, given: _Constants) -> State:
            return (field.velocity(t, state[0], given.context),)

        asked = times.tolist()
        end = max(asked, default=0.0)
        solution = self._integrate(rates, (z,), 0.0, end, constants, times=asked)
        (positions,) = solution.at_times or ()
        return positions

    def to_base_with_integrals(
        self,
        x: Tensor,
        rates: Rates,
        integrals: int,
        generator: torch.Generator | None = None,
        *,
        end: float = 0.0,
        context: Tensor | None = None,
    ) -> tuple[Mapped, State]:
        """`to_base` of `x: (n, d)`, with `integrals` further integrals along each row's path, (n,) each.

        `rates` returns the velocity, the divergence and then the integrands. Each integral is over t in
        [`end`, 1], and is positive if its integrand is. The solve stops at t = `end`, which may lie below or
        above the base's t = 0. Raises as `to_base` does.
        """
        self._check(x, context)
        return self._solve(x, context, 1.0, end, generator, rates, integrals)

    def rates(
        self, field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> State:
        """The velocity (n, d) of `field` and its divergence (n,), by the flow's divergence estimator."""
        velocity, divergence = self.divergence.velocity_and_divergence(field, t, x, probes, context)
        return velocity, divergence

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return self._solve(x, context, 1.0, 0.0, generator, self.rates)[0]

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return self._solve(z, context, 0.0, 1.0, generator, self.rates)[0]

    def _solve(
        self,
        x: Tensor,
        context: Tensor | None,
        start: float,
        end: float,
        generator: torch.Generator | None,
        rates: Rates,
        integrals: int = 0,
    ) -> tuple[Mapped, State]:
        # Probes are fixed for the whole solve: an adaptive integrator needs a deterministic right-hand side.
        constants = _Constants(self.divergence.draw(x, generator), context)
        # The solver may run backwards in time; the sign makes the integral that of t increasing.
        direction = 1.0 if end > start else -1.0

        def signed(field: Velocity, t: Tensor, state: State, given: _Constants) -> State:
            velocity, divergence, *integrands = rates(field, t, state[0], *given)
            return velocity, divergence, *(direction * integrand for integrand in integrands)

        state = (x, *(x.new_zeros(len(x)) for _ in range(1 + integrals)))
        solution = self._integrate(signed, state, start, end, constants)
        z, log_det, *totals = solution.state
        return Mapped(z, log_det, solution.nfe, _local_error(solution)), tuple(totals)

    def _integrate(
        self,
        rates: "_StateRates",
        state: State,
        start: float,
        end: float,
        constants: "_Constants",
        *,
        times: Sequence[float] | None = None,
    ) -> Solution:
        """Solve for rows, and for integrals along their paths, from t = `start` to `end`.

        The solver's time is that of the field's clock. For `times` see `Integrator.integrate`.
        """
        clock = self.field.clock

        def moments(taus: Tensor) -> list[Derivatives]:
            fields = self.field.at(taus if clock == EVEN else clock.at(taus)[0])
            return [_derivatives(field, clock, rates, constants) for field in fields]

        f, path = _derivatives(self.field, clock, rates, constants)
        return self.integrator.integrate(
            f,
            state,
            clock.reads(start),
            clock.reads(end),
            times=None if times is None else [clock.reads(time) for time in times],
            args=constants.args,
            path=path,
            moments=moments,
            parameters=self.field.parameters(),
        )


class _Constants(NamedTuple):
    """Tensors of each row that stay constant in a solve: `probes` of the divergence estimator, and `context`.

    Either may be None. An integrator passes them back as `args`, for the rows that it is still solving.
    """

    probes: Tensor | None
    context: Tensor | None

    @property
    def args(self) -> tuple[Tensor, ...]:
        """The tensors that are not None."""
        return tuple(part for part in self if part is not None)

    def of(self, args: tuple[Tensor, ...]) -> "_Constants":
        """The constants of the rows that an integrator passes `args` for."""
        rest = iter(args)
        return _Constants(*(None if part is None else next(rest) for part in self))


#: Maps `(field, t, state, constants)` to the derivative of each tensor of the state.
_StateRates = Callable[[Velocity, Tensor, State, _Constants], State]


def _derivatives(field: Velocity, clock: Clock, rates: _StateRates, constants: _Constants) -> Derivatives:
    """What a solver in the time of `clock` needs to know of `field`."""

    def f(t: Tensor, state: State, *args: Tensor) -> State:
        return rates(field, t, state, constants.of(args))

    def path(t: Tensor, state: State, *args: Tensor) -> Tensor:
        return field.velocity(t, state[0], constants.of(args).context)

    def paced(tau: Tensor, state: State, *args: Tensor) -> State:
        t, rate = clock.at(tau)
        # `rate` is one number for all rows, or one for each row.
        return tuple(rate.view(-1, *[1] * (part.ndim - 1)) * part for part in f(t, state, *args))

    def paced_path(tau: Tensor, state: State, *args: Tensor) -> Tensor:
        t, rate = clock.at(tau)
        return rate.view(-1, 1) * path(t, state, *args)

    return Derivatives(f, path) if clock == EVEN else Derivatives(paced, paced_path)


def _estimator(options: options.PartOptions, field: VelocityField) -> DivergenceEstimator:
    estimator: DivergenceEstimator = DIVERGENCES.get(options.name)(options).chosen(field)
    return estimator


def _local_error(solution: Solution) -> Tensor | None:
    """The local error of position and log-determinant, summed over the steps of a solve, (n,)."""
    if solution.local_error is None:
        return None
    position, log_det, *_ = solution.local_error
    reach: Tensor = torch.linalg.vector_norm(position, dim=1)
    return reach + log_det
