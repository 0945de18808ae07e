"""Values with a probability of their own: states, stand-ins, and what rows get back."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor

from flowbench.data.schema import POSITIVE
from flowbench.encoding.atoms import Atoms, parse_atoms
from flowbench.encoding.standardise import Standardise, StandardiseOptions
from flowbench.encoding.support_map import SupportMap
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError

COLUMNS = ("a", "b", "c")
VALUES = {"c": [0.0, 9.0], "a": [0.0]}


def table(n: int = 400) -> Tensor:
    """a is 0 or positive, b has no atom, c is 0, 9 or between."""
    rng = np.random.default_rng(0)
    a = np.where(rng.random(n) < 0.4, 0, rng.exponential(size=n))
    c = np.where(rng.random(n) < 0.5, rng.choice([0.0, 9.0], n), rng.uniform(1, 8, n))
    return torch.tensor(np.c_[a, rng.normal(size=n), c])


def fitted() -> TableEncoder:
    support = SupportMap(COLUMNS, {"a": POSITIVE})
    encoder = TableEncoder(
        COLUMNS, [Standardise(COLUMNS, StandardiseOptions())], None, support, Atoms(COLUMNS, VALUES)
    )
    encoder.fit(table())
    return encoder


def test_states_tell_which_atom_a_cell_holds() -> None:
    atoms, x = Atoms(COLUMNS, VALUES), table()
    assert list(atoms.values) == ["a", "c"]
    states = atoms.states(x)
    assert torch.equal(states[:, 0], (x[:, 0] == 0).double())
    assert torch.equal(states[:, 1], (x[:, 2] == 0).double() + 2 * (x[:, 2] == 9).double())
    assert torch.equal(atoms.absent(states), (x == 0) | (x == 9))
    assert torch.equal(atoms.restore(torch.full_like(x, 5.0), states)[x == 9], x[x == 9])


def test_each_columns_map_is_that_of_its_values_without_atoms() -> None:
    encoder, x = fitted(), table()
    held = x[:, 2][~torch.isin(x[:, 2], torch.tensor([0.0, 9.0], dtype=torch.float64))]
    transform = encoder.transforms[0]
    assert isinstance(transform, Standardise)
    assert transform.mean[1].item() == pytest.approx(x[:, 1].mean().item())
    # Other rows' values in place of atoms have about the mean of the values without atoms.
    assert transform.mean[2].item() == pytest.approx(held.mean().item(), abs=0.2)
    assert transform.scale[2].item() == pytest.approx(held.std().item(), abs=0.2)
    # The atom 0 lies outside the support of the other values, and stops nothing.
    assert encoder.to_model(encoder.jitter(x, np.random.default_rng(1)))[1].isfinite().all()


def test_stand_ins_are_standard_normal_in_model_space_and_follow_from_the_row() -> None:
    encoder, x = fitted(), table(4000)
    absent = encoder.absent(x)
    placed = encoder.spread(x, 0, 8)
    assert torch.equal(placed[~absent], x[~absent])
    z = encoder.to_model(placed)[0]
    for column in (0, 2):
        assert stats.kstest(z[absent[:, column], column], "norm").pvalue > 1e-3
    assert torch.equal(encoder.spread(x[5:6], 3, 8), encoder.spread(x, 3, 8)[5:6])
    opposite = encoder.to_model(encoder.spread(x, 1, 8))[0]
    assert torch.allclose(opposite[absent], -z[absent], atol=1e-9)
    again = encoder.to_model(encoder.spread(x, 2, 8))[0]
    assert abs(np.corrcoef(again[absent], z[absent])[0, 1]) < 0.05


def test_the_density_of_stand_ins_is_that_in_data_units() -> None:
    encoder, x = fitted(), table()
    absent = encoder.absent(x)
    placed = encoder.spread(x, 0)
    z, log_slope = encoder.to_model_by_column(placed)
    expected = np.where(absent, stats.norm.logpdf(z) + log_slope.numpy(), 0).sum(1)
    np.testing.assert_allclose(encoder.log_stand_in(placed, absent), expected, atol=1e-12)
    # By quadrature, the density of a stand-in for `a` sums to 1 over its support.
    grid = torch.tensor(np.geomspace(1e-12, 60, 100_001))
    rows = torch.stack([grid, torch.zeros_like(grid), torch.full_like(grid, 5.0)], 1)
    only = torch.tensor([True, False, False]).expand_as(rows)
    density = encoder.log_stand_in(rows, only).exp()
    assert torch.trapezoid(density, grid).item() == pytest.approx(1, abs=1e-3)


def test_a_flow_of_independent_stand_ins_loses_nothing() -> None:
    """With a standard normal flow the bound is exact: the density of the cells without an atom."""
    encoder, x = fitted(), table()
    absent = encoder.absent(x)
    for draw in range(4):
        placed = encoder.spread(x, draw, 4)
        z, log_det = encoder.to_model(placed)
        log_prob = (
            stats.norm.logpdf(z).sum(1) + log_det.numpy() - encoder.log_stand_in(placed, absent).numpy()
        )
        medians = torch.stack([column[~atom].median() for column, atom in zip(x.T, absent.T, strict=True)])
        own, log_slope = encoder.to_model_by_column(x.where(~absent, medians))
        expected = np.where(absent, 0, stats.norm.logpdf(own) + log_slope.numpy()).sum(1)
        np.testing.assert_allclose(log_prob, expected, atol=1e-9)


def test_dequantised_rows_keep_their_atoms() -> None:
    encoder, x = fitted(), table()
    placed = encoder.dequantise(x, np.random.default_rng(0))
    assert torch.equal(placed[encoder.absent(x)], x[encoder.absent(x)])


@given(st.dictionaries(st.sampled_from(COLUMNS), st.sets(st.floats(-1e6, 1e6), min_size=1, max_size=3)))
def test_atoms_are_read_as_they_are_written(atoms: dict[str, set[float]]) -> None:
    text = ",".join(f"{name}={value!r}" for name, values in atoms.items() for value in values)
    if text:
        found = parse_atoms(text)
        assert found == {name: sorted(values) for name, values in atoms.items()}
        assert Atoms(COLUMNS, found).to_values() == {name: found[name] for name in COLUMNS if name in found}


@pytest.mark.parametrize("text", ["a", "a=", "=0", "a=x", "a=inf", "a=1,,b=2"])
def test_text_that_names_no_atoms_is_refused(text: str) -> None:
    with pytest.raises(ConfigurationError, match="takes auto, none, or values"):
        parse_atoms(text)


@pytest.mark.parametrize("values", [{"d": [0.0]}, {"a": []}, {"a": [1.0, 0.0]}])
def test_atoms_that_are_none_are_refused(values: dict[str, list[float]]) -> None:
    with pytest.raises(ConfigurationError, match="atoms"):
        Atoms(COLUMNS, values)


def test_columns_without_atoms() -> None:
    assert not Atoms(COLUMNS)
    assert fitted().atoms
