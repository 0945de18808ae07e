"""The support of columns: onto the whole line and back, also from and to the ends of float64."""

import math
from collections.abc import Mapping

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowbench.data.lattice import Lattice
from flowbench.data.schema import Support
from flowbench.encoding.support_map import SupportMap, to_cells
from flowbench.errors import ConfigurationError

ENDS = {
    "free": (-math.inf, math.inf),
    "positive": (0.0, math.inf),
    "above": (2.5, math.inf),
    "below": (-math.inf, -3.0),
    "share": (0.0, 1.0),
    "angle": (-180.0, 180.0),
    "far": (1e6, 1e6 + 1),
    "tiny": (0.0, 1e-300),
}
NAMES = tuple(ENDS)


def support(ends: Mapping[str, tuple[float, float]] = ENDS) -> SupportMap:
    return SupportMap(tuple(ends), {name: Support(*each) for name, each in ends.items()})


def rows(column: torch.Tensor) -> torch.Tensor:
    return column[:, None].expand(-1, len(NAMES)).contiguous()


@given(st.lists(st.floats(-750, 1e5), min_size=1, max_size=20))
def test_the_line_is_mapped_into_the_support_and_back(values: list[float]) -> None:
    u = rows(torch.tensor(values, dtype=torch.float64))
    x, log_slope = support().to_rows(u)
    assert support().holds(x).all() and x.isfinite().all()
    again, log_back = support().to_line(x)
    assert again.isfinite().all() and not log_back.isnan().any()
    # What float64 tells apart near an end: the distance from it has to be many units in its last place.
    for number, (low, high) in enumerate(ENDS.values()):
        nearest = torch.minimum(x[:, number] - low, high - x[:, number]).abs()
        unit = x[:, number].abs() - torch.nextafter(x[:, number].abs(), torch.zeros(()).double())
        clear = ((nearest > 1e6 * unit) & (nearest > 1e-290)) | (nearest == math.inf)
        if low == 0 and high == math.inf:
            assert clear[u[:, number] > -600].all()
        torch.testing.assert_close(again[clear, number], u[clear, number], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_back[clear, number], -log_slope[clear, number], rtol=1e-5, atol=1e-5)


def test_the_log_determinants_are_those_of_autodiff() -> None:
    u = rows(torch.linspace(-6, 6, 25, dtype=torch.float64)).requires_grad_()
    x, log_slope = support().to_rows(u)
    (slope,) = torch.autograd.grad(x.sum(), u)
    torch.testing.assert_close(log_slope, slope.log(), rtol=1e-9, atol=1e-9)
    inside = x.detach()[:, : NAMES.index("far")].requires_grad_()
    few = support({name: ENDS[name] for name in NAMES[: NAMES.index("far")]})
    line, log_back = few.to_line(inside)
    (slope,) = torch.autograd.grad(line.sum(), inside)
    torch.testing.assert_close(log_back, slope.log(), rtol=1e-9, atol=1e-9)


def test_densities_on_the_line_become_densities_on_the_support() -> None:
    """A standard logistic on the line is uniform on an interval, and exponential-like beyond one end."""
    x = torch.linspace(-170, 170, 41, dtype=torch.float64)[:, None]
    u, log_slope = support({"angle": (-180, 180)}).to_line(x)
    logistic = -u - 2 * torch.log1p(torch.exp(-u))
    torch.testing.assert_close((logistic + log_slope).exp(), torch.full_like(x, 1 / 360))
    # A sigmoid of the line is 1 - exp(-x / unit): so a logistic there is exponential.
    x = torch.linspace(0.1, 9, 41, dtype=torch.float64)[:, None]
    for sign in (1, -1):
        own = support({"x": (0, math.inf) if sign > 0 else (-math.inf, 0)})
        own.fit(sign * torch.arange(3.0, 33, dtype=torch.float64)[:, None] - 2 * sign)
        u, log_slope = own.to_line(sign * x)
        logistic = -u - 2 * torch.log1p(torch.exp(-u))
        torch.testing.assert_close((logistic + log_slope).exp(), torch.exp(-x / 3) / 3)


def test_far_from_an_end_a_column_stays_as_it_is() -> None:
    own = support({"x": (5.0, math.inf)})
    own.fit(torch.arange(6.0, 26, dtype=torch.float64)[:, None])
    x = torch.tensor([[100.0], [1e9], [1e300]], dtype=torch.float64)
    u, log_slope = own.to_line(x)
    torch.testing.assert_close(u, (x - 5) / 2)
    torch.testing.assert_close(log_slope, torch.full_like(x, -math.log(2)))
    back, log_back = own.to_rows(u)
    torch.testing.assert_close(back, x)
    torch.testing.assert_close(log_back, torch.full_like(x, math.log(2)))


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("positive", [0.0, -1e-300, -5.0, -math.inf]),
        ("below", [-3.0, 0.0, 1e300]),
        ("share", [0.0, 1.0, -0.1, 1.1]),
        ("angle", [180.0, 1e9]),
    ],
)
def test_there_is_no_density_outside(name: str, values: list[float]) -> None:
    own = support({name: ENDS[name]})
    x = torch.tensor(values, dtype=torch.float64)[:, None]
    u, log_slope = own.to_line(x)
    assert not own.holds(x).any()
    assert (log_slope == -math.inf).all() and (u == 0).all()


def test_columns_without_ends_stay_as_they_are() -> None:
    free = SupportMap(NAMES)
    assert not free and free.supports == {} and free.to_values() == {}
    x = torch.randn(5, len(NAMES), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    for mapped, log_slope in (free.to_line(x), free.to_rows(x)):
        assert torch.equal(mapped, x) and not log_slope.any()
    # Nor is it asked there whether a cell is a number; that is the affair of what follows.
    odd = torch.full_like(x, math.nan)
    assert free.holds(odd).all() and support().holds(odd).tolist()[0] == [name == "free" for name in NAMES]
    mixed = support()
    assert torch.equal(mixed.to_rows(x)[0][:, 0], x[:, 0])


def test_plain_values_and_states_come_back() -> None:
    own = support()
    assert own and list(own.supports) == [name for name in NAMES if name != "free"]
    again = SupportMap.of_values(NAMES, own.to_values())
    assert again.supports == own.supports
    other = SupportMap(NAMES)
    other.load_state_dict(own.state_dict())
    assert other.supports == own.supports
    # Weights from before columns had a support.
    old = support()
    old.load_state_dict({})
    assert not old


@pytest.mark.parametrize("ends", [(1.0, 1.0), (2.0, 1.0), (math.nan, 1.0), (-1e308, 1e308)])
def test_ends_that_are_no_interval_are_refused(ends: tuple[float, float]) -> None:
    with pytest.raises(ConfigurationError, match="the support of `x` must go from a lower"):
        support({"x": ends})
    with pytest.raises(ConfigurationError, match=r"support: .*`y`"):
        SupportMap(("x",), {"y": Support(0.0, 1.0)})


def test_draws_never_leave_the_support() -> None:
    generator = np.random.default_rng(0)
    u = torch.from_numpy(generator.standard_cauchy((20_000, len(NAMES))) * 50)
    assert support().holds(support().to_rows(u)[0]).all()


@pytest.mark.parametrize(
    ("support", "lattice", "holds_ends", "expected"),
    [
        (Support(0.0), Lattice(1.0), True, Support(-0.5)),
        (Support(0.0), Lattice(1.0), False, Support(0.5)),
        (Support(-0.5), Lattice(1.0), False, Support(-0.5)),
        (Support(0.0, 10.0), Lattice(0.5), True, Support(-0.25, 10.25)),
        (Support(0.0, 10.0), Lattice(0.5), False, Support(0.25, 9.75)),
        (Support(-math.inf, 2.2), Lattice(1.0, 0.5), False, Support(-math.inf, 2.0)),
    ],
)
def test_supports_of_places_are_those_of_whole_cells(
    support: Support, lattice: Lattice, holds_ends: bool, expected: Support
) -> None:
    found = to_cells(support, lattice, holds_ends=holds_ends)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high))
    # Every place of a cell inside has room, and no other value does.
    for value, end in ((found.low, 1), (found.high, -1)):
        if math.isfinite(value):
            assert (value - (expected.low if end > 0 else expected.high)) * end < 0
