"""Models of series against other code: scipy, scikit-learn, torchdiffeq, quadrature, and by hand."""

import math

import numpy as np
import pytest
import torch
from scipy.stats import multivariate_normal, norm
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import RBF, ConstantKernel, Matern
from small_series import evaluated, noise_of, ragged
from torch import Tensor
from torchdiffeq import odeint

from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.evolution import Evolution
from flowbench.models.series.gaussian_process import GaussianProcess, GaussianProcessOptions
from flowbench.models.series.latent_ode import LatentOde
from flowbench.models.series.noise import BatchNoise
from flowbench.models.series.recurrent import GruDecay, RecurrentModel
from flowbench.models.series.series_model import LEAST_NOISE
from flowbench.ode.per_row_engine import PerRowOptions

KERNELS = {"matern12": 0.5, "matern32": 1.5, "matern52": 2.5, "rbf": math.inf}


def regressor(model: GaussianProcess, column: int) -> tuple[GaussianProcessRegressor, np.ndarray]:
    """scikit-learn's regressor with the hyperparameters of one column, not optimised, and its trend."""
    length, scale, offset, noise = (
        float(each[column].exp())
        for each in (model.log_length, model.log_scale, model.log_offset, model.log_noise)
    )
    nu = KERNELS[model.kernel]
    shape = RBF(length) if nu == math.inf else Matern(length, nu=nu)
    kernel = ConstantKernel(scale**2) * shape + ConstantKernel(offset**2)
    alpha = noise**2 + LEAST_NOISE**2
    return GaussianProcessRegressor(kernel, alpha=alpha, optimizer=None), model.trend[column].numpy()


@pytest.mark.parametrize("kernel", KERNELS)
def test_gaussian_processes_are_those_of_scikit_learn_and_scipy(kernel: str) -> None:
    """With missing cells and several columns: the likelihood, and predictions of means and scales."""
    model = evaluated("gp", 3, kernel=kernel)
    assert isinstance(model, GaussianProcess)
    series = ragged(3)
    batch = SeriesBatch.of(series)
    scores = model.score(batch, noise_of(model, range(6))).log_prob
    asked = torch.tensor([[-0.5, 0.3, 1.0, 2.5]], dtype=torch.float64).expand(6, -1)
    found = model.predict(batch, asked, noise_of(model, range(6)))
    for i, (times, cells) in enumerate(series):
        total = 0.0
        for column in range(3):
            own, (level, slope) = regressor(model, column)
            held = ~cells[:, column].isnan()
            mean = level + slope * asked[i].numpy()
            if held.any():
                t = times[held].numpy()[:, None]
                residual = cells[held, column].numpy() - level - slope * t[:, 0]
                own.fit(t, residual)
                total += own.log_marginal_likelihood_value_
                covariance = own.kernel(t) + own.alpha * np.eye(len(t))
                assert own.log_marginal_likelihood_value_ == pytest.approx(
                    multivariate_normal.logpdf(residual, cov=covariance)
                )
            more, scale = own.predict(asked[i].numpy()[:, None], return_std=True)
            if not held.any():  # scikit-learn leaves the constant kernel's variance as it is
                more = np.zeros(4)
            assert found.mean[i, :, column].numpy() == pytest.approx(mean + more, abs=1e-9)
            expected = np.sqrt(scale**2 + own.alpha)
            assert found.scales[0, i, :, column].numpy() == pytest.approx(expected, abs=1e-7)
        assert float(scores[i]) == pytest.approx(total, abs=1e-9)


def test_long_smooth_series_do_not_break_a_fit_in_single_precision() -> None:
    """A covariance of 300 observations, whose noise is small, is positive definite in float64 alone."""
    model = GaussianProcess(1, GaussianProcessOptions(kernel="rbf"), torch.Generator())
    with torch.no_grad():
        model.log_scale.add_(3)
        model.log_noise.sub_(6)
    times = torch.linspace(0, 1, 300)
    batch = SeriesBatch.of([(times, torch.sin(6 * times)[:, None])])
    found = model.score(batch, noise_of(model, [0])).log_prob
    assert found.isfinite().all()
    assert all(each.isfinite().all() for each in torch.autograd.grad(found.sum(), list(model.parameters())))


@pytest.mark.parametrize("name", ["rnn", "rnn-dt", "ode-rnn"])
def test_one_call_of_a_recurrent_network_is_its_steps(name: str) -> None:
    model, batch = evaluated(name), SeriesBatch.of(ragged())
    assert isinstance(model, RecurrentModel)
    fused, stepped = model._all_known(batch), RecurrentModel._all_known(model, batch)
    torch.testing.assert_close(fused[batch.present], stepped[batch.present], rtol=0, atol=1e-12)


@pytest.mark.parametrize("first", [0.0, 0.2])
@pytest.mark.parametrize("name", ["rnn", "rnn-dt", "gru-decay", "ode-rnn"])
def test_draws_are_fed_back_as_far_apart_as_train_series_are(name: str, first: float) -> None:
    """Soon after an observation every draw has the same mean, also where it was the first of all times."""
    model = evaluated(name)
    assert isinstance(model, RecurrentModel)
    model.typical_gap.fill_(0.3)
    seen = SeriesBatch.of([(torch.tensor([first]).double(), torch.ones(1, model.features).double())])
    times = first + torch.tensor([[0.1, 0.2, 0.35, 0.4]]).double()
    noise = BatchNoise(1, torch.Generator().manual_seed(0), model.like)
    with torch.no_grad():
        spread = model.predict(seen, times, noise, 5).means.std(0).amax(-1)[0]
    # The draw at 0.35 is the first that counts.
    assert (spread[:3] < 1e-12).all() and spread[3] > 1e-12


def test_gru_decay_by_hand() -> None:
    """States decay to their start, and missing values to 0, with the gaps, before torch's own GRU cell."""
    model = evaluated("gru-decay")
    assert isinstance(model, GruDecay)
    times, cells = ragged()[1]
    rates = [math.log1p(math.exp(float(each))) for each in model.value_rate]
    decay = torch.nn.functional.softplus(model.state_rate)
    cell = torch.nn.GRUCell(4, 6).double().requires_grad_(False)
    cell.load_state_dict({key.removesuffix("_l0"): value for key, value in model.gru.state_dict().items()})
    state, before, total = model.first[None], 0.0, 0.0
    last, when = [0.0, 0.0], [0.0, 0.0]
    for t, row in zip(times.tolist(), cells, strict=True):
        state = model.first + (state - model.first) * torch.exp(-decay * (t - before))
        known = torch.cat([state, torch.tensor([[t - before]], dtype=torch.float64)], 1)
        mean, raw = model.predictor(known).chunk(2, 1)
        scale = torch.nn.functional.softplus(raw) + LEAST_NOISE
        inputs = []
        for column, value in enumerate(row.tolist()):
            if math.isnan(value):
                inputs.append(last[column] * math.exp(-rates[column] * (t - when[column])))
            else:
                total += norm.logpdf(value, float(mean[0, column]), float(scale[0, column]))
                last[column], when[column] = value, t
                inputs.append(value)
        mask = (~row.isnan()).double().tolist()
        state = cell(torch.tensor([[*inputs, *mask]], dtype=torch.float64), state)
        before = t
    found = model.score(SeriesBatch.of([(times, cells)]), noise_of(model, [0])).log_prob
    assert float(found) == pytest.approx(total, abs=1e-10)


def evolution() -> Evolution:
    options = PerRowOptions(atol=1e-10, rtol=1e-10)
    found = Evolution(3, 8, 2, options, torch.Generator().manual_seed(1), torch.nn.functional.elu)
    return found.double().requires_grad_(False)


def test_paths_are_those_of_torchdiffeq() -> None:
    """Before 0, at 0, between and far beyond 1, where several solves follow one another."""
    own = evolution()
    z = torch.randn(4, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    times = torch.tensor([-5.1, -2, -1, -0.3, 0, 0.2, 1, 1.5, 2, 3.9, 4, 9.3], dtype=torch.float64)
    found = own.along(z, times)

    def exact(side: Tensor) -> Tensor:
        every = torch.cat([torch.zeros(1, dtype=torch.float64), side])
        path: Tensor = odeint(lambda t, x: own.field(x), z, every, atol=1e-11, rtol=1e-11)
        return path[1:]

    after = exact(times[5:])
    expected = torch.cat([exact(times[:4].flip(0)).flip(0), z[None], after])
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-7)
    # A time alone gives the same bits as among others.
    for place, time in enumerate(times):
        assert torch.equal(own.along(z, time[None])[0], found[place])
    gaps = torch.tensor([0.0, 0.2, 1.5, -0.3], dtype=torch.float64)
    carried = torch.stack([found[place, row] for row, place in enumerate((4, 5, 7, 3))])
    torch.testing.assert_close(own(z, gaps), carried, rtol=1e-7, atol=1e-7)


def test_few_solves_lead_to_a_time_that_is_far_too_large() -> None:
    own = evolution()
    for parameter in own.parameters():
        parameter.zero_()
    z = torch.ones(1, 3, dtype=torch.float64)
    assert torch.equal(own.along(z, torch.tensor([-1e9, 1e9], dtype=torch.float64)), z.expand(2, 1, 3))
    assert own.nfe < 5000


class Quadrature:
    """p(x) of a series under a latent ODE of one dimension, by quadrature over z and torchdiffeq's paths."""

    def __init__(self, model: LatentOde, times: Tensor, cells: Tensor) -> None:
        z = torch.linspace(-9, 9, 3001, dtype=torch.float64)[:, None]
        start = torch.cat([torch.zeros(1, dtype=torch.float64), times])
        path = odeint(lambda t, x: model.dynamics.field(x), z, start, atol=1e-9, rtol=1e-9)[1:]
        means = model.decoder(path).numpy()
        scale = np.sqrt(np.exp(2 * model.log_noise.numpy()) + LEAST_NOISE**2)
        held = ~cells.isnan().numpy()
        terms = norm.logpdf(cells.nan_to_num(0.0).numpy()[:, None], means, scale)
        joint = np.where(held[:, None], terms, 0.0).sum((0, 2)) + norm.logpdf(z[:, 0].numpy())
        self.log_prob = float(np.logaddexp.reduce(joint) + np.log(18 / 3000))


@pytest.fixture(scope="module", params=["rnn", "ode-rnn"])
def latent(request: pytest.FixtureRequest) -> tuple[LatentOde, SeriesBatch, np.ndarray]:
    """A latent ODE of one dimension, four series, and their exact log-likelihoods."""
    model = evaluated("latent-ode", 2, latent=1, recognition=request.param)
    assert isinstance(model, LatentOde)
    # With this much noise the untrained posterior is not too far from the true one.
    model.log_noise.fill_(0.4)
    series = [*ragged()[:3], ragged(seed=2)[0]]
    exact = np.array([Quadrature(model, times, cells).log_prob for times, cells in series])
    return model, SeriesBatch.of(series), exact


Latent = tuple[LatentOde, SeriesBatch, np.ndarray]


def test_weights_of_draws_have_the_likelihood_as_their_mean(latent: Latent) -> None:
    model, batch, exact = latent
    noise = BatchNoise(4, torch.Generator().manual_seed(1), model.like)
    weights = model.evidence(batch, noise, 4000).log_weights.numpy() - exact
    ratios = np.exp(weights)
    assert np.all(np.abs(ratios.mean(0) - 1) < 5 * ratios.std(0) / np.sqrt(4000) + 1e-5)


def test_the_evidence_bound_is_below_by_the_divergence_from_the_posterior(latent: Latent) -> None:
    """E[log p(x | z)] - KL(q || p), with the closed form, is the mean of bounds of one draw."""
    model, batch, exact = latent
    noise = BatchNoise(4, torch.Generator().manual_seed(2), model.like)
    found = model.evidence(batch, noise, 4000)
    closed = found.log_prob - found.divergence
    error = (found.log_ratio + found.divergence).std(0) / math.sqrt(4000)
    assert ((closed - found.log_weights).mean(0).abs() < 5 * error).all()
    assert np.all(closed.mean(0).numpy() < exact)


def test_bounds_tighten_with_the_draws(latent: Latent) -> None:
    """Monotone in k within a score, below the exact value in the mean, and close to it for many draws."""
    model, batch, exact = latent
    noise = BatchNoise(4, torch.Generator().manual_seed(3), model.like)
    scores = model.score(batch, noise, 4096)
    counts = sorted(scores.looser)
    assert counts == [1, 4, 16, 64, 256, 1024]
    bounds = torch.stack([*(scores.looser[count] for count in counts), scores.log_prob])
    assert (bounds.diff(dim=0) >= -1e-12).all()
    assert np.all(bounds[:3].numpy() < exact)
    assert scores.standard_error is not None
    off = np.abs(scores.log_prob.numpy() - exact)
    assert np.all(off < 5 * scores.standard_error.numpy() + 1e-5)
    # Draws that cannot be grouped evenly give the bounds that can.
    assert sorted(model.score(batch, noise, 6).looser) == [1]
    one = model.score(batch, noise, 1)
    assert one.standard_error is None and not one.looser


def test_standard_errors_are_those_of_repeated_draws(latent: Latent) -> None:
    model, batch, _ = latent
    noise = BatchNoise(4, torch.Generator().manual_seed(4), model.like)
    weights = model.evidence(batch, noise, 100 * 144).log_weights.view(100, 144, 4)
    bounds = weights.logsumexp(1) - math.log(144)
    ratios = (weights - bounds[:, None]).exp()
    ours = ratios.std(1) / 12
    # Where a few draws have all the weight, the delta method does not hold.
    steady = ours.mean(0) < 0.2
    assert steady.sum() >= 2
    assert (bounds.std(0) / ours.square().mean(0).sqrt())[steady].numpy() == pytest.approx(1, abs=0.25)
    # The score itself reports this number.
    few = SeriesBatch(batch.times, batch.values, batch.observed, batch.lengths)
    again = BatchNoise(4, torch.Generator().manual_seed(5), model.like)
    scores = model.score(few, again, 64)
    again = BatchNoise(4, torch.Generator().manual_seed(5), model.like)
    own = (model.evidence(few, again, 64).log_weights - scores.log_prob).exp().std(0) / 8
    assert scores.standard_error is not None
    torch.testing.assert_close(scores.standard_error, own)


def test_predictions_of_a_latent_ode_are_paths_from_draws_of_its_posterior(latent: Latent) -> None:
    model, batch, _ = latent
    times = torch.tensor([[0.3, 1.2]], dtype=torch.float64).expand(4, -1)
    found = model.predict(batch, times, noise_of(model, range(4)), 5)
    mean, scale = model.recognition(batch)
    z = mean + scale * noise_of(model, range(4)).normal(5, 1).transpose(0, 1)
    path = odeint(
        lambda t, x: model.dynamics.field(x), z, torch.tensor([0, 0.3, 1.2]).double(), atol=1e-9, rtol=1e-9
    )
    expected = model.decoder(path[1:]).permute(1, 2, 0, 3)
    torch.testing.assert_close(found.means, expected, rtol=1e-5, atol=1e-5)


def test_draws_of_a_latent_ode_have_the_moments_of_its_prior() -> None:
    model = evaluated("latent-ode", 1, latent=1)
    assert isinstance(model, LatentOde)
    times = torch.tensor([0.3, 1.0], dtype=torch.float64)
    z = torch.linspace(-8, 8, 801, dtype=torch.float64)
    weights = torch.tensor(norm.pdf(z)) * (z[1] - z[0])
    means = model.decoder(model.paths(z[:, None], times))[..., 0]
    mean = (weights * means).sum(1)
    covariance = (weights * (means - mean[:, None])) @ (means - mean[:, None]).T
    covariance = covariance + torch.diag(model.noise_scale.square().expand(2))
    n = 4000
    noise = BatchNoise(n, torch.Generator().manual_seed(6), model.like)
    drawn = model.sample(times.expand(n, -1), noise)[..., 0]
    error = covariance.diagonal().sqrt() / math.sqrt(n)
    assert ((drawn.mean(0) - mean).abs() < 4 * error).all()
    assert drawn.T.cov().numpy() == pytest.approx(covariance.numpy(), rel=0.1)
