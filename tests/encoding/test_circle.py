"""Periodic columns: the copies of a row on the line, and the density on the circle that these add up to."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import vonmises
from torch import Tensor

from flowbench.data.lattice import Lattice
from flowbench.data.periods import Period
from flowbench.encoding.atoms import Atoms
from flowbench.encoding.circle import Circle, CosineAndSine, parse_periods
from flowbench.encoding.dequantiser import Dequantiser
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError
from flowbench.models.density import Density, Scores
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.options import PartOptions
from flowbench.registry import MODELS
from flowbench.workflows.config import resolve
from flowbench.workflows.preparation import build_encoder, prepare

PERIODS = {"hour": Period(0, 24), "phase": Period(-180, 180), "angle": Period(0.3, 0.3 + 2 * math.pi)}
CIRCLE = Circle(("hour", "speed", "phase", "angle"), PERIODS)
CUT = st.sampled_from(
    [0.0, 24.0, -24.0, -180.0, 180.0, 540.0, 1e-320, -1e-320, -1e-17, math.nextafter(24, 0)]
)
REALS = st.floats(-1e6, 1e6) | CUT


def column(values: object) -> Tensor:
    return torch.tensor(values, dtype=torch.float64)


@given(st.lists(REALS, min_size=1, max_size=20))
def test_every_number_has_its_place_on_the_circle(values: list[float]) -> None:
    x = column(values)[:, None].expand(-1, 4)
    wrapped = CIRCLE.wrap(x)
    assert torch.equal(wrapped[:, 1], x[:, 1])
    for number, name in ((0, "hour"), (2, "phase"), (3, "angle")):
        own, period = wrapped[:, number], PERIODS[name]
        assert ((own >= period.low) & (own < period.high)).all()
        turns = (own - x[:, number]) / period.length
        torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-9)
    assert torch.equal(CIRCLE.wrap(wrapped), wrapped)


@given(st.lists(REALS, min_size=1, max_size=20))
def test_the_probabilities_of_a_rows_copies_add_up_to_one(values: list[float]) -> None:
    x = column(values)[:, None].expand(-1, 4)
    copies = list(CIRCLE.copies(x))
    assert len(copies) == 8 and all(there.all() for _, there in copies)
    for copy, _ in copies:
        turns = ((copy - x) / (CIRCLE.high - CIRCLE.low))[:, [0, 2, 3]]
        torch.testing.assert_close(turns, turns.round(), rtol=0, atol=1e-9)
    shares = torch.stack([CIRCLE.log_share(copy).exp() for copy, _ in copies])
    torch.testing.assert_close(shares.sum(0), torch.ones(len(x), dtype=torch.float64))


def test_rows_go_to_their_copies_with_these_probabilities() -> None:
    n = 40_000
    for hour in (0.0, 3.0, 12.0, 23.9):
        x = column([[hour, 1.0, 0.0, 1.0]]).expand(n, -1)
        copies = CIRCLE.unroll(x, np.random.default_rng(0))[:, 0]
        assert set(copies.tolist()) <= {hour, hour - 24}
        share = math.cos(math.pi * hour / 48) ** 2
        assert abs((copies == hour).double().mean() - share) <= 4 * math.sqrt(share * (1 - share) / n)


def test_an_absent_cell_has_one_copy_and_stays() -> None:
    x = column([[30.0, 0.0, 0.0, 1.0], [30.0, 0.0, 0.0, 1.0]])
    absent = torch.zeros(2, 4, dtype=torch.bool)
    absent[0, 0] = True
    copies = list(CIRCLE.copies(x, absent))
    there = torch.stack([each for _, each in copies])
    assert there.sum(0).tolist() == [4, 8]
    assert all((copy[0, 0] == 30) for copy, _ in copies)
    assert {float(copy[1, 0]) for copy, _ in copies} == {6.0, -18.0}
    assert (CIRCLE.unroll(x, np.random.default_rng(0), absent)[0, 0] == 30).all()
    whole = CIRCLE.log_share(CIRCLE.wrap(x))
    assert CIRCLE.log_share(x, absent)[0] == pytest.approx(
        float(whole[0]) - 2 * math.log(math.cos(math.pi * 6 / 48)), abs=1e-12
    )


@given(st.lists(st.floats(-1e5, 1e5) | st.sampled_from([0.0, 1e300, -1e300]), min_size=1, max_size=20))
def test_copies_are_mapped_onto_the_line_and_back(values: list[float]) -> None:
    u = column(values)[:, None].expand(-1, 4).contiguous()
    y, log_slope = CIRCLE.to_rows(u)
    assert torch.equal(y[:, 1], u[:, 1]) and not log_slope[:, 1].any()
    for number, name in ((0, "hour"), (2, "phase"), (3, "angle")):
        own, period = y[:, number], PERIODS[name]
        assert ((own > period.low - period.length) & (own < period.high)).all()
    again, log_back = CIRCLE.to_line(y)
    assert again.isfinite().all() and log_back.isfinite().all()
    clear = u.abs() < 1e4
    torch.testing.assert_close(again[clear], u[clear], rtol=1e-4, atol=1e-9)
    torch.testing.assert_close(log_back[clear], -log_slope[clear], rtol=1e-4, atol=1e-4)


def test_the_log_determinants_are_those_of_autodiff_and_there_is_no_density_beyond() -> None:
    u = torch.linspace(-9, 9, 25, dtype=torch.float64)[:, None].repeat(1, 4).requires_grad_()
    y, log_slope = CIRCLE.to_rows(u)
    (slope,) = torch.autograd.grad(y.sum(), u)
    torch.testing.assert_close(log_slope, slope.log(), rtol=1e-9, atol=1e-9)
    inside = y.detach().requires_grad_()
    line, log_back = CIRCLE.to_line(inside)
    (slope,) = torch.autograd.grad(line.sum(), inside)
    torch.testing.assert_close(log_back, slope.log(), rtol=1e-9, atol=1e-9)
    beyond = column([[24.0, 0.0, 180.0, 7.0], [-24.0, 0.0, -540.0, -7.0], [99.0, 0.0, 999.0, 99.0]])
    assert (CIRCLE.to_line(beyond)[1][:, [0, 2, 3]] == -math.inf).all()


class Oracle(Density):
    """Von Mises times the probabilities of the copies, in the space of an encoder without transforms."""

    def __init__(self, encoder: TableEncoder, kappa: tuple[float, ...]) -> None:
        super().__init__(len(kappa), PartOptions(name="oracle"), torch.Generator())
        self.encoder, self.kappa = encoder, kappa

    def truth(self, x: Tensor) -> Tensor:
        each = [
            vonmises.logpdf(2 * np.pi * x[:, i].numpy() / period.length, kappa, 1.0)
            + math.log(2 * math.pi / period.length)
            for i, (kappa, period) in enumerate(
                zip(self.kappa, self.encoder.circle.periods.values(), strict=True)
            )
        ]
        return torch.from_numpy(np.sum(each, 0))

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        y, log_det = self.encoder.to_data(x.double())
        return Scores(self.truth(y) + self.encoder.circle.log_share(y) + log_det)

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        raise NotImplementedError

    @property
    def like(self) -> Tensor:
        return torch.zeros((), dtype=torch.float64)


@pytest.mark.parametrize("kappa", [(0.0,), (3.0,), (0.5, 5.0)])
def test_a_line_that_is_right_gives_the_density_on_the_circle(kappa: tuple[float, ...]) -> None:
    """Uniform, von Mises, and two of these on a torus (scipy)."""
    names = ("hour", "phase")[: len(kappa)]
    encoder = TableEncoder(names, circle=Circle(names, {name: PERIODS[name] for name in names}))
    oracle = Oracle(encoder, kappa)
    model = DensityModel(encoder, oracle)
    each = [
        torch.linspace(own.low, own.high, 13, dtype=torch.float64) for own in encoder.circle.periods.values()
    ]
    x = torch.cartesian_prod(*each).reshape(-1, len(kappa))
    torch.testing.assert_close(model.log_prob(x), oracle.truth(x), rtol=1e-9, atol=1e-9)


def rows(n: int, seed: int) -> Tensor:
    """An hour around midnight, and a speed that depends on it."""
    rng = np.random.default_rng(seed)
    angle = vonmises.rvs(2.0, size=n, random_state=rng)
    return torch.from_numpy(np.column_stack([np.mod(12 / np.pi * angle, 24), rng.normal(np.cos(angle), 0.3)]))


def model_of(name: str, x: Tensor, seed: int = 0, hours: Period = PERIODS["hour"]) -> DensityModel:
    """A model with its first weights, or all of it where nothing is trained, behind a fitted encoder."""
    overrides = {"seed": seed, "transforms": ["standardise"], "plan.steps": 1}
    config = resolve("array", name, overrides=overrides)
    names = ("hour", "speed")[: x.shape[1]]
    encoder = build_encoder(config, names, circle=Circle(names, {"hour": hours}))
    rng = np.random.default_rng(seed)
    placed = encoder.unroll(encoder.dequantise(x, rng), rng)
    return prepare(config, encoder, Rows(placed[:-100]), Rows(placed[-100:])).model.double()


@settings(max_examples=8, deadline=None)
@given(st.sampled_from(["nsf", "maf", "mixture", "kde"]), st.integers(0, 10_000))
def test_the_density_adds_up_to_one_and_has_no_cut(name: str, seed: int) -> None:
    model = model_of(name, rows(400, seed)[:, :1], seed)
    with torch.no_grad():
        for parameter in model.flow.parameters():
            if name in ("nsf", "maf"):
                noise = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
                parameter.add_(0.02 * noise)
        # The midpoint rule converges fast for a periodic function, but for the bends of splines.
        x = (torch.arange(60_000, dtype=torch.float64)[:, None] + 0.5) / 2500
        assert model.log_prob(x).exp().sum() / 2500 == pytest.approx(1, abs=2e-3)
        near = 1e-9
        either = model.log_prob(column([[0.0], [24 - near], [near], [24.0], [-24.0]]))
    torch.testing.assert_close(either, either[:1].expand(5), rtol=0, atol=1e-4)


def test_a_shift_of_origin_and_data_changes_no_more_than_a_new_fit() -> None:
    x = rows(4000, 0)
    test = rows(1000, 1)
    found = []
    for shift, seed in ((0.0, 0), (0.0, 1), (7.5, 0), (12.0, 0)):
        moved, new = x.clone(), test.clone()
        moved[:, 0], new[:, 0] = (x[:, 0] + shift) % 24, (test[:, 0] + shift) % 24
        with torch.no_grad():
            found.append(float(model_of("mixture", moved, seed).log_prob(new).mean()))
    assert max(found) - min(found) < 0.03
    # The same data behind another cut.
    with torch.no_grad():
        cut = float(model_of("mixture", x, 0, Period(-5, 19)).log_prob(test).mean())
    assert abs(cut - found[0]) < 0.03


def test_a_torus_is_learnt_and_no_draw_lies_outside() -> None:
    """Two angles of known density, the second around the first: von Mises given von Mises."""
    rng = np.random.default_rng(0)

    def draw(n: int) -> Tensor:
        a = np.mod(vonmises.rvs(1.0, size=n, random_state=rng), 2 * np.pi)
        b = np.mod(a + vonmises.rvs(4.0, size=n, random_state=rng), 2 * np.pi)
        return torch.from_numpy(np.column_stack([a, b]))

    turn = Period(0, 2 * math.pi)
    config = resolve("array", "mixture", overrides={"transforms": ["standardise"]})
    encoder = build_encoder(config, ("a", "b"), circle=Circle(("a", "b"), {"a": turn, "b": turn}))
    x, test = encoder.unroll(draw(8000), rng), draw(1000)
    model = prepare(config, encoder, Rows(x[100:]), Rows(x[:100])).model.double()
    truth = vonmises.logpdf(test[:, 0], 1.0) + vonmises.logpdf(test[:, 1] - test[:, 0], 4.0)
    with torch.no_grad():
        own = model.log_prob(test)
        alone = torch.cat([model.log_prob(row) for row in torch.split(test[:20], 1)])
    torch.testing.assert_close(alone, own[:20], rtol=1e-12, atol=1e-12)
    assert (truth - own.numpy()).mean() < 0.05
    drawn, scores = model.draw_places(3000, torch.Generator().manual_seed(0))
    assert ((drawn >= 0) & (drawn < 2 * math.pi)).all()
    with torch.no_grad():
        torch.testing.assert_close(scores.log_prob, model.log_prob(drawn))
    # Draws have the distribution that densities tell: the mean of 1 / p is the area.
    assert float((-scores.log_prob).exp().mean()) == pytest.approx(4 * math.pi**2, rel=0.25)


@pytest.mark.parametrize("name", MODELS.entries)
def test_every_model_lives_on_the_circle(name: str) -> None:
    x = rows(500, 0)
    try:
        model = model_of(name, x)
    except ConfigurationError as error:
        pytest.skip(str(error))
    drawn = model.sample(200, torch.Generator().manual_seed(0))
    assert ((drawn[:, 0] >= 0) & (drawn[:, 0] < 24)).all()
    with torch.no_grad():
        again = drawn.clone()
        again[:, 0] += 24 * torch.randint(-2, 3, (200,), generator=torch.Generator().manual_seed(1))
        torch.testing.assert_close(model.log_prob(again), model.log_prob(drawn), rtol=1e-4, atol=1e-4)


def test_cells_at_the_cut_go_round() -> None:
    names = ("hour", "speed")
    cells = Dequantiser(names, {"hour": Lattice(1.0)})
    encoder = TableEncoder(names, (), cells, circle=Circle(names, {"hour": PERIODS["hour"]}))
    x = column([[0.0, 1.0], [23.0, 1.0], [24.0, 1.0], [-1.0, 1.0], [47.8, 1.0]])
    placed = encoder.dequantise(column([[0.0, 1.0]]).expand(1000, -1), np.random.default_rng(0))[:, 0]
    assert ((placed < 0.5) | (placed >= 23.5)).all() and (placed < 24).all()
    assert 400 < int((placed > 12).sum()) < 600
    for draw in range(4):
        spread = encoder.spread(x, draw, 4)
        assert torch.equal(spread[0], spread[2]) and torch.equal(spread[1], spread[3])
        assert torch.equal(spread[0], spread[4])
        assert ((spread[:, 0] >= 0) & (spread[:, 0] < 24)).all()
    drawn = column([[23.6, 1.0], [0.4, 1.0], [23.4, 1.0], [0.6, 1.0]])
    assert encoder.restore(drawn)[:, 0].tolist() == [0, 0, 23, 1]
    assert encoder.whole_box(((-3.0, 30.0), (0.0, 1.0)))[0] == (0, 24)


def test_a_value_that_is_moved_onto_an_atom_is_none() -> None:
    """360 is 0, and 0 is an atom, as a calm has it among the directions of a wind."""
    names = ("direction",)
    circle = Circle(names, {"direction": Period(0, 360)})
    encoder = TableEncoder(names, (), atoms=Atoms(names, {"direction": [0.0]}), circle=circle)
    x = column([[0.0], [360.0], [10.0]])
    rng = np.random.default_rng(0)
    for moved in (encoder.dequantise(x, rng), encoder.wrap(x), encoder.unroll(encoder.wrap(x), rng)):
        assert encoder.absent(moved).flatten().tolist() == [True, False, False]


def test_given_columns_become_cosines_and_sines() -> None:
    own = CosineAndSine({"hour": Period(0, 24), "phase": Period(-180, 180)})
    assert own.width == 4
    x = column([[0.0, -180.0], [24.0, 180.0], [6.0, -90.0], [-18.0, 630.0]])
    found = own.to_model(x)
    expected = column([[1.0, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 1], [0, 0, 1, 1]])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


def test_periods_are_read_and_refused() -> None:
    assert parse_periods("hour=24, a=b=-180:180") == {"hour": Period(0, 24), "a=b": Period(-180, 180)}
    for text, reason in itertools.chain(
        (
            (each, "takes auto, none, or periods")
            for each in ("", "24", "h=", "h=-1", "h=0", "h=2:1", "h=inf")
        ),
        [("h=1,h=2", "names `h` twice")],
    ):
        with pytest.raises(ConfigurationError, match=reason):
            parse_periods(text)
    with pytest.raises(ConfigurationError, match="unknown column `h`"):
        Circle(("hour",), {"h": Period(0, 24)})
    with pytest.raises(ConfigurationError, match="from a lower to a higher number"):
        Circle(("hour",), {"hour": Period(24, 24)})
    names = tuple("abcd")
    with pytest.raises(ConfigurationError, match="3 periodic columns"):
        Circle(names, dict.fromkeys(names, Period(0, 1)))


def test_plain_values_and_older_weights() -> None:
    assert Circle.of_values(CIRCLE.columns, CIRCLE.to_values()).periods == CIRCLE.periods == PERIODS
    fresh = Circle(CIRCLE.columns)
    assert not fresh and fresh.to_values() == {}
    fresh.load_state_dict(CIRCLE.state_dict())
    assert fresh.periods == PERIODS
    fresh.load_state_dict({})
    assert not fresh
    x = torch.randn(3, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    assert fresh.wrap(x) is x and fresh.unroll(x, np.random.default_rng(0)) is x
