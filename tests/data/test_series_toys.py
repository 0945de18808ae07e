"""Toy series, by themselves and by name beside files."""

from pathlib import Path

import numpy as np
import pytest
from scipy.integrate import solve_ivp
from scipy.stats import chi2, kstest, multivariate_normal

from flowbench.data import hopper
from flowbench.data.dataset import Column
from flowbench.data.hopper import Hopper
from flowbench.data.series_catalogue import load_series
from flowbench.data.series_dataset import TimeSeries
from flowbench.data.series_reading import SeriesColumns
from flowbench.data.series_toys import GaussianProcessToy, Oscillators, Spirals
from flowbench.errors import ConfigurationError, DataError, UnknownNameError
from flowbench.registry import SERIES_TOYS

PLACES = SeriesColumns("id", "t")


@pytest.mark.parametrize("name", SERIES_TOYS.names())
def test_contract(name: str) -> None:
    """The seed decides; times are ragged and increase; the noise is normal with the scale that is told."""
    toy = SERIES_TOYS.get(name)()
    found, again, other = toy.draw(200, 1), toy.draw(200, 1), toy.draw(200, 2)
    assert (found.name, found.column_names) == (name, toy.columns)
    assert len(found) == 200
    assert np.array_equal(found.times, again.times) and np.array_equal(found.values, again.values)
    assert found.provenance.sha256 == again.provenance.sha256 != other.provenance.sha256
    assert found.truth is not None
    noise = (found.values - found.truth).ravel()
    if toy.noise:
        assert kstest(noise / toy.noise, "norm").pvalue > 1e-3
    else:
        assert not noise.any()
    # Irregular, and each series at times of its own.
    steps = np.diff(found.series(0).times)
    assert steps.std() > 0.1 * steps.mean()
    assert not np.array_equal(found.series(0).times[:5], found.series(1).times[:5])


def test_a_hopper_moves_as_its_velocities_say() -> None:
    """By the semi-implicit Euler method, a pose changes by the velocity at the end of a step."""
    toy = Hopper(points=100)
    for number in range(5):
        series = toy.draw(5, 0).series(number)
        pose, velocity = series.values[:, :7], series.values[:, 7:]
        step = np.diff(series.times)[:, None]
        assert step == pytest.approx(toy.STEP)
        np.testing.assert_allclose(np.diff(pose, axis=0), step * velocity[1:], rtol=0, atol=2e-6)


def test_a_hopper_without_its_package_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hopper, "find_spec", lambda name: None)
    with pytest.raises(ConfigurationError, match=r"dm_control, which is not installed.*\.\[hopper\]"):
        load_series("hopper", count=10)


def test_the_likelihood_of_a_gaussian_process_is_that_of_scipy() -> None:
    toy = GaussianProcessToy(noise=0.2, length=2.0)
    found = toy.draw(20, 0)
    assert found.log_prob is not None
    for index in range(len(found)):
        own = found.series(index)
        scaled = np.sqrt(3) * np.abs(own.times[:, None] - own.times) / 2.0
        covariance = (1 + scaled) * np.exp(-scaled) + 0.04 * np.eye(len(own))
        assert found.log_prob[index] == pytest.approx(
            multivariate_normal.logpdf(own.values[:, 0], cov=covariance)
        )
    missing = TimeSeries(np.array([0.0, 1]), np.array([[1.0], [np.nan]]))
    with pytest.raises(DataError, match="one is missing"):
        toy.log_prob(missing)


def test_a_gaussian_process_is_drawn_from_its_likelihood() -> None:
    """-2 log p without its constant is chi-squared."""
    toy = GaussianProcessToy()
    found = toy.draw(300, 3)
    assert found.log_prob is not None
    levels = []
    for index in range(len(found)):
        own = found.series(index)
        at_mean = toy.log_prob(TimeSeries(own.times, np.zeros_like(own.values)))
        levels.append(chi2.cdf(2 * (at_mean - found.log_prob[index]), len(own)))
    assert kstest(levels, "uniform").pvalue > 1e-3


def test_oscillators_solve_their_equation() -> None:
    toy = Oscillators(noise=0.0)
    for seed in range(3):
        rng = np.random.default_rng(seed)
        t, x = toy._draw(rng)
        again = np.random.default_rng(seed)
        again.uniform(0, 10, int(again.integers(20, 41)))
        amplitude, phase = again.uniform(0.5, 1.5), again.uniform(0, 2 * np.pi)
        frequency, damping = again.uniform(0.8, 1.6), again.uniform(0.05, 0.25)
        start = amplitude * np.array(
            [np.cos(phase), -damping * np.cos(phase) - frequency * np.sin(phase)], dtype=np.float64
        )
        path = solve_ivp(
            lambda t, y, w, g: (y[1], -(w**2) * y[0] - 2 * g * y[1]),
            (0, 10),
            start,
            t_eval=t,
            args=(np.hypot(frequency, damping), damping),
            rtol=1e-10,
            atol=1e-10,
        )
        np.testing.assert_allclose(x[:, 0], path.y[0], atol=1e-7)


def test_spirals_are_those_of_the_example_of_torchdiffeq() -> None:
    """generate_spiral2d of its latent_ode.py, with a = 0 and b = 0.3."""
    angles = np.linspace(0, 6 * np.pi, 1000)
    turned = 6 * np.pi + 1 - angles
    radius = 0.3 * 50 / turned
    clockwise = np.stack((radius * np.cos(turned) - 5, radius * np.sin(turned)), axis=1)
    other = np.stack((0.3 * angles * np.cos(angles) + 5, 0.3 * angles * np.sin(angles)), axis=1)
    toy = Spirals()
    np.testing.assert_allclose(toy.path(angles, True), clockwise)
    np.testing.assert_allclose(toy.path(angles, False), other)
    found = toy.draw(100, 0)
    assert found.truth is not None
    both = np.concatenate([clockwise, other])
    near = [np.abs(both - point).sum(1).min() for point in found.truth]
    assert max(near) < 1e-9
    sides = [found.truth[found.starts[i], 0] < 0 for i in range(100)]
    assert 30 < sum(sides) < 70
    assert np.all(found.lengths == 60)


def test_a_toy_is_found_by_name() -> None:
    found = load_series("oscillators", count=12, seed=5)
    assert np.array_equal(found.values, Oscillators().draw(12, 5).values)
    assert len(load_series("gaussian-process")) == 1000
    with pytest.raises(ConfigurationError, match="leave `--series` and `--time` out"):
        load_series("spirals", PLACES)
    with pytest.raises(ConfigurationError, match="`rows` must be at least 10 series; got 9"):
        load_series("spirals", count=9)


def test_columns_of_a_toy_are_chosen() -> None:
    whole, part = load_series("spirals", count=10), load_series("spirals", count=10, columns=["y"])
    assert part.columns == (Column("y"),)
    assert whole.truth is not None and part.truth is not None
    assert np.array_equal(part.values, whole.values[:, 1:])
    assert np.array_equal(part.truth, whole.truth[:, 1:])
    turned = load_series("spirals", count=10, columns=["y", "x"])
    assert np.array_equal(turned.values, whole.values[:, ::-1])
    assert load_series("gaussian-process", count=10, columns=["value"]).log_prob is not None


def test_files_are_found_by_path_and_by_name(tmp_path: Path) -> None:
    path = tmp_path / "mine.csv"
    path.write_text("id,t,x\n" + "".join(f"s{i},{t},{i + t}\n" for i in range(10) for t in (0, 1)))
    found = load_series(str(path), PLACES)
    assert (len(found), found.name) == (10, "mine")
    assert np.array_equal(load_series("mine", PLACES, folder=tmp_path).values, found.values)
    with pytest.raises(ConfigurationError, match="with `--series` and `--time`"):
        load_series(str(path))
    with pytest.raises(ConfigurationError, match="`rows` is for toys"):
        load_series(str(path), PLACES, count=5)
    with pytest.raises((UnknownNameError, DataError), match="other"):
        load_series("other", PLACES, folder=tmp_path)


def test_too_little_to_learn_from_is_refused_for_a_fit_alone(tmp_path: Path) -> None:
    path = tmp_path / "few.csv"
    path.write_text("id,t,x\n" + "".join(f"s{i},{t},{i + t}\n" for i in range(9) for t in (0, 1)))
    with pytest.raises(DataError, match=r"few: 9 series are too few .* `id` names `s0`, `s1`, `s2`, `s3`"):
        load_series(str(path), PLACES)
    assert len(load_series(str(path), PLACES, for_fit=False)) == 9
    path.write_text("id,t,x\n" + "".join(f"s{i},0,{i}\n" for i in range(12)))
    with pytest.raises(DataError, match="every series has a single observation"):
        load_series(str(path), PLACES)
