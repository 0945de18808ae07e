"""Lines through points, against numpy's normal equations and against draws with a known slope."""

import numpy as np
import pytest

from flowbench.errors import DataError
from flowbench.statistics.lines import fit_line


def test_the_line_solves_the_normal_equations() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=20), rng.normal(size=20)
    line = fit_line(x, y)
    design = np.stack([np.ones(20), x], axis=1)
    expected, *_ = np.linalg.lstsq(design, y, rcond=None)
    np.testing.assert_allclose([line.intercept, line.slope], expected, rtol=1e-12)


def test_the_interval_covers_the_slope() -> None:
    """Of 2,000 intervals at 95%, all but about 100 hold the slope that the points were drawn with."""
    rng = np.random.default_rng(0)
    x = np.array([1.0, 2.0, 4.0, 8.0, 8.0])
    lines = [fit_line(x, 3 - 0.5 * x + rng.normal(size=5)) for _ in range(2000)]
    covered = sum(line.low <= -0.5 <= line.high for line in lines)
    assert abs(covered - 1900) < 4 * (2000 * 0.95 * 0.05) ** 0.5


def test_few_points_and_equal_values() -> None:
    exact = fit_line(np.array([1.0, 2.0, 5.0]), np.full(3, 0.1))
    assert (exact.slope, exact.low, exact.high, exact.intercept) == (0, 0, 0, 0.1) and exact.is_level
    two = fit_line(np.array([1.0, 2.0]), np.array([1.0, 3.0]))
    assert two.slope == pytest.approx(2) and two.is_level
    with pytest.raises(DataError, match="two places"):
        fit_line(np.ones(3), np.arange(3.0))
