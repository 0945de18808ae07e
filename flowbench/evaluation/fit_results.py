"""Everything a finished run says about its model, computed once and stored."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from flowbench.data import Dataset, Split
from flowbench.errors import IntegrationError
from flowbench.evaluation.certificates import certify
from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.evaluation_options import COARSE, EvaluationOptions
from flowbench.evaluation.grid import data_box, grid_axes, grid_mass, tabulate
from flowbench.evaluation.incomplete import has_gaps, score_known
from flowbench.evaluation.reported import Likelihoods, draw_rows
from flowbench.evaluation.slices import tabulate_slice_planes, tabulate_slices
from flowbench.models.completion import filled
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.statistics.paired import estimate_mean
from flowbench.statistics.weighting import effective_size
from flowbench.store import Grid, Metric, Results, RowSplit, Samples, ScoredRows, Trajectory

Floats = NDArray[np.float64]


@torch.no_grad()
def compute_results(
    model: DensityModel,
    dataset: Dataset,
    split: Split,
    options: EvaluationOptions,
    generator: torch.Generator,
    *,
    training_metrics: dict[str, Metric],
    provenance: dict[str, Any],
    warn: Callable[[str], None] = lambda text: None,
) -> Results:
    """Score test rows, draw samples, tabulate the density, follow paths and certify, all in data units.

    Raises `IntegrationError` if a solve fails. If it is a solve for a picture, the picture is left out
    instead and `warn` gets a sentence about it.
    """
    began = time.process_time()
    ids = split.test[: options.test_rows]
    weights = None if dataset.weights is None else dataset.weights[ids]
    rows = Rows.of_arrays(*dataset.at(ids))
    budget = ErrorBudget(model, options)
    likelihoods, log_mass = score_known(budget, rows)
    scored, metrics = _describe_scores(
        model, dataset, ids, rows, weights, likelihoods, log_mass, options.max_error
    )
    # Pictures and certificates take rows without missing cells.
    rows = _complete_rows(model, rows)
    exact = model.for_evaluation(options.integrator)
    context = model.draw_context(options.samples, generator)
    if context is None:
        context = _contexts(rows, options.samples)
    drawn, found = draw_rows(budget, options.samples, generator, context=context)
    grid = trajectory = None
    if len(dataset.column_names) == 2 and not model.has_levels:
        with _left_out("the picture of the density", warn):
            grid = _grid(model, dataset, options)
            # A density of one column given another adds up along each line, not over the plane.
            if not dataset.given:
                metrics["grid_mass"] = Metric(grid_mass(grid.log_prob, grid.x, grid.y), "1")
    slices = slice_planes = None
    if rows.context is not None and grid is None:
        with _left_out("the picture of the density at single contexts", warn):
            if rows.x.shape[1] == 1:
                slices = tabulate_slices(model, rows.x, rows.context, options, generator)
            elif rows.x.shape[1] == 2:
                slice_planes = tabulate_slice_planes(model, rows.x, rows.context, options, generator)
    with _left_out("the picture of the paths", warn):
        trajectory = _trajectory(exact, rows, options, generator)
    certificates = {}
    if options.certificates:
        # The density that is certified is that of places in cells.
        placed = rows.at(model.encoder.spread(rows.x, 0))
        certificates = certify(model, placed, likelihoods, options, generator)
    log_mass = model.log_mass(context)
    metrics["evaluation_cpu_seconds"] = Metric(time.process_time() - began, "seconds")
    return Results(
        columns=dataset.target_names,
        given=dataset.given,
        scored=scored,
        samples=Samples(
            drawn.numpy(),
            (found.log_prob if log_mass is None else found.log_prob + log_mass).numpy(),
            found.error.numpy(),
            None if context is None else context.numpy(),
            None if log_mass is None else log_mass.numpy(),
        ),
        split=RowSplit(*(dataset.numbers(part) for part in (split.train, split.validation, split.test))),
        metrics={**training_metrics, **metrics},
        grid=grid,
        slices=slices,
        slice_planes=slice_planes,
        trajectory=trajectory,
        certificates=certificates,
        provenance=provenance,
    )


def _complete_rows(model: DensityModel, rows: Rows) -> Rows:
    """The `rows` without missing cells; where there are none, all of them, filled in by draws."""
    whole = rows[~has_gaps(rows)]
    if len(whole) or model.imputer is None:
        return whole
    rng = np.random.default_rng(0)
    return filled(model, rows.at(model.encoder.dequantise(rows.x, rng)), rng)


def _contexts(rows: Rows, n: int) -> Tensor | None:
    """The contexts `(n, c)` of the first n `rows`, from the first again where there are fewer."""
    return None if rows.context is None else rows.context[torch.arange(n) % len(rows)]


@contextmanager
def _left_out(what: str, warn: Callable[[str], None]) -> Iterator[None]:
    """Leave `what` out, and say so, if a solve for it fails."""
    try:
        yield
    except IntegrationError as error:
        warn(f"{what} is left out: {error}")


def _describe_scores(
    model: DensityModel,
    dataset: Dataset,
    ids: NDArray[np.int64],
    rows: Rows,
    weights: Floats | None,
    likelihoods: Likelihoods,
    mass: Tensor | None,
    max_error: float | None,
) -> tuple[ScoredRows, dict[str, Metric]]:
    """The stored form of the test `rows`, whose ids are `ids: (n,)`, and the metrics of their likelihoods.

    Means over rows are by their `weights: (n,)`, if they have any.
    """
    x, context = rows.x.numpy(), None if rows.context is None else rows.context.numpy()
    log_prob, error = likelihoods.log_prob.numpy(), likelihoods.error.numpy()
    log_mass = None if mass is None else mass.numpy()
    # The error of a density that is not positive and finite means nothing.
    scored = np.isfinite(log_prob)
    metrics: dict[str, Metric] = {}
    if log_mass is not None:
        # A mass has no units, a density has those of the columns: their sum is the row's, and each is told.
        metrics |= _mean_metrics("test_nll_mass", -log_mass, weights)
        metrics |= _mean_metrics("test_nll_density", -log_prob, weights)
        log_prob = log_prob + log_mass
    metrics |= _mean_metrics("test_nll", -log_prob, weights)
    if weights is not None:
        metrics["test_rows_effective"] = Metric(effective_size(weights), "1")
    metrics["parameters"] = Metric(model.flow.parameter_count, "1")
    if model.background is not None:
        metrics["background_share"] = Metric(model.background.whole_share, "1")
    if scored.any():
        metrics["log_prob_error_median"] = Metric(float(np.median(error[scored])), "nats")
        metrics["log_prob_error_largest"] = Metric(float(error[scored].max()), "nats")
        for name, part in likelihoods.parts.items():
            # A row with missing cells has no such part.
            median = part[torch.from_numpy(scored)].nanmedian().item()
            metrics[f"log_prob_error_{name}_median"] = Metric(median, "nats")
    if max_error is not None:
        metrics["rows_above_max_error"] = Metric(float(likelihoods.flagged.sum()), "1")
    if likelihoods.nfe is not None:
        metrics["nfe"] = Metric(likelihoods.nfe, "evaluations")
    if likelihoods.shift is not None and likelihoods.regime is not None:
        metrics["test_nll_solver_shift"] = Metric(likelihoods.shift, "nats")
        metrics["solver_order"] = Metric(likelihoods.regime.order, "1")
    truth = None
    # The density of a toy is known of its columns together, not of one given another.
    if dataset.density is not None and context is None:
        truth = dataset.density.log_prob(x)
        metrics |= _mean_metrics("kl_to_truth", truth - log_prob, weights)
        metrics["entropy"] = Metric(dataset.density.entropy, "nats")
    return (
        ScoredRows(dataset.numbers(ids), x, log_prob, truth, error, context, log_mass, weights),
        metrics,
    )


def _mean_metrics(name: str, values: Floats, weights: Floats | None) -> dict[str, Metric]:
    """The mean of `values: (n,)` and its standard error, which a single row does not have."""
    estimate = estimate_mean(values, weights)
    metrics = {name: Metric(estimate.mean, "nats")}
    if estimate.standard_error is not None:
        metrics[f"{name}_standard_error"] = Metric(estimate.standard_error, "nats")
    return metrics


def _grid(model: DensityModel, dataset: Dataset, options: EvaluationOptions) -> Grid:
    """The density of two columns; of one column given another, which then lies along `x`."""
    density = dataset.density
    if density is None:
        box = _box(model, dataset)
    else:
        # The box of a toy has the order of its columns; a given lies along x.
        sides = dict(zip(dataset.column_names, density.box, strict=True))
        box = tuple(sides[name] for name in (*dataset.given, *dataset.target_names))
    x, y = grid_axes(box, options.grid)
    # A picture needs no sixth digit. The likelihoods of rows are solved at the full tolerance.
    coarse = model.for_evaluation(options.integrator.coarsened(COARSE), dtype=torch.float32)

    def log_density(points: Floats) -> Floats:
        places = torch.from_numpy(points)
        if model.givens is None:
            values: Floats = coarse.score_places(places).log_prob.numpy()
        else:
            values = coarse.score_places(places[:, 1:], context=places[:, :1]).log_prob.numpy()
        return values

    known = None if density is None or dataset.given else tabulate(density.log_prob, x, y)
    return Grid(x, y, tabulate(log_density, x, y), known)


def _box(model: DensityModel, dataset: Dataset) -> tuple[tuple[float, float], ...]:
    """The box of a table's two columns, cut where cells and the support end; a given comes first."""
    if dataset.context is None:
        return model.encoder.whole_box(data_box(dataset.rows))
    given, target = data_box(dataset.context), data_box(dataset.targets)
    return (*given, *model.encoder.whole_box(target))


def _trajectory(
    model: DensityModel, rows: Rows, options: EvaluationOptions, generator: torch.Generator
) -> Trajectory | None:
    times = torch.linspace(0, 1, 11, dtype=torch.float64)
    if not options.paths:
        return None
    context = _contexts(rows, options.paths)
    position = model.trajectory(options.paths, times, generator, context=context)
    return None if position is None else Trajectory(times.numpy(), position.numpy())
