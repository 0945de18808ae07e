"""The contract of every density in the registry given a context: the same mathematics, row by row."""

import copy
from functools import partial
from pathlib import Path

import pytest
import torch
from scipy.stats import ks_2samp
from sklearn.mixture import GaussianMixture
from test_flow_contract import FINE, VARIANTS, DensityT, every_density, every_flow, numerical_jacobian, rows
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.classical.kernel import KernelDensity
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density import Density, Flow, base_log_prob
from flowbench.models.mixture import Mixture
from flowbench.models.rows import Rows
from flowbench.objectives.likelihood import Likelihood, LikelihoodOptions
from flowbench.registry import INTEGRATORS, MODELS
from flowbench.store.tensors import read_tensors, write_tensors
from flowbench.training.state import from_arrays, to_arrays

#: For sums over a grid, whose own error is larger by far.
FINE_ENOUGH = INTEGRATORS.get("per-row").Options(atol=1e-6, rtol=1e-6)
GIVENS = 2
CONTEXTS = torch.tensor([[0.0, 0.0], [1.2, -0.7], [-1.5, 0.4], [0.3, 2.0]], dtype=torch.float64)


def build(
    name: str, values: dict[str, object], features: int, givens: int = GIVENS, seed: int = 0
) -> Density:
    kind = MODELS.get(name)
    density: Density = kind(features, kind.Options(**values), torch.Generator().manual_seed(seed), givens)
    return density


def build_flow(name: str, values: dict[str, object], features: int) -> Flow:
    flow = build(name, values, features)
    assert isinstance(flow, Flow)
    return flow


def bent_rows(n: int, features: int, seed: int = 0, givens: int = GIVENS) -> tuple[Tensor, Tensor]:
    """Rows whose mean and spread depend on their context, and the contexts."""
    context, noise = rows(n, givens, seed), rows(n, features, seed + 1)
    return context[:, :1].sin() + (0.4 + 0.3 * context[:, 1:2].tanh()) * noise, context


def perturbed(density: DensityT, seed: int = 1) -> DensityT:
    """The density started from rows, then with every parameter moved, so that zeros hide no mistake."""
    x, context = bent_rows(300, density.features, seed)
    density.initialise(x.float(), context=context.float())
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in density.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return density


def repeated(context: Tensor, n: int) -> Tensor:
    return context.expand(n, -1)


@every_density
@pytest.mark.parametrize("context", CONTEXTS, ids=str)
def test_the_density_integrates_to_one_at_each_context(
    name: str, values: dict[str, object], context: Tensor
) -> None:
    density = perturbed(build(name, values, 1)).for_evaluation(FINE_ENOUGH)
    z = torch.linspace(-12, 12, 3001, dtype=torch.float64)
    with torch.no_grad():
        given = repeated(context, len(z))
        # The middle of the density wherever it is: on a grid around its own draws.
        x = density.sample(400, torch.Generator().manual_seed(0), context=repeated(context, 400))
        centre, scale = x.median(), (x.quantile(0.9) - x.quantile(0.1)).clamp_min(0.5)
        grid = centre + scale * z
        mass = torch.trapezoid(density.log_prob(grid[:, None], context=given).exp(), grid)
    assert mass.item() == pytest.approx(1, abs=2e-3)


@every_density
def test_a_plane_integrates_to_one(name: str, values: dict[str, object]) -> None:
    density = perturbed(build(name, values, 2)).for_evaluation(FINE_ENOUGH)
    axis = torch.linspace(-9, 9, 121, dtype=torch.float64)
    with torch.no_grad():
        given = repeated(CONTEXTS[1], 1000)
        x = density.sample(1000, torch.Generator().manual_seed(0), context=given)
        scale = x.std(0).clamp_min(0.3)
        grid = x.mean(0) + torch.cartesian_prod(axis, axis) * scale
        log_prob = density.log_prob(grid, context=repeated(CONTEXTS[1], len(grid)))
    cell = (0.15 * scale).prod()
    assert (log_prob.exp().sum() * cell).item() == pytest.approx(1, abs=1e-2)


@every_flow
@pytest.mark.parametrize("features", [1, 2, 5])
def test_round_trip(name: str, values: dict[str, object], features: int) -> None:
    flow = perturbed(build_flow(name, values, features)).for_evaluation(FINE)
    x, context = 2 * rows(40, features), rows(40, GIVENS, 5)
    there = flow.to_base(x, context=context)
    back = flow.to_data(there.value, context=context)
    assert (back.value - x).abs().max() < 1e-5
    assert (back.log_det + there.log_det).abs().max() < 1e-5


@every_flow
@pytest.mark.parametrize("features", [1, 2])
def test_log_det_is_that_of_the_jacobian(name: str, values: dict[str, object], features: int) -> None:
    flow = perturbed(build_flow(name, values, features)).for_evaluation(FINE)
    # Rows that lie between the knots of splines, where differences see a bend of the slope.
    x, context = rows(6, features, 4), rows(6, GIVENS, 5)
    sign, log_det = torch.linalg.slogdet(numerical_jacobian(partial(flow.to_base, context=context), x))
    assert (sign > 0).all()
    assert (flow.to_base(x, context=context).log_det - log_det).abs().max() < 1e-6


@every_flow
def test_log_det_against_autodiff(name: str, values: dict[str, object]) -> None:
    flow = perturbed(build_flow(name, values, 3)).double()
    if isinstance(flow, ContinuousFlow):
        flow.integrator = INTEGRATORS.get("native")(INTEGRATORS.get("native").Options(method="rk4", steps=80))
    x, context = rows(3, 3), rows(3, GIVENS, 5)

    def to_base(row: Tensor, given: Tensor) -> Tensor:
        return flow.to_base(row[None], context=given[None]).value[0]

    pairs = zip(x, context, strict=True)
    jacobian = torch.stack([torch.func.jacrev(to_base)(row, given) for row, given in pairs])
    _, expected = torch.linalg.slogdet(jacobian)
    assert (flow.to_base(x, context=context).log_det - expected).abs().max() < 1e-6


@every_flow
def test_every_parameter_and_the_context_get_a_gradient(name: str, values: dict[str, object]) -> None:
    flow = perturbed(build(name, values, 3))
    if not list(flow.parameters()):
        pytest.skip("it is fitted without gradients")
    context = rows(20, GIVENS, 5).float().requires_grad_()
    objective = Likelihood(LikelihoodOptions())
    x = rows(20, 3).float()
    loss = objective(flow, Rows(x, context), torch.Generator().manual_seed(0)).total
    loss.backward()  # type: ignore[no-untyped-call]
    for label, part in [("context", context), *flow.named_parameters()]:
        assert part.grad is not None, label
        assert torch.isfinite(part.grad).all(), label
        assert part.grad.abs().max() > 0, label
    assert context.grad is not None
    assert (context.grad.abs().sum(1) > 0).all()


@every_density
def test_the_context_matters(name: str, values: dict[str, object]) -> None:
    density = perturbed(build(name, values, 2)).for_evaluation(FINE)
    x = rows(10, 2)
    first, second = (density.log_prob(x, context=repeated(one, 10)) for one in CONTEXTS[1:3])
    assert ((first - second).abs() > 1e-3).all()


@every_density
def test_rows_together_alone_and_shuffled_agree(name: str, values: dict[str, object]) -> None:
    density = perturbed(build(name, values, 2)).for_evaluation(INTEGRATORS.get("per-row").Options())
    x, context = 2 * rows(30, 2), 1.5 * rows(30, GIVENS, 5)
    together = density.log_prob(x, context=context)
    pairs = zip(x, context, strict=True)
    alone = torch.cat([density.log_prob(row[None], context=given[None]) for row, given in pairs])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert (together - alone).abs().max() < 1e-9
    assert (together[order] - density.log_prob(x[order], context=context[order])).abs().max() < 1e-9
    # A permuted context is another question.
    assert (together - density.log_prob(x, context=context[order])).abs().max() > 1e-3


@every_density
def test_samples_carry_their_own_log_prob(name: str, values: dict[str, object]) -> None:
    density = perturbed(build(name, values, 2)).for_evaluation(FINE)
    context = rows(40, GIVENS, 5)
    x, log_prob = density.sample_and_log_prob(40, torch.Generator().manual_seed(5), context=context)
    assert (density.log_prob(x, context=context) - log_prob).abs().max() < 1e-6


@every_density
def test_draws_for_each_context_do_not_depend_on_the_others(name: str, values: dict[str, object]) -> None:
    density = perturbed(build(name, values, 2)).for_evaluation(INTEGRATORS.get("per-row").Options())

    def draw(context: Tensor) -> Tensor:
        return density.sample_for_each(50, torch.Generator().manual_seed(3), context=context)

    together = draw(CONTEXTS)
    assert together.shape == (4, 50, 2)
    for number, context in enumerate(CONTEXTS):
        assert (draw(context[None])[0] - together[number]).abs().max() < 1e-9
    assert (draw(CONTEXTS.flip(0)).flip(0) - together).abs().max() < 1e-9
    assert draw(CONTEXTS[:0]).shape == (0, 50, 2)
    with pytest.raises(ConfigurationError, match="at least one row is drawn"):
        density.sample_for_each(0, torch.Generator(), context=CONTEXTS)


@every_density
def test_draws_for_each_context_have_its_density(name: str, values: dict[str, object]) -> None:
    density = perturbed(build(name, values, 1)).for_evaluation(FINE)
    found = density.sample_for_each(1000, torch.Generator().manual_seed(3), context=CONTEXTS[:2])
    for context, draws in zip(CONTEXTS, found, strict=False):
        x = density.sample(1000, torch.Generator().manual_seed(4), context=repeated(context, 1000))
        assert ks_2samp(draws[:, 0].numpy(), x[:, 0].numpy()).pvalue > 1e-3


@every_density
def test_saved_and_loaded_alike_bit_for_bit(name: str, values: dict[str, object], tmp_path: Path) -> None:
    density = perturbed(build(name, values, 2))
    write_tensors(tmp_path / "model.safetensors", to_arrays(density.state_dict()), {})
    loaded = build(name, values, 2, seed=99)
    loaded.load_state_dict(from_arrays(read_tensors(tmp_path / "model.safetensors")[0]))
    x, context = rows(3, 2), rows(3, GIVENS, 5)
    with torch.no_grad():
        expected = density.for_evaluation(FINE).log_prob(x, context=context)
        assert torch.equal(loaded.for_evaluation(FINE).log_prob(x, context=context), expected)


@every_density
def test_wrong_contexts_are_refused(name: str, values: dict[str, object]) -> None:
    conditional, plain = build(name, values, 2), build(name, values, 2, givens=0)
    x = torch.zeros(4, 2)
    for wrong in (torch.zeros(4), torch.zeros(4, 3), torch.zeros(3, GIVENS), torch.zeros(1, GIVENS)):
        with pytest.raises(ConfigurationError, match=r"must have shape \(4, 2\)"):
            conditional.log_prob(x, context=wrong)
        with pytest.raises(ConfigurationError, match=r"must have shape \(4, 2\)"):
            conditional.draw(4, torch.Generator(), context=wrong)
    with pytest.raises(ConfigurationError, match="is conditional"):
        conditional.log_prob(x)
    with pytest.raises(ConfigurationError, match="leave `context` out"):
        plain.log_prob(x, context=torch.zeros(4, GIVENS))


@pytest.mark.parametrize("name", MODELS.names())
def test_every_model_takes_a_context(name: str) -> None:
    assert name in {one for one, _ in VARIANTS}


def test_a_gaussian_given_a_context_is_the_linear_model() -> None:
    from sklearn.linear_model import LinearRegression

    x, context = bent_rows(500, 2)
    density = build("gaussian", {}, 2).double()
    density.initialise(x, context=context)
    oracle = LinearRegression().fit(context.numpy(), x.numpy())
    residuals = x - torch.tensor(oracle.predict(context.numpy()))
    normal = torch.distributions.MultivariateNormal(torch.zeros(2).double(), residuals.T @ residuals / 500)
    expected = normal.log_prob(residuals)  # type: ignore[no-untyped-call]
    assert (density.log_prob(x, context=context) - expected).abs().max() < 1e-9


def test_a_mixture_given_a_context_is_joint_over_marginal() -> None:
    """scikit-learn's joint density of rows and contexts, divided by that of the contexts alone."""
    x, context = bent_rows(2000, 2)
    together = torch.cat([x, context], 1).numpy()
    joint = GaussianMixture(3, random_state=0).fit(together)
    mixture, marginal = Mixture(2, GIVENS), Mixture(GIVENS)
    mixture.take(joint)
    marginal.take(_marginal_of(joint))
    expected = joint.score_samples(together) - marginal.log_prob(context).numpy()
    assert abs(mixture.log_prob(x, context).numpy() - expected).max() < 1e-8


def _marginal_of(joint: GaussianMixture) -> GaussianMixture:
    marginal = copy.copy(joint)
    marginal.means_, marginal.covariances_ = joint.means_[:, 2:], joint.covariances_[:, 2:, 2:]
    return marginal


def test_kernels_given_a_context_weigh_rows_by_its_distance() -> None:
    x, context = bent_rows(400, 1)
    density = build("kde", {}, 1).double()
    density.initialise(x, context=context)
    assert isinstance(density, KernelDensity)
    width, reach = density.factor.item(), density.context_width.item()
    at, given = torch.tensor([[0.3]]).double(), torch.tensor([[0.5, -0.2]]).double()
    weights = torch.softmax(-0.5 * ((context - given) / reach).square().sum(1), 0)
    normal = torch.distributions.Normal(x.squeeze(1), width)
    kernels = normal.log_prob(at.squeeze()).exp()  # type: ignore[no-untyped-call]
    expected = (weights * kernels).sum().log()
    assert density.log_prob(at, context=given).item() == pytest.approx(expected.item(), abs=1e-9)


def test_a_wide_context_says_nothing() -> None:
    """Contexts that have nothing to do with the rows get a width that leaves all rows alike."""
    x, context = rows(600, 1), rows(600, 1, 9)
    density = build("kde", {}, 1, givens=1).double()
    density.initialise(x, context=context)
    assert isinstance(density, KernelDensity)
    assert density.context_width > 5


def test_a_continuous_flow_starts_from_the_conditional_mixture() -> None:
    """Before it learns, the flow's density is that of the mixture of its train rows, at every context."""
    x, context = bent_rows(1500, 2)
    flow = build("cnf", {}, 2)
    flow.initialise(x, context=context)
    assert flow.start is not None and len(flow.start.means) > 1
    evaluated = flow.for_evaluation(INTEGRATORS.get("per-row").Options(atol=1e-8, rtol=1e-8))
    expected = flow.start.log_prob(x[:60], context[:60])
    assert (evaluated.log_prob(x[:60], context=context[:60]) - expected).abs().max() < 1e-4


def test_the_base_of_a_conditional_flow_does_not_depend_on_the_context() -> None:
    flow = perturbed(build_flow("cnf", {"field": {"name": "time-mlp", "width": 16, "scales": 1}}, 2))
    flow = flow.for_evaluation(FINE)
    context = rows(5, GIVENS, 5)
    z = flow.sample_base(5, torch.Generator().manual_seed(3))
    x, log_prob = flow.sample_and_log_prob(5, torch.Generator().manual_seed(3), context=context)
    mapped = flow.to_base(x, context=context)
    assert (mapped.value - z).abs().max() < 1e-6
    assert (base_log_prob(z) + mapped.log_det - log_prob).abs().max() < 1e-6
