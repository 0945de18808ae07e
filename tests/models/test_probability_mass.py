"""A probability mass function of categories: normalised, smoothed, and close to what rows were drawn from."""

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from flowbench.errors import ConfigurationError
from flowbench.models.probability_mass import ProbabilityMass


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def chain(n: int, seed: int) -> Tensor:
    """Rows of a Markov chain of three columns of 3, 4 and 2 levels, and a column that depends on nothing."""
    rng = np.random.default_rng(seed)
    a = rng.integers(0, 3, n)
    b = np.where(rng.random(n) < 0.8, a, rng.integers(0, 4, n))
    c = np.where(rng.random(n) < 0.9, b % 2, rng.integers(0, 2, n))
    return torch.tensor(np.c_[a, b, c, rng.integers(0, 5, n)], dtype=torch.float64)


SIZES = {"a": 3, "b": 4, "c": 2, "d": 5}
LEVELS = {name: [float(place) for place in range(size)] for name, size in SIZES.items()}


def true_log_mass(x: Tensor) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    a, b, c, _ = x.numpy().astype(int).T
    of_b = 0.8 * (a == b) + 0.2 / 4
    of_c = 0.9 * (b % 2 == c) + 0.1 / 2
    return np.asarray(np.log(of_b * of_c / 3 / 5))


def test_the_mass_of_a_chain_is_learnt() -> None:
    mass = ProbabilityMass(LEVELS)
    mass.fit(chain(20_000, 0))
    held_out = chain(20_000, 1)
    kl = true_log_mass(held_out) - mass.log_prob(held_out).numpy()
    # About a half of a nat for each free parameter and 20,000 rows, of which there are 2 + 9 + 4 + 4.
    assert abs(kl.mean()) < 3 * 19 / 2 / 20_000 + 3 * kl.std() / len(kl) ** 0.5
    # Each column depends on the one before it, and the last on none.
    assert [row[row >= 0].tolist() for row in mass.parents] == [[], [0], [1], []]


def test_draws_have_the_shares_of_the_mass() -> None:
    mass = ProbabilityMass(LEVELS)
    mass.fit(chain(500, 0))
    n = 40_000
    drawn = mass.sample(n, seeded())
    cells = torch.tensor(list(itertools.product(*LEVELS.values())), dtype=torch.float64)
    counts = np.array([(drawn == cell).all(1).sum().item() for cell in cells])
    assert counts.sum() == n
    expected = mass.log_prob(cells).exp().numpy()
    # "Any other" is never drawn.
    expected *= n / expected.sum()
    common = expected >= 5
    statistic = ((counts - expected)[common] ** 2 / expected[common]).sum()
    assert stats.chi2.sf(statistic, common.sum() - 1) > 1e-3
    assert torch.equal(drawn, mass.sample(n, seeded()))


def test_without_parents_the_probabilities_are_smoothed_shares() -> None:
    mass = ProbabilityMass({"a": [1.0, 2.0, 5.0]})
    mass.fit(torch.tensor([[1.0]] * 6 + [[2.0]] * 3 + [[5.0]]))
    strength = mass.strengths[0, 0].item()
    expected = (np.array([6, 3, 1, 0]) + strength / 4) / (10 + strength)
    found = mass.log_prob(torch.tensor([[1.0], [2.0], [5.0], [3.0]])).exp().numpy()
    np.testing.assert_allclose(found, expected, rtol=1e-12)


@settings(max_examples=50, deadline=None)
@given(
    sizes=st.lists(st.integers(2, 6), min_size=1, max_size=4),
    n=st.integers(1, 200),
    seed=st.integers(0, 2**32 - 1),
)
def test_all_cells_add_up_to_one(sizes: list[int], n: int, seed: int) -> None:
    rng = np.random.default_rng(seed)
    values = [np.sort(rng.choice(50, size, replace=False)).astype(float) for size in sizes]
    columns = [each[np.minimum(rng.geometric(0.4, n) - 1, len(each) - 1)] for each in values]
    x = torch.tensor(np.column_stack(columns))
    mass = ProbabilityMass({f"c{i}": each.tolist() for i, each in enumerate(values)})
    mass.fit(x)
    cells = mass.enumerate()
    assert len(cells) == mass.cells == np.prod([size + 1 for size in sizes])
    assert mass.log_prob(cells).exp().sum().item() == pytest.approx(1, abs=1e-12)
    assert mass.log_prob(x).isfinite().all()
    # The order of the train rows is of no account.
    again = ProbabilityMass(mass.levels.to_values())
    again.fit(x[rng.permutation(n)])
    assert torch.equal(again.log_prob(cells), mass.log_prob(cells))


def test_a_row_gets_the_same_number_alone_and_among_others() -> None:
    mass = ProbabilityMass(LEVELS)
    mass.fit(chain(300, 0))
    x = chain(50, 1)
    alone = torch.cat([mass.log_prob(row[None]) for row in x])
    assert torch.equal(alone, mass.log_prob(x))
    assert torch.equal(mass.log_prob(x.flip(0)).flip(0), alone)


def test_a_value_that_no_row_holds_has_a_probability() -> None:
    mass = ProbabilityMass(LEVELS)
    mass.fit(chain(300, 0))
    known, unknown = torch.zeros(1, 4, dtype=torch.float64), torch.tensor([[7.0, 0, 0, 0]]).double()
    assert -30 < mass.log_prob(unknown).item() < mass.log_prob(known).item() - 3
    # All that are unknown are one: any other.
    assert torch.equal(mass.log_prob(unknown), mass.log_prob(torch.tensor([[8.0, 0, 0, 0]]).double()))


def test_a_saved_mass_is_the_same() -> None:
    mass, x = ProbabilityMass(LEVELS), chain(300, 0)
    mass.fit(x)
    other = ProbabilityMass(LEVELS)
    other.load_state_dict(mass.state_dict())
    assert torch.equal(other.log_prob(x), mass.log_prob(x))


@pytest.mark.parametrize("levels", [{}, {"a": [1.0]}, {"a": [2.0, 1.0]}, {"a": [1.0, 1.0]}])
def test_levels_that_are_none_are_refused(levels: dict[str, list[float]]) -> None:
    with pytest.raises(ConfigurationError):
        ProbabilityMass(levels)
