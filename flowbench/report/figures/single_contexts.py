"""Densities of one column at a single context, those of all models in one panel."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from flowbench.report.figures.style import (
    INK,
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
#: The density axis ends at this many times the median of the models' peaks. Else a spike flattens the rest.
TOP = 4.0
#: The highest log-density that is drawn, nats.
HIGHEST = 200.0


@dataclass(frozen=True)
class Slice:
    """One model's density `log_prob: (p,)`, nats, at `y: (p,)`; `series` is the model's index."""

    label: str
    series: int
    y: Floats
    log_prob: Floats

    @cached_property
    def density(self) -> Floats:
        """The density `(p,)`, per unit of the column."""
        # No axis takes numbers at the end of the range of a float64.
        return np.nan_to_num(np.exp(np.minimum(self.log_prob, HIGHEST)), nan=0.0)


def beyond_top(models: Sequence[Slice]) -> list[str]:
    """The labels of the models whose peaks are higher than the panel."""
    top = _top(models)
    return [model.label for model in models if model.density.max() > top]


def draw_slices(models: Sequence[Slice], value: float, *, column: str, alt: str, key: str) -> Picture:
    """The densities of the `models` as lines, and the `value` that came as a vertical line."""
    figure = new_figure(WIDTH, HEIGHT)
    axes = figure.add_subplot()
    top = _top(models)
    for model in models:
        style = series_style(model.series) | {"marker": ""}
        axes.plot(model.y, np.minimum(model.density, 2 * top), **style, label=short(model.label, MAX_LABEL))
    axes.axvline(value, color=INK, linewidth=0.9, label="the row's own value")
    axes.set(ylim=(0, 1.05 * top), xlabel=short(column), ylabel="density, per unit")
    plain_ticks(axes.xaxis)
    plain_ticks(axes.yaxis)
    figure.legend(loc="outside upper left", ncols=2, handlelength=3)
    return finish(figure, alt, key)


def _top(models: Sequence[Slice]) -> float:
    peaks = [float(model.density.max()) for model in models]
    return min(max(peaks), TOP * float(np.median(peaks))) or 1.0
