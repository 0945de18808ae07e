"""Densities at single contexts: what a panel shows, and what it says that it does not show."""

import numpy as np
import pytest
from scipy.stats import norm

from flowbench.report.figures.single_contexts import Slice, beyond_top, draw_slices
from flowbench.report.figures.style import figure_style


def peak(label: str, width: float, series: int = 0) -> Slice:
    y = np.linspace(-3, 3, 401)
    return Slice(label, series, y, norm(0, width).logpdf(y))


def test_a_spike_is_cut_and_named() -> None:
    models = [peak("a", 1.0), peak("b", 0.9, 1), peak("c", 0.01, 2)]
    assert beyond_top(models) == ["c"]
    assert beyond_top(models[:2]) == []


@pytest.mark.parametrize("log_prob", [np.full(401, -np.inf), np.full(401, np.nan), np.full(401, 1e4)])
def test_densities_without_a_shape_are_drawn_all_the_same(log_prob: np.ndarray) -> None:
    odd = Slice("odd", 1, np.linspace(-3, 3, 401), log_prob)
    with figure_style():
        picture = draw_slices([peak("a", 1.0), odd], 0.3, column="y", alt="What it shows.", key="k")
    assert "What it shows." in picture.svg and "the row's own value" in picture.svg
