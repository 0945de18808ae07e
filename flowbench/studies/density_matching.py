"""Continuous against planar flows that match a known density, without rows (Chen et al. 2018, figure 4)."""

import math
import time
from collections.abc import Sequence
from itertools import product
from typing import ClassVar, NamedTuple

import numpy as np
import torch
from torch import Tensor

from flowbench.evaluation.grid import tabulate
from flowbench.models.density import Flow, Mapped, base_log_prob
from flowbench.models.discrete.planar import PlanarFlow, PlanarOptions
from flowbench.ode.native_engine import NativeOptions
from flowbench.statistics.paired import compare_paired, estimate_mean
from flowbench.store.findings import Chart, Findings, Image, Series
from flowbench.store.text_table import TextTable
from flowbench.studies.against_planar import MODELS, PUBLISHED, Recipe, continuous_flow, how_trained
from flowbench.studies.potentials import POTENTIALS, Potential
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
    over_seeds,
)
from flowbench.training.optimizers import make_optimizer, set_rate

#: Draws that measure the divergence at the end.
JUDGES = 20_000
#: Points along each side of a picture.
SIDE = 80
#: How often the curve of a training has a point.
POINTS = 50
#: Draws of a step.
DRAWS = 256
#: By model and size, the best of short runs for each by itself; docs/claims.md says of which.
RECIPES = {
    ("cnf", 2): Recipe("soap", 1e-2, DRAWS),
    ("cnf", 8): Recipe("soap", 1e-2, DRAWS),
    ("cnf", 32): Recipe("soap", 2e-2, DRAWS),
    ("planar", 2): Recipe("adamw", 1e-1, DRAWS),
    ("planar", 8): Recipe("soap", 3e-2, DRAWS),
    ("planar", 32): Recipe("adamw", 3e-2, DRAWS),
}


class Extent(NamedTuple):
    """What a budget holds: targets, seeds, and CPU seconds of training for each size.

    Instead of seconds, None stands for the steps as published.
    """

    targets: tuple[str, ...]
    seeds: int
    seconds: dict[int, float | None]


EXTENTS: dict[Budget, Extent] = {
    "quick": Extent(("ring", "split wave"), 2, {2: 0.5, 8: 0.5}),
    "default": Extent(tuple(POTENTIALS), 3, {2: 6.0, 8: 10.0, 32: 24.0}),
    "full": Extent(tuple(POTENTIALS), 3, {2: None, 8: None, 32: None}),
}


class DensityMatching(Study):
    """Minimises KL(q || p) to four energies by continuous flows of width M and planar flows of depth K."""

    claim: ClassVar[Claim] = Claim(
        "density-matching",
        "Continuous flows match a known density with fewer units than planar flows",
        "A continuous flow of width M, trained for 10,000 steps of Adam, reaches a lower KL(q || p) than a "
        "planar flow of depth K = M, trained for 500,000 steps of RMSprop, for M of 2, 8 and 32.",
        "Chen et al. 2018, section 5.1 and figure 4 (curves, without numbers)",
    )

    def trials(self, budget: Budget) -> Sequence[Trial]:
        """One for each target, size, model and seed."""
        targets, seeds, seconds = EXTENTS[budget]
        return [
            Trial(
                f"{target.replace(' ', '-')}-{model}-{size}-{seed}",
                {"target": target, "size": size, "model": model, "seed": seed},
            )
            for target, size, seed, model in product(targets, seconds, range(seeds), MODELS)
        ]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """Train one flow, then measure KL(q || p) on fresh draws, in float64."""
        target, model, size = (trial.values[name] for name in ("target", "model", "size"))
        generator = torch.Generator().manual_seed(trial.values["seed"])
        flow = _build(model, size, generator)
        seconds = EXTENTS[budget].seconds[size]
        curve = _train(
            flow, POTENTIALS[target], RECIPES[model, size], seconds, PUBLISHED[model], generator, tell
        )
        judged = flow.for_evaluation(NativeOptions(atol=1e-6, rtol=1e-6))
        with torch.no_grad():
            differences = _divergences(judged, POTENTIALS[target], JUDGES, generator).numpy()
            axis = np.linspace(-4.5, 4.5, SIDE)
            density = np.exp(tabulate(on_arrays(judged.log_prob), axis, axis))
        estimate = estimate_mean(differences)
        return Measurement(
            {
                "kl": estimate.mean,
                "kl_standard_error": estimate.standard_error or 0.0,
                "seconds": float(curve[-1, 0]),
                "steps": float(curve[-1, 1]),
                "parameters": float(flow.parameter_count),
            },
            {"curve": curve, "density": density, "axis": axis},
        )

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """Reproduced, if the continuous flow is below the planar one for every target and size."""
        targets, seeds, seconds = EXTENTS[budget]
        sizes = tuple(seconds)
        kl, steps = (
            {
                key: np.array([m.figures[name] for t, m in measured if _key(t) == key])
                for key in {_key(t) for t, _ in measured}
            }
            for name in ("kl", "steps")
        )
        rows, behind, level = [], [], []
        for target, size in product(targets, sizes):
            ours, theirs = kl[target, size, "cnf"], kl[target, size, "planar"]
            ahead = compare_paired(theirs, ours, resample=False)
            what = f"{target}, {size}"
            if ahead is None or not ahead.is_resolved:
                level.append(what)
            elif ahead.mean < 0:
                behind.append(what)
            rows.append(
                (
                    target,
                    str(size),
                    f"{ours.mean():.4f}",
                    f"{theirs.mean():.4f}",
                    compared(ahead),
                    *(f"{steps[target, size, model].mean():,.0f}" for model in MODELS),
                )
            )
        recipes = {f"{model} {size}": recipe for (model, size), recipe in RECIPES.items() if size in sizes}
        trained = how_trained(_times(budget), recipes)
        table = TextTable(
            f"KL(q || p) {_at(budget)} (nats)",
            (
                "target",
                "width or depth",
                "continuous",
                "planar",
                "planar above continuous [95%]",
                "steps, continuous",
                "steps, planar",
            ),
            tuple(rows),
            (False, *[True] * 6),
            (
                f"Means over {seeds} seeds. {trained} The interval is Student's t of the differences over "
                "the seeds. In the charts against size, bars reach from the lowest seed to the highest.",
                "The other charts and the densities are of the first seed at the largest size. The charts "
                "show means over the draws of training.",
                "The energies are those of Rezende and Mohamed (2015, table 1), within the square from -4 to "
                "4: three of them do not grow along the first axis, and have no integral on the plane.",
            ),
        )
        return Findings(
            "reproduced" if not behind and not level else "not reproduced",
            _reason(budget, len(rows), behind, level),
            (table,),
            tuple(
                chart
                for target in targets
                for chart in (_by_size(target, sizes, kl), *_curves(target, sizes[-1], measured))
            ),
            tuple(_images(targets, sizes[-1], measured)),
        )


class _Reversed(Flow):
    """Planar layers that run from base to data, so that draws take one pass and carry gradients."""

    def __init__(self, layers: int, generator: torch.Generator) -> None:
        options = PlanarOptions(layers=layers)
        super().__init__(2, options, generator)
        self.layers = PlanarFlow(2, options, generator)

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return self.layers.to_data(x)

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return self.layers.to_base(z)


def _build(model: str, size: int, generator: torch.Generator) -> Flow:
    if model == "planar":
        return _Reversed(size, generator)
    return continuous_flow(size, generator)


def _divergences(flow: Flow, target: Potential, n: int, generator: torch.Generator) -> Tensor:
    """log q(x) - log p(x), nats, at n draws x of the flow, `(n,)`; their mean is KL(q || p)."""
    z = flow.sample_base(n, generator)
    mapped = flow.to_data(z)
    return base_log_prob(z) - mapped.log_det - target.log_prob(mapped.value)


def _train(
    flow: Flow,
    target: Potential,
    recipe: Recipe,
    seconds: float | None,
    steps: int,
    generator: torch.Generator,
    tell: Tell,
) -> Floats:
    """Train the flow for CPU seconds or, without these, for `steps`.

    Returns (CPU seconds, step, mean KL of the draws since the last point) for each of about `POINTS` points.
    """
    optimizer = make_optimizer(recipe.optimizer, flow.parameters())
    began, step, since = time.process_time(), 0, list[float]()
    curve: list[tuple[float, float, float]] = []
    spent = 0.0
    while spent < 1:
        set_rate(optimizer, recipe.rate * 0.5 * (1 + math.cos(math.pi * spent)), 0.0)
        optimizer.zero_grad()
        loss = _divergences(flow, target, recipe.rows, generator).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        optimizer.step()
        step += 1
        since.append(loss.item())
        elapsed = time.process_time() - began
        spent = elapsed / seconds if seconds else step / steps
        if spent >= (len(curve) + 1) / POINTS:
            curve.append((elapsed, step, float(np.mean(since))))
            tell(f"step {step:,}, KL {curve[-1][2]:.4f}, {100 * min(spent, 1):.0f}% of the training")
            since.clear()
    return np.array(curve)


def _key(trial: Trial) -> tuple[str, int, str]:
    return trial.values["target"], trial.values["size"], trial.values["model"]


def _times(budget: Budget) -> str | None:
    """CPU seconds for each size, in words; None if steps were counted instead."""
    seconds = [(size, each) for size, each in EXTENTS[budget].seconds.items() if each]
    return ", ".join(f"{each:g} CPU seconds at size {size}" for size, each in seconds) or None


def _at(budget: Budget) -> str:
    return "after the steps as published" if budget == "full" else "at equal CPU time"


def _reason(budget: Budget, cases: int, behind: Sequence[str], level: Sequence[str]) -> str:
    told = f"The continuous flow is below the planar one {_at(budget)}, with an interval without zero, in "
    told += f"{cases - len(behind) - len(level)} of {cases} pairs of target and size."
    if level:
        told += f" Not told apart: {'; '.join(level)}."
    if behind:
        told += f" Above it: {'; '.join(behind)}."
    return told


def _by_size(target: str, sizes: Sequence[int], kl: dict[tuple[str, int, str], Floats]) -> Chart:
    x = np.array(sizes, dtype=float)
    series = []
    for model in MODELS:
        values = [kl[target, size, model] for size in sizes]
        series.append(over_seeds(model, x, values))
    return Chart(f"{target}, against size", "width or depth", "KL(q || p), nats", tuple(series), ("x", "y"))


def _curves(target: str, size: int, measured: Sequence[tuple[Trial, Measurement]]) -> list[Chart]:
    """KL of the draws of training against CPU seconds and steps, of the first seed."""
    first = _first(target, size, measured)
    charts = []
    for column, xlabel in ((0, "CPU seconds"), (1, "steps")):
        curves = {name: m.arrays["curve"] for name, m in first.items()}
        series = tuple(Series(name, curve[:, column], curve[:, 2]) for name, curve in curves.items())
        title = f"{target}, size {size}, against {xlabel}"
        charts.append(Chart(title, xlabel, "KL(q || p), nats", series, ("x",)))
    return charts


def _first(target: str, size: int, measured: Sequence[tuple[Trial, Measurement]]) -> dict[str, Measurement]:
    """Of the first seed, what each model gave."""
    return {
        t.values["model"]: m for t, m in measured if _key(t)[:2] == (target, size) and not t.values["seed"]
    }


def _images(targets: Sequence[str], size: int, measured: Sequence[tuple[Trial, Measurement]]) -> list[Image]:
    """The densities of the targets, and those of the largest flows of the first seed."""
    images = []
    for target in targets:
        shown = _first(target, size, measured)
        axis = next(iter(shown.values())).arrays["axis"]
        truth = np.exp(tabulate(on_arrays(POTENTIALS[target].log_prob), axis, axis))
        images.append(Image(f"{target}: target", axis, axis, truth))
        images += [Image(f"{target}: {name}", axis, axis, m.arrays["density"]) for name, m in shown.items()]
    return images
