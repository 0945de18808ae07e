"""One section of the page: which figures a data set gets, and what is written beside them."""

from collections.abc import Sequence

from flowbench.report.conditional_views import slice_gallery, slice_plane_gallery
from flowbench.report.figures.corner import MAX_COLUMNS, corner_limits, draw_corner
from flowbench.report.figures.curves import Curve, draw_curves, draw_differences
from flowbench.report.figures.planes import (
    MAX_DOTS,
    Plane,
    draw_colour_bar,
    draw_density,
    draw_dots,
    shared_plane,
)
from flowbench.report.figures.quantiles import Quantiles, draw_calibration
from flowbench.report.figures.rank_lines import draw_ranks
from flowbench.report.figures.sample_paths import draw_paths, path_plane
from flowbench.report.figures.style import TOLD_APART, short
from flowbench.report.grouping import Section
from flowbench.report.numbers import listed, plural
from flowbench.report.panels import Gallery, Panel, seeds_shown, shown_runs, told_apart
from flowbench.report.ranking import Ranking
from flowbench.statistics.calibration import effective_rows, least_uniform, simultaneous_band
from flowbench.statistics.paired import Floats
from flowbench.store import Grid

#: Quantiles of a column given another that are drawn over its density.
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def galleries(section: Section, key: str) -> list[Gallery]:
    """All galleries of a section; `key` is unique in the page."""
    made = [
        _differences(section, f"{key}-differences"),
        _plane_gallery(section, f"{key}-plane"),
        slice_gallery(section, f"{key}-slices"),
        slice_plane_gallery(section, f"{key}-slice-planes"),
        _corner_gallery(section, f"{key}-corner"),
        *_path_galleries(section, f"{key}-paths"),
        _calibration(section, f"{key}-calibration"),
        _curves(section, f"{key}-curves"),
    ]
    return [gallery for gallery in made if gallery is not None]


def rank_gallery(ranking: Ranking) -> Gallery:
    """The critical-difference diagram of the whole report."""
    alt = "Average rank of each model over the data sets, with a bar under those not told apart."
    return Gallery("", "single", (Panel("", (draw_ranks(ranking, alt=alt, key="ranks"),)),))


def _differences(section: Section, key: str) -> Gallery | None:
    models = [
        (model.label, series, difference)
        for series, (model, difference) in enumerate(zip(section.models, section.differences, strict=True))
        if model is section.best or difference is not None
    ]
    if len(models) < 2:
        return None
    alt = f"Test NLL of each model above that of {section.best.label}, with intervals, as in the table."
    return Gallery("", "single", (Panel("", (draw_differences(models, alt=alt, key=key),)),))


def _plane_gallery(section: Section, key: str) -> Gallery | None:
    grids = _grids(section)
    if not grids:
        return None
    names = section.whole_names[0], section.whole_names[1]
    plane = shared_plane(names, grids, given=bool(section.given))
    panels = [_truth_panel(section, plane, grids, key)]
    known = panels[0].title == "truth"
    rows = None if known else section.whole_rows
    quantiles = QUANTILES if section.given else ()
    for number, (model, run) in enumerate(shown_runs(section)):
        name, grid, samples = f"{key}-{number}", run.results.grid, run.samples
        pictures = [draw_dots(plane, samples, what=f"samples of {model.label}", key=f"{name}-samples")]
        if grid is not None:
            density = draw_density(
                plane,
                grid,
                grid.log_prob,
                what=model.label,
                key=f"{name}-density",
                rows=rows,
                quantiles=quantiles,
            )
            pictures.insert(0, density)
        panels.append(Panel(model.label, tuple(pictures), _describe_dots(plane, samples, "sample")))
    ground = "" if known else " Circles on the densities are the test rows; the true density is not known."
    what = f"density of {section.columns[0]} given {section.given[0]}" if section.given else "density"
    lines = f" Lines: its {listed([f'{100 * q:.0f}%' for q in quantiles])} quantiles." if quantiles else ""
    caption = (
        f"Each model's {what}, on one colour scale, and up to {MAX_DOTS:,} rows drawn from it.{ground}{lines}"
        f"{seeds_shown(section)}"
    )
    return Gallery(
        "Densities and samples",
        "pairs",
        tuple(panels),
        caption,
        draw_colour_bar(plane, key=f"{key}-scale"),
        f"probability density, per unit of {section.columns[0] if section.given else 'both columns'}",
    )


def _truth_panel(section: Section, plane: Plane, grids: Sequence[Grid], key: str) -> Panel:
    dots = draw_dots(plane, section.whole_rows, what="test rows", key=f"{key}-data", data=True)
    note = _describe_dots(plane, section.whole_rows, "test row")
    for grid in grids:
        if grid.true_log_prob is not None:
            truth = draw_density(plane, grid, grid.true_log_prob, what="the truth", key=f"{key}-truth")
            return Panel("truth", (truth, dots), note)
    return Panel("test rows", (dots,), note)


def _grids(section: Section) -> list[Grid]:
    """The tabulated densities of the pictured runs, if there are two columns; one of them may be given."""
    grids = [run.results.grid for _, run in shown_runs(section)]
    return [grid for grid in grids if grid is not None] if len(section.whole_names) == 2 else []


def _describe_dots(plane: Plane, points: Floats, noun: str) -> str:
    """How many of the dots of a panel there are, and how many of them are not seen."""
    shown = points[:MAX_DOTS]
    part = f"{len(shown):,} of " if len(shown) < len(points) else ""
    outside = plane.outside(shown)
    beyond = f", {outside:,} outside" if outside else ""
    return f"{part}{plural(len(points), noun)}{beyond}"


def _corner_gallery(section: Section, key: str) -> Gallery | None:
    if _grids(section):
        return None
    if not len(section.whole_rows):
        return None
    limits = corner_limits(section.whole_rows)
    panels = []
    for number, (model, run) in enumerate(shown_runs(section)):
        samples = run.samples
        picture = draw_corner(
            section.whole_names, limits, section.whole_rows, samples, what=model.label, key=f"{key}-{number}"
        )
        panels.append(Panel(model.label, (picture,)))
    left_out = section.whole_names[MAX_COLUMNS:]
    caption = (
        "Outlines and dots are the test rows, filled shades the samples: column by column on the diagonal, "
        "pair by pair below it."
    )
    if section.categorical:
        caption += f" Categories are left out: {listed(list(section.categorical))}."
    elif section.given:
        caption += f" Each sample was drawn for the {listed(list(section.given))} of a test row."
    if left_out:
        caption += f" Shown are the first {MAX_COLUMNS} columns; left out: {', '.join(map(short, left_out))}."
    return Gallery("Data against samples", "corner", tuple(panels), caption + seeds_shown(section))


def _path_galleries(section: Section, key: str) -> list[Gallery]:
    shown = [(m, r.results.trajectory) for m, r in shown_runs(section) if r.results.trajectory is not None]
    if len(section.columns) < 2 or not shown:
        return []
    plane = path_plane((section.columns[0], section.columns[1]), [trajectory for _, trajectory in shown])
    columns = len(section.columns)
    which = f" Only the first two of {columns} columns are shown." if columns > 2 else ""
    return [
        Gallery(
            f"From base to data: {model.label}",
            "small",
            tuple(
                Panel(title, (picture,))
                for title, picture in draw_paths(plane, trajectory, what=model.label, key=f"{key}-{number}")
            ),
            f"Time 0 is the base, time 1 the data; {short(section.columns[0])} runs to the right and "
            f"{short(section.columns[1])} upwards. Colour: how far right a particle began.{which}",
        )
        for number, (model, trajectory) in enumerate(shown)
    ]


def _calibration(section: Section, key: str) -> Gallery | None:
    """How far held-out rows are from where each model expects them, with the band that chance allows."""
    found = [
        (number, model.label, run.results.calibration)
        for number, (model, run) in enumerate(shown_runs(section))
        if run.results.calibration is not None
    ]
    if not found:
        return None
    told = told_apart(len(found))
    found = found[:TOLD_APART]
    rows = min(len(each.density_rank) for _, _, each in found)
    draws = min(len(run.results.samples.log_prob) for _, run in shown_runs(section))
    # Where the regions end is known from draws only. A row of a conditional model has draws of its own.
    told_by = rows if section.given else effective_rows(rows, draws)
    ranks = [Quantiles(label, number, each.density_rank) for number, label, each in found]
    panels = [
        Panel(
            "highest-density regions",
            (
                draw_calibration(
                    ranks,
                    band=simultaneous_band(told_by, 1),
                    xlabel="share of the density inside",
                    ylabel="rows inside, beyond that",
                    alt="For each model, the share of held-out rows in its highest-density regions, less the "
                    "share of the density that they hold.",
                    key=f"{key}-ranks",
                ),
            ),
        )
    ]
    flows = [
        (number, label, each.radial_quantile, least_uniform(each.column_quantile))
        for number, label, each in found
        if each.radial_quantile is not None and each.column_quantile is not None
    ]
    if flows:
        radii = draw_calibration(
            [Quantiles(label, number, radius) for number, label, radius, _ in flows],
            band=simultaneous_band(rows, 1),
            xlabel="quantile of the distance from the middle",
            ylabel="rows below, beyond that",
            alt="For each flow, how many base points lie closer to the middle than they should.",
            key=f"{key}-radii",
        )
        columns = draw_calibration(
            [Quantiles(label, number, column) for number, label, _, column in flows],
            # It holds for all columns at once, and so for the one that is picked.
            band=simultaneous_band(rows, len(section.columns)),
            xlabel="quantile of a column",
            ylabel="rows below, beyond that",
            alt="For each flow, how many base points lie below a quantile of a normal, beyond what should, "
            "in the column where that is farthest off.",
            key=f"{key}-columns",
        )
        panels += [
            Panel("base points: distance", (radii,)),
            Panel("base points: the column farthest off", (columns,)),
        ]
    caption = (
        "A model that is right stays in the grey band throughout, 95 times in 100. Below it: too few rows "
        "where the model is sure that there should be more."
    )
    caption += told + seeds_shown(section)
    return Gallery("Calibration", "curves", tuple(panels), caption)


def _curves(section: Section, key: str) -> Gallery | None:
    panels = []
    validations = _series(section, "validation_nll", None)
    if any(len(curve.points) > 1 for curve in validations):
        picture = draw_curves(
            validations,
            ylabel="validation NLL (nats)",
            alt="Validation NLL of each run against its training time.",
            key=f"{key}-validation",
            floor=section.entropy,
        )
        panels.append(Panel("validation", (picture,)))
    for number, objective in enumerate(_objectives(section)):
        losses = [curve for curve in _series(section, "loss", objective) if len(curve.points) > 1]
        if losses:
            picture = draw_curves(
                losses,
                ylabel="training loss",
                alt=f"Training loss of the objective {objective} of each run against its training time.",
                key=f"{key}-{number}",
            )
            panels.append(Panel(f"training loss: {objective}", (picture,)))
    caption = told_apart(len(section.models)).strip()
    return Gallery("Learning curves", "curves", tuple(panels), caption) if panels else None


def _series(section: Section, value: str, objective: str | None) -> list[Curve]:
    curves = [
        Curve(model.label, series, run.record.series(value, objective))
        for series, model in enumerate(section.models[:TOLD_APART])
        for run in model.runs
    ]
    return [curve for curve in curves if curve.points]


def _objectives(section: Section) -> list[str]:
    records = (record for model in section.models for run in model.runs for record in run.record.history)
    return list(dict.fromkeys(str(record["objective"]) for record in records if record.get("objective")))
