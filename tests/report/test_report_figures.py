"""Axes that show what tells models apart."""

from flowbench.report.figures.curves import Curve, draw_curves, draw_differences
from flowbench.report.figures.style import figure_style
from flowbench.statistics.paired import PairedDifference


def behind(mean: float, half_width: float) -> PairedDifference:
    low, high = mean - half_width, mean + half_width
    return PairedDifference(mean, half_width / 2, low, high, 100, low, high, p_value=0.01, p_adjusted=0.02)


def test_a_model_far_behind_leaves_the_others_their_places() -> None:
    models = [
        ("nsf", 0, None),
        ("cnf", 1, behind(0.05, 0.06)),
        ("planar", 2, behind(0.2, 0.05)),
        ("maf", 3, behind(1.6e10, 3.1e10)),
    ]
    with figure_style():
        svg = draw_differences(models, alt="differences", key="d").svg
    for text in ("1.6e10", ">0.10<", ">0.20<"):
        assert text in svg


def test_a_curve_of_few_points_is_shown_whole() -> None:
    with figure_style():
        svg = draw_curves(
            [Curve("cnf", 0, [(10, 3.0), (20, 1.1), (30, 1.0)])], ylabel="loss", alt="loss", key="c"
        ).svg
    assert ">3.0<" in svg
