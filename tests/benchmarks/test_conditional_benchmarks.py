"""The benchmark of p(y | x): its densities, its scores, its tables, and its contenders on made-up rows."""

import importlib
import itertools
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import numpy as np
import pytest
from scipy import stats

from flowbench.statistics.ensembles import crps

if TYPE_CHECKING:
    from benchmarks import known, predictions, uci
    from benchmarks.contenders import conditional, regression
else:
    # A source distribution holds the tests without the benchmarks.
    predictions = pytest.importorskip("benchmarks.predictions")
    known = importlib.import_module("benchmarks.known")
    uci = importlib.import_module("benchmarks.uci")
    conditional = importlib.import_module("benchmarks.contenders.conditional")
    regression = importlib.import_module("benchmarks.contenders.regression")

Make = Callable[[int], predictions.Prediction]

GRID = np.linspace(-60, 60, 1_200_001)
STEP = GRID[1] - GRID[0]


def quantile_densities(n: int) -> predictions.QuantileDensities:
    """The same density n times: of quantiles that cross, two of which are equal."""
    rng = np.random.default_rng(0)
    predicted = rng.normal(size=len(predictions.LEVELS))
    predicted[3] = predicted[7]
    rows = np.tile(predicted, (n, 1))
    return predictions.QuantileDensities.of_predictions(rows, predictions.LEVELS, 0.02)


def normals(n: int) -> predictions.Normals:
    return predictions.Normals(np.full(n, 0.4), np.full(n, 1.3))


@pytest.mark.parametrize("make", [quantile_densities, normals])
class TestPrediction:
    def test_integrates_to_one(self, make: Make) -> None:
        assert np.exp(make(len(GRID)).log_prob(GRID)).sum() * STEP == pytest.approx(1, abs=1e-4)

    def test_mass_is_the_integral_of_the_density(self, make: Make) -> None:
        density = np.exp(make(len(GRID)).log_prob(GRID))
        bounds = np.array([-9.0, -2.5, -1.0, 0.05, 0.9, 4.0, 12.0])
        mass = np.exp(make(6).log_mass(bounds[:-1], bounds[1:]))
        expected = [
            density[(low <= GRID) & (high > GRID)].sum() * STEP for low, high in itertools.pairwise(bounds)
        ]
        np.testing.assert_allclose(mass, expected, rtol=2e-3, atol=1e-7)

    def test_draws_fall_into_intervals_by_their_mass(self, make: Make) -> None:
        draws = make(1).sample(200_000, np.random.default_rng(3))[0]
        bounds = np.array([-30.0, -1.2, -0.3, 0.4, 1.1, 30.0])
        expected = np.exp(make(5).log_mass(bounds[:-1], bounds[1:]))
        found = np.histogram(draws, bounds)[0] / len(draws)
        np.testing.assert_allclose(found, expected, atol=0.005)


def test_quantile_density_has_its_quantiles() -> None:
    prediction = quantile_densities(len(predictions.LEVELS))
    quantiles = prediction.quantiles[0]
    below = np.exp(prediction.log_mass(np.full(len(quantiles), -1e3), quantiles))
    np.testing.assert_allclose(below, predictions.LEVELS, atol=1e-12)
    assert np.diff(quantiles).min() >= 0.02 * (1 - 1e-9)


def test_log_mass_of_a_normal_keeps_its_digits_far_out() -> None:
    far = predictions.Normals(np.zeros(2), np.ones(2))
    found = far.log_mass(np.array([20.0, -21.0]), np.array([21.0, -20.0]))
    np.testing.assert_allclose(found, stats.norm.logsf(20), rtol=1e-6)


def test_crps_is_that_of_a_normal() -> None:
    """Against the closed form (Gneiting and Raftery 2007), on average over many sets of draws."""
    y = np.full(20_000, 0.7)
    found = crps(np.random.default_rng(4).standard_normal((len(y), 5)), y)
    closed = 0.7 * (2 * stats.norm.cdf(0.7) - 1) + 2 * stats.norm.pdf(0.7) - 1 / np.sqrt(np.pi)
    assert found.mean() == pytest.approx(closed, abs=4 * found.std() / len(y) ** 0.5)


def test_squared_error_of_a_mean_from_few_draws_is_not_biased() -> None:
    y = np.full(20_000, 2.0)
    found = predictions.squared_errors(np.random.default_rng(5).standard_normal((len(y), 3)), y)
    assert found.mean() == pytest.approx(4, abs=4 * found.std() / len(y) ** 0.5)


def test_central_interval_holds_its_share() -> None:
    rng = np.random.default_rng(6)
    y, draws = rng.standard_normal(20_000), rng.standard_normal((20_000, 99))
    assert predictions.is_central(draws, y).mean() == pytest.approx(0.9, abs=4 * (0.09 / len(y)) ** 0.5)


def test_score_of_a_cell_is_the_logarithm_of_its_mean_density() -> None:
    low = np.array([-0.5, 0.5])
    found = predictions.score(normals(2), low + 0.25, low, low + 0.5)
    mass = np.diff(stats.norm(0.4, 1.3).cdf(np.stack([low, low + 0.5])), axis=0)[0]
    np.testing.assert_allclose(found, np.log(mass / 0.5))


class TestKnownConditional:
    CONTEXT = np.array([[-1.3, 0.8, 0.0, 1.0, -1.0], [0.4, -0.5, 2.0, 0.0, 0.3]])

    @pytest.mark.parametrize("context", [1, 5])
    def test_one_column_has_the_distribution_of_its_draws(self, context: int) -> None:
        density = known.known_conditional(f"1 given {context}")
        places = np.linspace(-12, 12, 24_001)
        for x in self.CONTEXT[:, :context]:
            values = np.exp(density.log_prob(places[:, None], np.tile(x, (len(places), 1))))
            mass = np.cumsum(values) * (places[1] - places[0])
            assert mass[-1] == pytest.approx(1, abs=1e-6)
            drawn = density.sample(np.tile(x, (20_000, 1)), np.random.default_rng(0))[:, 0]
            test = stats.kstest(drawn, partial(np.interp, xp=places, fp=mass))
            assert test.pvalue > 1e-4

    @pytest.mark.parametrize("context", [1, 5])
    def test_two_columns_have_the_moments_of_their_draws(self, context: int) -> None:
        density = known.known_conditional(f"2 given {context}")
        axis = np.linspace(-9, 9, 721)
        places = np.stack(np.meshgrid(axis, axis), -1).reshape(-1, 2)
        for x in self.CONTEXT[:, :context]:
            values = np.exp(density.log_prob(places, np.tile(x, (len(places), 1))))
            mass = values * (axis[1] - axis[0]) ** 2
            assert mass.sum() == pytest.approx(1, abs=1e-6)
            mean = mass @ places
            covariance = (places - mean).T * mass @ (places - mean)
            drawn = density.sample(np.tile(x, (100_000, 1)), np.random.default_rng(0))
            np.testing.assert_allclose(drawn.mean(0), mean, atol=0.03)
            np.testing.assert_allclose(np.cov(drawn.T), covariance, atol=0.05)


@pytest.mark.skipif(not uci.is_here(), reason="needs ../shared/data/uci-regression")
class TestTables:
    def test_cells_of_a_rounded_target_meet(self) -> None:
        for name, values in {"wine": 6, "elevators": 61}.items():
            rows = uci.read_table(name)
            cells = np.unique(np.stack([rows.low, rows.y, rows.high], 1).round(9), axis=0)
            assert len(cells) == values
            assert (cells[:, 0] < cells[:, 1]).all() and (cells[:, 1] < cells[:, 2]).all()
            # Neighbours meet, but for whole numbers that no row has.
            meets = np.isclose(cells[1:, 0], cells[:-1, 2], atol=1e-6)
            assert meets.mean() > 0.8 and (cells[1:, 0] > cells[:-1, 2] - 1e-6).all()

    @pytest.mark.parametrize("name", uci.SOURCES)
    def test_splits_hold_every_row_once(self, name: str) -> None:
        table, split = uci.read_table(name), uci.read_split(name, 3)
        parts = split.train, split.validation, split.test
        assert sum(map(len, parts)) == len(table)
        together = np.concatenate([part.x for part in parts])
        np.testing.assert_array_equal(np.sort(together, axis=0), np.sort(table.x, axis=0))
        assert len(split.validation) == pytest.approx(0.15 * (len(table) - len(split.test)), abs=1)

    def test_a_rounded_target_is_learned_from_inside_its_cell(self) -> None:
        split = uci.read_split("wine", 0)
        assert ((split.train.low <= split.train.y) & (split.train.y <= split.train.high)).all()
        assert len(np.unique(split.train.y)) == len(split.train)
        assert len(np.unique(split.test.y)) <= 6


def linear_split(seed: int = 0) -> uci.Split:
    """Rows of y = 3 + 2 x_0 - x_1 + 0.5 e, with e standard normal, as a split of a table."""
    rng = np.random.default_rng(seed)

    def draw(n: int) -> uci.Rows:
        x = rng.normal(size=(n, 2)) * [1.0, 4.0] + [0.0, 10.0]
        y = 3 + 2 * x[:, 0] - x[:, 1] + 0.5 * rng.standard_normal(n)
        return uci.Rows(x, y, y, y)

    return uci.Split(draw(600), draw(200), draw(400))


@pytest.mark.parametrize("model", ["gaussian", "mixture", "cnf"])
def test_a_fitted_model_is_a_density_in_the_units_of_its_rows(model: str) -> None:
    split = linear_split()
    parts = (values for part in (split.train, split.validation) for values in (part.y[:, None], part.x))
    fitted = conditional.fit_conditional(model, *parts, seconds=1.5, seed=0)
    grid = np.linspace(-40, 30, 7001)
    given = split.test.x[:1]
    density = np.exp(fitted.log_prob(grid[:, None], np.repeat(given, len(grid), 0)))
    mass = density * (grid[1] - grid[0])
    assert mass.sum() == pytest.approx(1, abs=2e-3)
    drawn = fitted.sample(given, 20_000).ravel()
    mean = mass @ grid
    deviation = np.sqrt(mass @ (grid - mean) ** 2)
    assert drawn.mean() == pytest.approx(mean, abs=5 * deviation / len(drawn) ** 0.5)
    assert drawn.std() == pytest.approx(deviation, rel=0.05)


@pytest.mark.parametrize("name", regression.PEERS)
def test_a_peer_learns_a_linear_relation(name: str) -> None:
    if name == "ngboost":
        pytest.importorskip("ngboost")
    answer = regression.answer_of_peer(linear_split(), 0, name)
    entropy = np.log(0.5) + 0.5 * np.log(2 * np.pi * np.e)
    excess = -answer.arrays["log_prob"].mean() - entropy
    assert -0.15 < excess < (0.05 if name == "linear" else 1.2)
    assert 0.75 < answer.arrays["covered"].mean() < 0.99
    # The squared error of the mean of N(0, 0.5^2) noise is at least its variance.
    assert answer.arrays["squared_error"].mean() > 0.15
