"""The pictures of a report on time series."""

from flowbench.report.figures.curves import Curve, draw_curves
from flowbench.report.figures.series_curves import (
    MOST_COLUMNS,
    draw_bounds,
    draw_forecast,
    draw_latent,
    draw_samples,
)
from flowbench.report.figures.style import figure_style
from flowbench.report.panels import Gallery, Panel
from flowbench.report.series_sections import SeriesSection

#: Series that are pictured for each model.
MOST_CURVES = 4


def series_galleries(section: SeriesSection, key: str) -> list[Gallery]:
    """All galleries of a section; `key` is unique in the page."""
    with figure_style():
        made = [
            _forecasts(section, f"{key}-forecast"),
            _latent(section, f"{key}-latent"),
            _samples(section, f"{key}-samples"),
            _curves(section, f"{key}-curves"),
        ]
    return [gallery for gallery in made if gallery is not None]


def _time_name(section: SeriesSection) -> str:
    return str(section.record.dataset.get("time_column", "time"))


def _forecasts(section: SeriesSection, key: str) -> Gallery | None:
    panels = []
    for number, group in enumerate(section.groups):
        curves, observations = group.first.curves, group.first.observations
        if curves is None or observations is None:
            continue
        pictures = tuple(
            draw_forecast(
                curves,
                observations,
                curve,
                columns=section.results.columns,
                time_name=_time_name(section),
                alt=f"{group.label}: series {group.first.ids[curves.of_series[curve]]}, what is seen and "
                "what is predicted.",
                key=f"{key}-{number}-{curve}",
            )
            for curve in range(min(MOST_CURVES, len(curves.of_series)))
        )
        panels.append(Panel(group.label, pictures))
    if not panels:
        return None
    caption = (
        "Test series. Filled dots are seen, open ones are held out, and a dotted line stands between them. "
        "The line is the mean of the prediction, and the bands hold 50% and 90% of the probability of an "
        "observation. A dashed line is the truth without noise, where it is known."
    )
    return Gallery("Predictions", "series", tuple(panels), caption)


def _latent(section: SeriesSection, key: str) -> Gallery | None:
    panels = []
    for number, group in enumerate(section.groups):
        curves = group.first.curves
        if curves is None or curves.path is None:
            continue
        pictures = tuple(
            draw_latent(
                curves,
                curve,
                time_name=_time_name(section),
                alt=f"{group.label}: the latent state of a series over time.",
                key=f"{key}-{number}-{curve}",
            )
            for curve in range(min(MOST_CURVES, len(curves.of_series)))
        )
        panels.append(Panel(group.label, pictures))
    if not panels:
        return None
    caption = "The same series: the latent state from the mean of its posterior, a line for each dimension."
    return Gallery("Latent trajectories", "series", tuple(panels), caption)


def _samples(section: SeriesSection, key: str) -> Gallery | None:
    panels = []
    for number, group in enumerate(section.groups):
        samples = group.first.samples
        if samples is None:
            continue
        pictures = tuple(
            draw_samples(
                samples,
                place,
                column=name,
                time_name=_time_name(section),
                alt=f"{group.label}: drawn series of {name}.",
                key=f"{key}-{number}-{place}",
            )
            for place, name in enumerate(section.results.columns[:MOST_COLUMNS])
        )
        panels.append(Panel(group.label, pictures))
    caption = "New series that were drawn from each model, noise included."
    return Gallery("Drawn series", "series", tuple(panels), caption) if panels else None


def _curves(section: SeriesSection, key: str) -> Gallery | None:
    curves = [
        Curve(group.label, number, points)
        for number, group in enumerate(section.groups)
        for record in group.records
        if (points := record.series("validation_nll"))
    ]
    panels = []
    if curves:
        alt = "Validation NLL of each model over training time."
        picture = draw_curves(curves, ylabel="validation NLL of a series, nats", alt=alt, key=key)
        panels.append(Panel("Learning curves", (picture,)))
    bounds = [
        (group.label, number, scored.draws.astype(float), -scored.bound.mean(1))
        for number, group in enumerate(section.groups)
        if (scored := group.first.scored).draws is not None and scored.bound is not None
    ]
    if bounds:
        alt = "The bound on the NLL falls with the number of draws."
        panels.append(Panel("Bounds", (draw_bounds(bounds, alt=alt, key=f"{key}-bounds"),)))
    return Gallery("Training", "curves", tuple(panels)) if panels else None
