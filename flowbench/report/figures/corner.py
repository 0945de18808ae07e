"""More than two columns: samples against data, column by column and pair by pair."""

from collections.abc import Sequence

import numpy as np
import seaborn
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap, to_rgba
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, PathPatch
from matplotlib.path import Path

from flowbench.report.figures.style import (
    INK,
    SAMPLES,
    Picture,
    finish,
    frame,
    new_figure,
    plain_ticks,
    short,
)
from flowbench.report.numbers import plural
from flowbench.statistics.paired import Floats

MAX_COLUMNS = 6
MAX_DOTS = 200
BINS = 28
#: Length of a dot as a share of the axis, too short to be seen.
DOT = 2e-3
#: Share of the data of each column that may lie outside the frame, at either end.
BEYOND = 0.005

Limits = tuple[float, float]


def corner_limits(data: Floats) -> list[Limits]:
    """Limits of the first `MAX_COLUMNS` columns of `data: (n, d)`, the same for every model's figure."""
    limits = []
    for column in data[:, :MAX_COLUMNS].T:
        low, high = np.quantile(column, [BEYOND, 1 - BEYOND])
        margin = 0.15 * (high - low) or 1.0
        limits.append((float(low - margin), float(high + margin)))
    return limits


def draw_corner(
    names: Sequence[str], limits: Sequence[Limits], data: Floats, samples: Floats, *, what: str, key: str
) -> Picture:
    """Lower triangle of panels for `data: (n, d)` and `samples: (m, d)`, as many columns as `limits`."""
    size = len(limits)
    side = {1: 3.4, 2: 2.0, 3: 1.6, 4: 1.3, 5: 1.1}.get(size, 0.95)
    figure = new_figure(0.6 + side * size, 0.75 + side * size)
    grid = figure.subplots(size, size, squeeze=False)
    for row in range(size):
        for column in range(size):
            axes = grid[row, column]
            if column > row:
                axes.set_axis_off()
            elif column == row:
                _draw_marginal(axes, data[:, row], samples[:, row], limits[row])
            else:
                _draw_pair(
                    axes, data[:, [column, row]], samples[:, [column, row]], limits[column], limits[row]
                )
            _label(axes, names, row, column, size)
    figure.legend(
        handles=[
            Patch(color=SAMPLES, alpha=0.6, label=plural(len(samples), "sample")),
            Line2D(
                [],
                [],
                color=INK,
                linewidth=1.1,
                marker=".",
                markersize=4,
                label=plural(len(data), "test row"),
            ),
        ],
        loc="outside upper left",
        ncols=2,
    )
    shown = ", ".join(short(name) for name in names[:size])
    alt = f"Corner plot of test rows against samples of {what}, columns {shown}."
    return finish(figure, alt, key)


def _draw_marginal(axes: Axes, data: Floats, samples: Floats, limits: Limits) -> None:
    bins = int(np.clip(1.5 * np.sqrt(len(data)), 8, BINS))
    edges = np.linspace(*limits, bins + 1)
    shared = {"bins": edges, "stat": "density", "ax": axes, "element": "step"}
    seaborn.histplot(x=_within(samples, limits), color=SAMPLES, alpha=0.55, linewidth=0, **shared)
    seaborn.histplot(x=_within(data, limits), color=INK, fill=False, linewidth=1.1, **shared)
    axes.set(xlim=limits, yticks=[])


def _draw_pair(axes: Axes, data: Floats, samples: Floats, x: Limits, y: Limits) -> None:
    edges = [np.linspace(*x, BINS + 1), np.linspace(*y, BINS + 1)]
    counts, _, _ = np.histogram2d(samples[:, 0], samples[:, 1], bins=edges)
    # One colour of growing opacity reads on light and on dark ground, and in grey.
    shades = LinearSegmentedColormap.from_list("samples", [to_rgba(SAMPLES, 0.0), to_rgba(SAMPLES, 1.0)])
    axes.imshow(
        np.sqrt(counts).T,
        origin="lower",
        extent=(*x, *y),
        cmap=shades,
        aspect="auto",
        interpolation="nearest",
    )
    axes.add_patch(_dots(data[:MAX_DOTS], DOT * (x[1] - x[0])))
    axes.set(xlim=x, ylim=y)


def _dots(points: Floats, length: float) -> PathPatch:
    """Dots at `points: (n, 2)` as a single path; an SVG element for each would make the page far larger.

    Each dot is a line with round ends. It needs a `length`, as matplotlib draws no line without one.
    """
    codes = np.tile([Path.MOVETO, Path.LINETO], len(points))
    outline = Path(np.repeat(points, 2, axis=0) + np.tile([[0, 0], [length, 0]], (len(points), 1)), codes)
    return PathPatch(outline, fill=False, edgecolor=INK, linewidth=1.2, capstyle="round")


def _label(axes: Axes, names: Sequence[str], row: int, column: int, size: int) -> None:
    frame(axes)
    axes.tick_params(labelsize=7.5)
    plain_ticks(axes.xaxis, 2)
    axes.set(xlabel="", ylabel="")
    if row == size - 1:
        axes.set_xlabel(short(names[column], 14))
    else:
        axes.tick_params(labelbottom=False)
    if column < row:
        plain_ticks(axes.yaxis, 2)
    if column == 0 and row > 0:
        axes.set_ylabel(short(names[row], 14))
    elif column < row:
        axes.tick_params(labelleft=False)


def _within(values: Floats, limits: Limits) -> Floats:
    return values[(values >= limits[0]) & (values <= limits[1])]
