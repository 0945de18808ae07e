"""The coefficients of each method: order conditions (Butcher 1963) and rate of convergence."""

import pytest
import torch
from torch import Tensor

from flowbench.ode import dense_output
from flowbench.ode.native_engine import TABLEAUX, Method
from flowbench.ode.tableau import DOPRI5, TSIT5, Tableau

ORDERS: dict[Method, int] = {"dopri5": 5, "tsit5": 5, "rk4": 4, "heun": 2, "midpoint": 2, "euler": 1}
METHODS = pytest.mark.parametrize("method, order", ORDERS.items())
PAIRS = pytest.mark.parametrize("pair", [DOPRI5, TSIT5], ids=["dopri5", "tsit5"])


def matrix(tableau: Tableau) -> tuple[Tensor, Tensor, Tensor]:
    """a (s, s), b (s,) and c (s,)."""
    size = len(tableau.solution)
    a = torch.zeros(size, size, dtype=torch.float64)
    for number, row in enumerate(tableau.stages, start=1):
        a[number, :number] = torch.tensor(row, dtype=torch.float64)
    b, c = (torch.tensor(v, dtype=torch.float64) for v in (tableau.solution, (0.0, *tableau.nodes)))
    return a, b, c


def conditions(a: Tensor, c: Tensor) -> list[tuple[int, Tensor, float]]:
    """Order, vector phi and 1 / gamma of every rooted tree up to order 5: b^T phi = 1 / gamma."""
    ac, acc, aac = a @ c, a @ c**2, a @ (a @ c)
    return [
        (1, c**0, 1),
        (2, c, 1 / 2),
        (3, c**2, 1 / 3), (3, ac, 1 / 6),
        (4, c**3, 1 / 4), (4, c * ac, 1 / 8), (4, acc, 1 / 12), (4, aac, 1 / 24),
        (5, c**4, 1 / 5), (5, c**2 * ac, 1 / 10), (5, ac**2, 1 / 20), (5, c * acc, 1 / 15),
        (5, a @ c**3, 1 / 20), (5, c * aac, 1 / 30), (5, a @ (c * ac), 1 / 40), (5, a @ acc, 1 / 60),
        (5, a @ aac, 1 / 120),
    ]  # fmt: skip


def step(tableau: Tableau, t: float, h: float, y: Tensor) -> Tensor:
    """One step of a nonlinear equation that depends on time, written as in a textbook."""
    a, b, c = matrix(tableau)
    slopes: list[Tensor] = []
    for row, node in zip(a, c, strict=True):
        at = y + h * sum((weight * k for weight, k in zip(row, slopes, strict=False)), torch.zeros_like(y))
        slopes.append(-2 * (t + h * float(node)) * at.square())
    return y + h * sum((weight * k for weight, k in zip(b, slopes, strict=True)), torch.zeros_like(y))


def test_every_method_has_an_order_above() -> None:
    assert set(ORDERS) == set(TABLEAUX)


@METHODS
def test_order_conditions(method: Method, order: int) -> None:
    a, b, c = matrix(TABLEAUX[method])
    torch.testing.assert_close(a.sum(1), c, atol=1e-13, rtol=0)
    for tree, phi, value in conditions(a, c):
        if tree <= order:
            assert float(b @ phi) == pytest.approx(value, abs=1e-13)
    if order < 5:
        assert any(
            abs(float(b @ phi) - value) > 1e-3 for tree, phi, value in conditions(a, c) if tree > order
        )


@PAIRS
def test_embedded_methods_are_of_order_four(pair: Tableau) -> None:
    a, _, c = matrix(pair)
    assert pair.first_same_as_last and pair.error is not None
    error = torch.tensor(pair.error, dtype=torch.float64)
    for tree, phi, _ in conditions(a, c):
        assert tree > 4 or abs(float(error @ phi)) < 1e-13
    assert max(abs(float(error @ phi)) for _, phi, _ in conditions(a, c)) > 1e-5


@METHODS
def test_convergence_order_by_regression(method: Method, order: int) -> None:
    """y' = -2 t y^2 from y(0) = 1 ends at 1 / (1 + t^2)."""
    counts = torch.tensor([40.0, 60.0, 80.0, 120.0], dtype=torch.float64)
    errors = []
    for count in counts.int().tolist():
        y = torch.ones((), dtype=torch.float64)
        for number in range(count):
            y = step(TABLEAUX[method], 1.5 * number / count, 1.5 / count, y)
        errors.append((y - 1 / 3.25).abs())
    x, y = counts.log(), torch.stack(errors).log()
    rate = ((x - x.mean()) * (y - y.mean())).sum() / (x - x.mean()).square().sum()
    assert float(rate) == pytest.approx(-order, abs=0.3)


# Dense output ---------------------------------------------------------------------------------------


@PAIRS
def test_dense_output_of_the_pairs_is_of_order_four(pair: Tableau) -> None:
    """b(theta)^T phi = theta^order / gamma of every tree up to that order; the solution at theta = 1."""
    a, b, c = matrix(pair)
    theta = torch.linspace(0, 1, 21, dtype=torch.float64)
    shares = dense_output.weights(pair, theta)
    for tree, phi, value in conditions(a, c):
        if tree <= 4:
            torch.testing.assert_close(shares @ phi, value * theta**tree, atol=1e-13, rtol=0)
    assert any(
        (shares @ phi - value * theta**tree).abs().max() > 1e-4
        for tree, phi, value in conditions(a, c)
        if tree == 5
    )
    torch.testing.assert_close(shares[-1], b, atol=1e-13, rtol=0)
    # And the slopes of the polynomial at both ends are those of the solution.
    slopes = torch.tensor(pair.dense, dtype=torch.float64)
    ends = torch.eye(len(b), dtype=torch.float64)[[0, -1]]
    torch.testing.assert_close(slopes[:, 0], ends[0])
    torch.testing.assert_close(slopes @ torch.arange(1.0, 5.0).double(), ends[1], atol=1e-12, rtol=0)


@METHODS
def test_stages_that_an_answer_weighs(method: Method, order: int) -> None:
    """Of the solution and its error; of dense output too, by its weights."""
    tableau = TABLEAUX[method]
    weighed = torch.tensor(tableau.solution) != 0
    if tableau.error is not None:
        weighed |= torch.tensor(tableau.error) != 0
    assert tableau.weighs(dense=False) == tuple(weighed.tolist())
    within = dense_output.weights(tableau, torch.tensor([0.3, 0.7]))[:, : len(weighed)]
    assert tableau.weighs(dense=True) == tuple((weighed | (within != 0).any(0)).tolist())


def test_cubics_are_those_of_hermite() -> None:
    """Where a step's end and its slopes are those of a cubic, dense output is that cubic."""
    theta = torch.linspace(0, 1, 9, dtype=torch.float64)
    for tableau in (TABLEAUX[method] for method in ORDERS if TABLEAUX[method].dense is None):
        assert dense_output.needs_end_slope(tableau)
        shares = dense_output.weights(tableau, theta)
        # y = theta^3 - 2 theta^2 + 5 theta from 0 to 4, with slopes 5 at the start and 4 at the end.
        inner = torch.zeros(len(tableau.solution), dtype=torch.float64)
        inner[0] = 5
        weights = torch.tensor(tableau.solution, dtype=torch.float64)
        if len(inner) > 1:
            # The method's own stages are such that the step ends where the cubic does.
            inner[1] = (4 - 5 * weights[0]) / weights[1]
            expected = theta**3 - 2 * theta**2 + 5 * theta
        else:
            # Euler's step ends at 5.
            expected = -(theta**3) + theta**2 + 5 * theta
        got = shares @ torch.cat([inner, torch.full((1,), 4.0, dtype=torch.float64)])
        torch.testing.assert_close(got, expected)
