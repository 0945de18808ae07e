"""Continuous against planar flows that learn toys by maximum likelihood (Chen et al. 2018, figure 5)."""

from collections.abc import Sequence
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np
import torch

from flowbench.evaluation.grid import tabulate
from flowbench.models.density import Flow
from flowbench.models.discrete.planar import PlanarFlow, PlanarOptions
from flowbench.models.rows import Rows
from flowbench.ode.native_engine import NativeOptions
from flowbench.registry import TOYS
from flowbench.statistics.paired import compare_paired, estimate_mean
from flowbench.store.findings import Chart, Findings, Image, Series
from flowbench.store.text_table import TextTable
from flowbench.studies.against_planar import MODELS, PUBLISHED, Recipe, continuous_flow, how_trained
from flowbench.studies.study import (
    Budget,
    Claim,
    Floats,
    Measurement,
    Study,
    Tell,
    Trial,
    compared,
    on_arrays,
)
from flowbench.training.criterion import RowCriterion
from flowbench.training.plan import TrainingPlan
from flowbench.training.progress import Progress
from flowbench.training.stopwatch import CpuStopwatch
from flowbench.training.trainer import Trainer
from flowbench.training.training_rows import TrainingRows

TRAIN_ROWS, VALIDATION_ROWS, TEST_ROWS = 20_000, 2000, 20_000
#: Hidden units of the continuous flow, and layers of the planar one.
SIZE = 64
#: Points along each side of a picture.
SIDE = 80
#: The best of short runs, for each model by itself; docs/claims.md says of which.
RECIPES = {"cnf": Recipe("adamw", 1e-2, 512), "planar": Recipe("adamw", 1e-1, 512)}


class Extent(NamedTuple):
    """What a budget holds: toys, seeds, and CPU seconds of training for one flow.

    Instead of seconds, None stands for the steps as published.
    """

    toys: tuple[str, ...]
    seeds: int
    seconds: float | None


EXTENTS: dict[Budget, Extent] = {
    "quick": Extent(("moons",), 2, 3.0),
    "default": Extent(("circles", "moons"), 5, 50.0),
    "full": Extent(("circles", "moons"), 5, None),
}


class MaximumLikelihood(Study):
    """Fits two circles and two moons by likelihood, with 64 hidden units or 64 planar layers."""

    claim: ClassVar[Claim] = Claim(
        "maximum-likelihood",
        "A continuous flow of 64 units learns toys better than 64 planar layers",
        "On two circles and two moons, a continuous flow with 64 hidden units fits better after 10,000 steps "
        "of Adam than a planar flow of 64 layers after 500,000 steps of RMSprop, which spreads its density "
        "over the gaps.",
        "Chen et al. 2018, section 5.2 and figure 5 (pictures, without numbers)",
    )

    def trials(self, budget: Budget) -> Sequence[Trial]:
        """One for each toy, seed and model."""
        toys, seeds, _ = EXTENTS[budget]
        return [
            Trial(f"{toy}-{model}-{seed}", {"toy": toy, "model": model, "seed": seed})
            for toy, seed, model in product(toys, range(seeds), MODELS)
        ]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """Train one flow, then score fresh rows, in float64."""
        toy, model, seed = (trial.values[name] for name in ("toy", "model", "seed"))
        density, rng = TOYS.get(toy)(), np.random.default_rng(seed)
        rows = density.sample(TRAIN_ROWS + VALIDATION_ROWS, rng)
        test = density.sample(TEST_ROWS, rng)
        flow = _build(model, torch.Generator().manual_seed(seed))
        curve = _train(flow, rows, _plan(model, EXTENTS[budget].seconds), seed, tell)
        judged = flow.for_evaluation(NativeOptions(atol=1e-6, rtol=1e-6))
        x, y = (np.linspace(low, high, SIDE) for low, high in density.box)
        score = on_arrays(judged.log_prob)
        with torch.no_grad():
            log_prob, grid = score(test), np.exp(tabulate(score, x, y))
        kl = estimate_mean(density.log_prob(test) - log_prob)
        return Measurement(
            {
                "nll": float(-log_prob.mean()),
                "kl": kl.mean,
                "kl_standard_error": kl.standard_error or 0.0,
                "steps": float(curve[-1, 1]),
                "parameters": float(flow.parameter_count),
            },
            {"curve": curve, "density": grid, "x": x, "y": y},
        )

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """Reproduced, if the continuous flow has the lower NLL on every toy."""
        toys, seeds, seconds = EXTENTS[budget]
        rows, ahead = [], {}
        for toy in toys:
            ours, theirs = (_of(measured, toy, model) for model in MODELS)
            nll = [np.array([m.figures["nll"] for m in each]) for each in (ours, theirs)]
            kl = [np.mean([m.figures["kl"] for m in each]) for each in (ours, theirs)]
            ahead[toy] = compare_paired(nll[1], nll[0], resample=False)
            steps = [np.mean([m.figures["steps"] for m in each]) for each in (ours, theirs)]
            rows.append(
                (
                    toy,
                    *(f"{each.mean():.4f}" for each in nll),
                    compared(ahead[toy]),
                    *(f"{each:.4f}" for each in kl),
                    *(f"{each:,.0f}" for each in steps),
                )
            )
        times = f"{seconds:g} CPU seconds, validations included" if seconds else None
        table = TextTable(
            f"Test NLL {'at equal CPU time' if seconds else 'after the steps as published'} (nats)",
            (
                "toy",
                "continuous",
                "planar",
                "planar above continuous [95%]",
                "KL, continuous",
                "KL, planar",
                "steps, continuous",
                "steps, planar",
            ),
            tuple(rows),
            (False, *[True] * 7),
            (
                f"Means over {seeds} seeds, each with {TRAIN_ROWS:,} train rows and {TEST_ROWS:,} test rows "
                f"of its own. {how_trained(times, RECIPES)} The interval is Student's t of the differences "
                "over the seeds.",
            ),
        )
        won = [toy for toy in toys if (found := ahead[toy]) and found.is_resolved and found.mean > 0]
        rest = [toy for toy in toys if toy not in won]
        reason = (
            f"{'At equal CPU time' if seconds else 'After the steps as published'}, the continuous flow has "
            f"the lower test NLL, with an interval without zero, on {len(won)} of {len(toys)} toys."
        )
        reason += f" Not on: {', '.join(rest)}." if rest else ""
        return Findings(
            "not reproduced" if rest else "reproduced",
            reason,
            (table,),
            tuple(chart for toy in toys for chart in _charts(toy, measured)),
            tuple(image for toy in toys for image in _images(toy, measured)),
        )


def _build(model: str, generator: torch.Generator) -> Flow:
    if model == "planar":
        return PlanarFlow(2, PlanarOptions(layers=SIZE), generator)
    return continuous_flow(SIZE, generator)


def _plan(model: str, seconds: float | None) -> TrainingPlan:
    """Training for CPU seconds or, without these, for the steps as published."""
    optimizer, rate, rows = RECIPES[model]
    phase = {"objective": "likelihood", "optimizer": optimizer, "batch_size": rows, "learning_rate": rate}
    steps = None if seconds else PUBLISHED[model]
    return TrainingPlan(phases=(phase,), seconds=seconds, steps=steps, patience=0.0)


def _train(flow: Flow, rows: Floats, plan: TrainingPlan, seed: int, tell: Tell) -> Floats:
    """Train the flow; returns (CPU seconds, step, validation NLL) at each validation."""
    train, validation = (Rows(torch.from_numpy(part).float()) for part in np.split(rows, [TRAIN_ROWS]))
    curve: list[tuple[float, float, float]] = []

    def note(progress: Progress) -> None:
        curve.append((progress.cpu_seconds, progress.step, progress.validation_nll))
        tell(f"step {progress.step:,}, validation NLL {progress.validation_nll:.4f}")

    generator = torch.Generator().manual_seed(seed)
    clock = CpuStopwatch()
    trainer = Trainer(
        flow,
        plan,
        TrainingRows(train, validation),
        generator=generator,
        criterion=RowCriterion(),
        clock=clock,
        on_validation=note,
    )
    trainer.run()
    return np.array(curve)


def _of(measured: Sequence[tuple[Trial, Measurement]], toy: str, model: str) -> list[Measurement]:
    return [m for t, m in measured if (t.values["toy"], t.values["model"]) == (toy, model)]


def _charts(toy: str, measured: Sequence[tuple[Trial, Measurement]]) -> list[Chart]:
    """Validation NLL of the first seed against CPU seconds and steps, with the toy's entropy."""
    entropy = TOYS.get(toy)().entropy
    charts = []
    for column, xlabel in ((0, "CPU seconds"), (1, "steps")):
        curves = {model: _of(measured, toy, model)[0].arrays["curve"][1:] for model in MODELS}
        series = [Series(model, curve[:, column], curve[:, 2]) for model, curve in curves.items()]
        x = np.concatenate([each.x for each in series])
        ends = np.array([x.min(), x.max()])
        series.append(Series("entropy", ends, np.full(2, entropy)))
        title = f"{toy}, against {xlabel}"
        charts.append(Chart(title, xlabel, "validation NLL, nats", tuple(series), ("x",)))
    return charts


def _images(toy: str, measured: Sequence[tuple[Trial, Measurement]]) -> list[Image]:
    """The density of the toy and those of the first seed's flows."""
    first = {model: _of(measured, toy, model)[0].arrays for model in MODELS}
    x, y = first["cnf"]["x"], first["cnf"]["y"]
    truth = np.exp(tabulate(TOYS.get(toy)().log_prob, x, y))
    return [
        Image(f"{toy}: truth", x, y, truth),
        *(Image(f"{toy}: {model}", x, y, arrays["density"]) for model, arrays in first.items()),
    ]
