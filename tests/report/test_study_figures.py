"""The charts of studies show every interval, side by side, and ticks that can be read."""

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.container import ErrorbarContainer
from matplotlib.figure import Figure

from flowbench.report.figures import study_figures
from flowbench.store.findings import Chart, Series


def bar(label: str, x: float, y: float, reach: float = 1.0) -> Series:
    return Series(label, np.array([x]), np.array([y]), np.array([y - reach]), np.array([y + reach]))


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that were drawn, in place of their SVG."""
    figures: list[Figure] = []
    monkeypatch.setattr(study_figures, "finish", lambda figure, text, key: figures.append(figure))
    return figures


def axes_of(drawn: list[Figure], *series: Series) -> Axes:
    study_figures.draw_chart(Chart("A chart", "size", "error", series), key="a")
    drawn[-1].canvas.draw()
    return drawn[-1].axes[0]


def test_bars_at_one_place_stand_side_by_side_and_end_within_the_axes(drawn: list[Figure]) -> None:
    axes = axes_of(drawn, bar("a", 1.5, 0.0), bar("b", 1.5, 0.0), bar("c", 7.5, 50.0, reach=20.0))
    bars = [each for each in axes.containers if isinstance(each, ErrorbarContainer)]
    lines = [each.lines[0] for each in bars]
    pixels = [line.get_transform().transform(line.get_xydata())[0, 0] for line in lines]
    apart = study_figures.ASIDE * drawn[-1].dpi
    assert pixels[1] - pixels[0] == pytest.approx(apart)
    assert pixels[2] == pytest.approx(axes.transData.transform((7.5, 50.0))[0])
    for line, each in zip(lines, bars, strict=True):
        stem = each.lines[2][0]
        assert stem.get_transform().transform((1.5, 0)) == pytest.approx(
            line.get_transform().transform((1.5, 0))
        )
    # The last interval is far above the others, and shown all the same.
    low, high = axes.get_ylim()
    assert low < -1 and high > 70


def test_curves_still_leave_out_their_start(drawn: list[Figure]) -> None:
    x = np.arange(10.0)
    axes = axes_of(drawn, Series("a", x, np.where(x < 1, 1e6, 1.0 + x / 10)))
    assert axes.get_ylim()[1] < 3


@pytest.mark.parametrize(("places", "shown"), [((2.0, 8.0, 32.0), True), ((2.25, 8.25, 32.25), False)])
def test_ticks_stand_at_the_sizes_where_they_are_whole(
    drawn: list[Figure], places: tuple[float, ...], shown: bool
) -> None:
    axes = axes_of(drawn, *(bar(str(n), place, 1.0) for n, place in enumerate(places)))
    assert (axes.get_xticks().tolist() == list(places)) == shown
