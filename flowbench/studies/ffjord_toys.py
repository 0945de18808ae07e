"""FFJORD's recipe and flowbench's default on the toys, at equal CPU time (Grathwohl et al. 2019)."""

from collections.abc import Sequence
from itertools import product
from pathlib import Path
from typing import ClassVar, cast

import numpy as np
import torch

from flowbench.data.toy_density import ToyDensity
from flowbench.evaluation.grid import tabulate
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density_model import DensityModel
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.registry import TOYS
from flowbench.statistics.paired import compare_paired, estimate_mean
from flowbench.store.findings import Chart, Findings, Image, Series, Verdict
from flowbench.store.text_table import TextTable
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
from flowbench.studies.timed_fit import TimedFit
from flowbench.training.progress import Progress
from flowbench.workflows.config import resolve

#: What is compared: the name, and flowbench's preset of `cnf`.
RECIPES = {"FFJORD's recipe": "ffjord", "default": "default"}
FFJORD, DEFAULT = RECIPES
#: The seeds start here: the defaults were chosen on the toys' rows of seed 0.
FIRST_SEED = 100
#: Points along each side of a picture, and test rows that are solved twice, for their errors.
SIDE, ERROR_ROWS = 60, 100
#: For each budget: toys, seeds, CPU seconds of training for one fit, and test rows.
EXTENT: dict[Budget, tuple[tuple[str, ...], int, float, int]] = {
    "quick": (("8gaussians", "checkerboard"), 1, 2.0, 500),
    "default": (TOYS.names(), 2, 15.0, 2000),
    "full": (TOYS.names(), 3, 3600.0, 20_000),
}
#: Iterations of the released code, and what the paper says of the evaluations of a solve.
ITERATIONS, EVALUATIONS = 10_000, (70, 100)


class FfjordToys(Study):
    """Fits the toys with FFJORD's recipe and with flowbench's default, for the same CPU seconds."""

    claim: ClassVar[Claim] = Claim(
        "ffjord-toys",
        "FFJORD fits toys with several modes and with edges",
        "FFJORD fits densities of two columns that have several modes or discontinuities, with 70 to 100 "
        "evaluations a solve. Glow of 100 layers leaves density between the modes.",
        "Grathwohl et al. 2019, section 4.1 and figure 2 (pictures, without a measure of fit)",
    )

    def trials(self, budget: Budget) -> Sequence[Trial]:
        """One for each toy, seed and recipe."""
        toys, seeds, _, _ = EXTENT[budget]
        return [
            Trial(f"{toy}-{preset}-{seed}", {"toy": toy, "recipe": recipe, "seed": FIRST_SEED + seed})
            for toy, seed, (recipe, preset) in product(toys, range(seeds), RECIPES.items())
        ]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """Train for CPU seconds, then score fresh rows, in float64."""
        _, _, seconds, test_rows = EXTENT[budget]
        fit = self._load(trial, seconds, test_rows)
        curve: list[tuple[float, float, float]] = []

        def note(progress: Progress) -> None:
            curve.append((progress.cpu_seconds, progress.step, progress.validation_nll))
            tell(f"step {progress.step:,}, validation NLL {progress.validation_nll:.4f}")

        counters = fit.train(note).counters
        model, density = fit.prepared.model, TOYS.get(trial.values["toy"])()
        with torch.no_grad():
            rows = model.encoder.to_model(torch.from_numpy(fit.test))[0].float()
            batch_nfe = cast(ContinuousFlow, model.flow).to_base(rows).nfe
        scores = fit.score()
        picture = _picture(model, density) if trial.values["seed"] == FIRST_SEED else {}
        log_prob = scores.log_prob.numpy()
        return Measurement(
            {
                "nll": float(-log_prob.mean()),
                "steps": float(counters.step),
                "cpu_seconds": counters.cpu_seconds,
                "batch_nfe": float(batch_nfe or 0),
                "row_nfe": float(scores.nfe or 0),
                "parameters": float(model.flow.parameter_count),
            },
            {
                "log_prob": log_prob,
                "truth": density.log_prob(fit.test),
                "curve": np.array(curve),
                **picture,
            },
        )

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """Not comparable before the recipe has its iterations; then by the evaluations of a solve."""
        toys, seeds, seconds, test_rows = EXTENT[budget]
        steps = {toy: _mean(measured, toy, FFJORD, "steps") for toy in toys}
        nfe = {toy: _mean(measured, toy, FFJORD, "batch_nfe") for toy in toys}
        comparison = _comparison(measured, toys)
        table = TextTable(
            "FFJORD's recipe and the default at equal CPU time (nats)",
            (
                "toy",
                *(f"KL, {recipe}" for recipe in RECIPES),
                "recipe above default [95%]",
                *(f"NLL, {recipe}" for recipe in RECIPES),
            ),
            tuple((toy, *cells) for toy, cells in comparison.items()),
            (False, *[True] * 5),
            (
                f"KL(true || model) and NLL over {test_rows:,} test rows for each of {seeds} seeds. Each fit "
                f"had {seconds:g} CPU seconds, validations included. The interval is Student's t of the "
                "differences of log-densities, paired over the rows of all seeds. It leaves out the spread "
                "of the seeds.",
                "The paper's recipe is the preset ffjord: three layers of 64 concatsquash units, batches of "
                "100, Adam, and the adjoint of dopri5 at 1e-5. The default is cnf as the command fit "
                "trains it.",
            ),
        )
        return Findings(
            *_verdict(steps, nfe, seconds, _ahead(measured, toys)),
            (table, _costs(measured, toys)),
            tuple(_chart(measured, toy) for toy in toys),
            tuple(image for toy in toys for image in _images(measured, toy)),
        )

    def _load(self, trial: Trial, seconds: float, test_rows: int) -> TimedFit:
        values = trial.values
        overrides = {
            "plan.seconds": seconds,
            "plan.patience": 0,
            "seed": values["seed"],
            "data.seed": values["seed"],
            "evaluation.error_rows": ERROR_ROWS,
        }
        config = resolve(values["toy"], "cnf", preset=RECIPES[values["recipe"]], overrides=overrides)
        return TimedFit.load(config, test_rows, Path("datasets"))


def _picture(model: DensityModel, truth: ToyDensity) -> dict[str, Floats]:
    """The model's density over the toy's box; a picture needs no tight tolerance."""
    x, y = (np.linspace(low, high, SIDE) for low, high in truth.box)
    judged = model.for_evaluation(PerRowOptions(atol=1e-4, rtol=1e-4))
    with torch.no_grad():
        density = np.exp(tabulate(on_arrays(lambda points: judged.score(points).log_prob), x, y))
    return {"density": density, "x": x, "y": y}


def _of(measured: Sequence[tuple[Trial, Measurement]], toy: str, recipe: str) -> list[Measurement]:
    return [m for t, m in measured if (t.values["toy"], t.values["recipe"]) == (toy, recipe)]


def _mean(measured: Sequence[tuple[Trial, Measurement]], toy: str, recipe: str, name: str) -> float:
    return float(np.mean([m.figures[name] for m in _of(measured, toy, recipe)]))


def _joined(measured: Sequence[tuple[Trial, Measurement]], toy: str, recipe: str, name: str) -> Floats:
    """An array of all seeds, one after another."""
    return np.concatenate([m.arrays[name] for m in _of(measured, toy, recipe)])


def _comparison(
    measured: Sequence[tuple[Trial, Measurement]], toys: Sequence[str]
) -> dict[str, tuple[str, ...]]:
    cells = {}
    for toy in toys:
        truth = _joined(measured, toy, DEFAULT, "truth")
        log_prob = [_joined(measured, toy, recipe, "log_prob") for recipe in RECIPES]
        kl = [estimate_mean(truth - each) for each in log_prob]
        cells[toy] = (
            *(f"{each.mean:.4f} ± {each.standard_error or 0:.4f}" for each in kl),
            compared(compare_paired(log_prob[1], log_prob[0])),
            *(f"{-each.mean():.4f}" for each in log_prob),
        )
    return cells


def _ahead(measured: Sequence[tuple[Trial, Measurement]], toys: Sequence[str]) -> list[str]:
    """The toys on which the default's NLL is lower, with an interval without zero."""
    won = []
    for toy in toys:
        recipe, default = (_joined(measured, toy, name, "log_prob") for name in RECIPES)
        found = compare_paired(default, recipe)
        if found is not None and found.is_resolved and found.mean > 0:
            won.append(toy)
    return won


def _costs(measured: Sequence[tuple[Trial, Measurement]], toys: Sequence[str]) -> TextTable:
    shown = {
        "steps": ("steps", ",.0f"),
        "cpu_seconds": ("CPU s", ",.1f"),
        "batch_nfe": ("nfe of a batch", ".0f"),
        "row_nfe": ("nfe of the slowest row", ".0f"),
    }
    return TextTable(
        "What it took",
        ("toy", *(f"{title}, {recipe}" for (title, _), recipe in product(shown.values(), RECIPES))),
        tuple(
            (
                toy,
                *(
                    format(_mean(measured, toy, recipe, name), how)
                    for (name, (_, how)), recipe in product(shown.items(), RECIPES)
                ),
            )
            for toy in toys
        ),
        (False, *[True] * 8),
        (
            "The CPU seconds hold the last validation, which may go beyond the budget.",
            "The nfe of a batch is that of the test rows in one solve, by the solver and at the tolerance of "
            "training: 1e-5 for the recipe, 1e-4 for the default. The nfe of the slowest row is at 1e-6.",
        ),
    )


def _verdict(
    steps: dict[str, float], nfe: dict[str, float], seconds: float, ahead: Sequence[str]
) -> tuple[Verdict, str]:
    """The verdict on the paper's number of evaluations, and how the default compares."""
    ends = sorted({f"{least:.0f}" for least in (min(nfe.values()), max(nfe.values()))}, key=float)
    evaluations = f"{' to '.join(ends)} evaluations"
    beside = (
        f"The default is closer to the true density, with an interval without zero, on {len(ahead)} of "
        f"{len(steps)} toys."
    )
    rest = [toy for toy in steps if toy not in ahead]
    beside += f" Not on: {', '.join(rest)}." if rest and ahead else ""
    if min(steps.values()) < ITERATIONS:
        return "not comparable", (
            f"The paper shows pictures of trained flows, and {seconds:g} CPU seconds are "
            f"{min(steps.values()):,.0f} to {max(steps.values()):,.0f} of the recipe's {ITERATIONS:,} "
            f"iterations. Its solves then take {evaluations}. {beside}"
        )
    low, high = EVALUATIONS
    outside = [toy for toy, each in nfe.items() if not low <= each <= high]
    told = f"After {ITERATIONS:,} iterations the recipe's solves take {evaluations}."
    told += f" Outside {low} to {high}: {', '.join(outside)}." if outside else ""
    told += f" The paper has no measure of fit; KL is in the table, and Glow is not measured. {beside}"
    return "not reproduced" if outside else "reproduced", told


def _chart(measured: Sequence[tuple[Trial, Measurement]], toy: str) -> Chart:
    """Validation NLL of the first seed against CPU seconds, with the toy's entropy."""
    curves = {recipe: _of(measured, toy, recipe)[0].arrays["curve"] for recipe in RECIPES}
    series = [Series(recipe, curve[:, 0], curve[:, 2]) for recipe, curve in curves.items()]
    x = np.concatenate([each.x for each in series])
    series.append(Series("entropy", np.array([x.min(), x.max()]), np.full(2, TOYS.get(toy)().entropy)))
    return Chart(toy, "CPU seconds", "validation NLL, nats", tuple(series))


def _images(measured: Sequence[tuple[Trial, Measurement]], toy: str) -> list[Image]:
    """The density of the toy and those of the first seed's fits."""
    first = {recipe: _of(measured, toy, recipe)[0].arrays for recipe in RECIPES}
    x, y = first[DEFAULT]["x"], first[DEFAULT]["y"]
    truth = np.exp(tabulate(TOYS.get(toy)().log_prob, x, y))
    return [
        Image(f"{toy}: truth", x, y, truth),
        *(Image(f"{toy}: {recipe}", x, y, arrays["density"]) for recipe, arrays in first.items()),
    ]
