"""Learning curves, and the differences of models to the best one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullLocator

from flowbench.report.figures.style import (
    INK,
    MUTED,
    Picture,
    finish,
    new_figure,
    plain_ticks,
    series_style,
    short,
)
from flowbench.report.numbers import significant
from flowbench.statistics.paired import CONFIDENCE, PairedDifference

WIDTH, HEIGHT = 4.4, 3.1
#: The NLL axis ends at this quantile of all values, since the first values can be arbitrarily bad.
TOP = 0.9
#: The time axis spans at most this ratio.
TIME_SPAN = 300
MAX_LABEL = 28
#: A model that is this many times as far behind as the median one is drawn at the edge, with its figure.
FAR = 25


@dataclass(frozen=True)
class Curve:
    """One run's values over training time: `points` are (wall seconds, value), `series` its model's index."""

    label: str
    series: int
    points: Sequence[tuple[float, float]]


def draw_curves(
    curves: Sequence[Curve], *, ylabel: str, alt: str, key: str, floor: float | None = None
) -> Picture:
    """Values against wall seconds on a logarithmic axis, one line per run; `floor` is a horizontal line."""
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    labelled: set[str] = set()
    for curve in curves:
        style = series_style(curve.series)
        label = "_" if curve.label in labelled else short(curve.label, MAX_LABEL)
        labelled.add(curve.label)
        x, y = np.array(curve.points).T
        if len(x) == 1:
            # A fit in closed form has one value.
            axes.axhline(y[0], color=style["color"], linestyle=style["linestyle"], label=label)
        else:
            axes.plot(x, y, **style, markersize=4, markevery=max(len(x) // 8, 1), label=label)
    if floor is not None:
        axes.axhline(floor, color=INK, linewidth=0.9, label="entropy of the truth")
    _set_value_limits(axes, curves, floor)
    _set_time_axis(axes, curves)
    axes.set(ylabel=ylabel)
    axes.grid(axis="y")
    figure.legend(loc="outside upper left", ncols=2, handlelength=3)
    return finish(figure, alt, key)


def draw_differences(
    models: Sequence[tuple[str, int, PairedDifference | None]], *, alt: str, key: str
) -> Picture:
    """Distance to the best model with its interval, one (label, series, difference) each, best on top.

    The difference of the best model is None, and drawn at zero. A model far behind the others is an arrow at
    the edge with its figure, so that the axis can tell the others apart.
    """
    reach = _reach([difference for _, _, difference in models if difference])
    figure = new_figure(WIDTH, 0.75 + 0.36 * len(models))
    axes = figure.add_subplot()
    axes.axvline(0, color=MUTED, linewidth=0.8)
    for position, (_, series, difference) in enumerate(models):
        style = series_style(series)
        if difference and difference.mean > reach[1]:
            axes.plot(reach[1], position, marker=">", color=style["color"], markersize=6, clip_on=False)
            axes.annotate(
                significant(difference.mean), (reach[1], position), xytext=(-7, 0),
                textcoords="offset points", ha="right", va="center",
            )  # fmt: skip
            continue
        axes.errorbar(
            difference.mean if difference else 0.0,
            position,
            xerr=difference.half_width if difference else None,
            fmt=style["marker"],
            color=style["color"],
            markersize=6,
            capsize=4,
        )
    axes.set_yticks(range(len(models)), [short(label, MAX_LABEL) for label, _, _ in models])
    axes.set_ylim(len(models) - 0.5, -0.5)
    if np.isfinite(reach[1]):
        axes.set_xlim(*reach)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    plain_ticks(axes.xaxis, 8)
    axes.grid(axis="x")
    axes.set_xlabel(f"nats per row above the best ({CONFIDENCE:.0%} interval)")
    return finish(figure, alt, key)


def _reach(differences: Sequence[PairedDifference]) -> tuple[float, float]:
    """The limits of the axis of differences; infinite unless one model is far behind the others."""
    means = np.array([difference.mean for difference in differences])
    typical = np.median(means[means > 0]) if (means > 0).any() else np.inf
    near = [each for each in differences if each.mean <= FAR * typical]
    if len(near) == len(differences):
        return -np.inf, np.inf
    # The end of an interval may be far out, too.
    farthest = max(each.mean for each in near)
    low, high = min(each.low for each in near), max(each.high for each in near)
    return max(min(low, 0.0), -farthest) - 0.05 * farthest, 1.1 * min(high, 2 * farthest)


def _set_value_limits(axes: Axes, curves: Iterable[Curve], floor: float | None) -> None:
    values = np.array([y for curve in curves for _, y in curve.points])
    last = max(curve.points[-1][1] for curve in curves)
    low = min(values.min(), values.min() if floor is None else floor)
    high = max(float(np.quantile(values, TOP, method="higher")), last)
    margin = 0.08 * (high - low) or 0.5
    axes.set_ylim(low - margin, high + margin)
    plain_ticks(axes.yaxis, 6)


def _set_time_axis(axes: Axes, curves: Iterable[Curve]) -> None:
    times = [x for curve in curves for x, _ in curve.points if len(curve.points) > 1 and x > 0]
    if times:
        axes.set_xscale("log")
        # Without this limit, the first moments would take half of the axis.
        axes.set_xlim(max(min(times), max(times) / TIME_SPAN) / 1.1, max(times) * 1.1)
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5), numticks=9))
        axes.xaxis.set_minor_locator(NullLocator())
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.set_xlabel("training time (wall seconds, logarithmic)")
