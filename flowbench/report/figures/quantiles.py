"""Calibration curves: the distance of quantile transforms of held-out rows from uniform."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from flowbench.report.figures.style import (
    MUTED,
    RULE,
    Picture,
    finish,
    new_figure,
    plain_ticks,
    series_style,
    short,
)
from flowbench.statistics.paired import Floats

WIDTH, HEIGHT = 4.4, 3.1
MAX_LABEL = 28
#: Points of a curve.
POINTS = 200


@dataclass(frozen=True)
class Quantiles:
    """One model's `values: (n,)` in [0, 1]; `series` is the model's index."""

    label: str
    series: int
    values: Floats


def draw_calibration(
    models: Sequence[Quantiles], *, band: float, xlabel: str, ylabel: str, alt: str, key: str
) -> Picture:
    """Each model's distribution function minus the uniform one, with the `band` within which chance lies."""
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    at = np.linspace(0, 1, POINTS)
    axes.axhspan(-band, band, color=RULE, linewidth=0, zorder=0)
    axes.axhline(0, color=MUTED, linewidth=0.8)
    reach = 2 * band
    for model in models:
        above = np.searchsorted(np.sort(model.values), at, side="right") / len(model.values) - at
        reach = max(reach, float(np.abs(above).max()))
        axes.plot(
            at,
            above,
            **series_style(model.series),
            markersize=4,
            markevery=POINTS // 8,
            label=short(model.label, MAX_LABEL),
        )
    axes.set(xlim=(0, 1), ylim=(-1.1 * reach, 1.1 * reach), xlabel=xlabel, ylabel=ylabel)
    plain_ticks(axes.yaxis, 6)
    figure.legend(loc="outside upper left", ncols=2, handlelength=3)
    return finish(figure, alt, key)
