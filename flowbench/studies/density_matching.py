"""Continuous against planar flows that match a known density, without rows (Chen et al. 2018, figure 4)."""

import math
import time
from collections.abc import Sequence
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor

from flowbench.evaluation.grid import tabulate
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import Flow, Mapped, base_log_prob
from flowbench.models.discrete.planar import PlanarFlow, PlanarOptions
from flowbench.ode.per_row_engine import PerRowOptions
from flowbench.statistics.paired import compare_paired, estimate_mean
from flowbench.store.findings import Chart, Findings, Image, Series
from flowbench.store.text_table import TextTable
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
)

#: Draws of a step, and draws that measure the divergence at the end.
BATCH, JUDGES = 512, 20_000
#: Points along each side of a picture.
SIDE = 80
#: Adam's learning rate at the start; it falls to zero along a cosine.
RATES = {"cnf": 1e-2, "planar": 1e-2}
#: For each budget: targets, sizes, seeds, and CPU seconds of training for one flow.
EXTENT: dict[Budget, tuple[tuple[str, ...], tuple[int, ...], int, float]] = {
    "quick": (("ring", "split wave"), (2, 8), 2, 0.5),
    "default": (tuple(POTENTIALS), (2, 8, 32), 3, 18.0),
    "full": (tuple(POTENTIALS), (2, 8, 32), 5, 300.0),
}
MODELS = ("cnf", "planar")


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
        targets, sizes, seeds, _ = EXTENT[budget]
        return [
            Trial(
                f"{target.replace(' ', '-')}-{model}-{size}-{seed}",
                {"target": target, "size": size, "model": model, "seed": seed},
            )
            for target, size, seed, model in product(targets, sizes, range(seeds), MODELS)
        ]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """Train one flow for CPU seconds, then measure KL(q || p) on fresh draws, in float64."""
        target = POTENTIALS[trial.values["target"]]
        generator = torch.Generator().manual_seed(trial.values["seed"])
        flow = _build(trial.values["model"], trial.values["size"], generator)
        curve = _train(flow, target, RATES[trial.values["model"]], EXTENT[budget][3], generator, tell)
        judged = flow.for_evaluation(PerRowOptions(atol=1e-6, rtol=1e-6))
        with torch.no_grad():
            differences = _divergences(judged, target, JUDGES, generator).numpy()
            axis = np.linspace(-4.5, 4.5, SIDE)
            density = np.exp(tabulate(on_arrays(judged.log_prob), axis, axis))
        estimate = estimate_mean(differences)
        return Measurement(
            {
                "kl": estimate.mean,
                "kl_standard_error": estimate.standard_error or 0.0,
                "steps": float(curve[-1, 1]),
                "parameters": float(flow.parameter_count),
            },
            {"curve": curve, "density": density, "axis": axis},
        )

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """Reproduced, if the continuous flow is below the planar one for every target and size."""
        targets, sizes, seeds, seconds = EXTENT[budget]
        kl = {
            key: np.array([m.figures["kl"] for t, m in measured if _key(t) == key])
            for key in {_key(t) for t, _ in measured}
        }
        rows, behind, level = [], [], []
        for target, size in product(targets, sizes):
            ours, theirs = kl[target, size, "cnf"], kl[target, size, "planar"]
            ahead = compare_paired(theirs, ours, resample=False)
            what = f"{target}, {size}"
            if ahead is not None and ahead.is_resolved:
                if ahead.mean < 0:
                    behind.append(what)
            else:
                level.append(what)
            rows.append(
                (
                    target,
                    str(size),
                    f"{ours.mean():.4f}",
                    f"{theirs.mean():.4f}",
                    compared(ahead),
                )
            )
        table = TextTable(
            "KL(q || p) at equal CPU time (nats)",
            ("target", "width or depth", "continuous", "planar", "planar above continuous [95%]"),
            tuple(rows),
            (False, True, True, True, True),
            (
                f"Means over {seeds} seeds. Each flow was trained for {seconds:g} CPU seconds with Adam. The "
                "interval is Student's t of the differences over the seeds. In the charts, bars reach from "
                "the lowest seed to the highest.",
                "The energies are those of Rezende and Mohamed (2015, table 1), within the square from -4 to "
                "4: three of them do not grow along the first axis, and have no integral on the plane.",
            ),
        )
        return Findings(
            "reproduced" if not behind and not level else "not reproduced",
            _reason(len(rows), behind, level, seconds),
            (table,),
            tuple(_chart(target, sizes, kl) for target in targets),
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
    options = ContinuousOptions(field={"name": "hypernetwork", "width": size})
    return ContinuousFlow(2, options, generator)


def _divergences(flow: Flow, target: Potential, n: int, generator: torch.Generator) -> Tensor:
    """log q(x) - log p(x), nats, at n draws x of the flow, `(n,)`; their mean is KL(q || p)."""
    z = flow.sample_base(n, generator)
    mapped = flow.to_data(z)
    return base_log_prob(z) - mapped.log_det - target.log_prob(mapped.value)


def _train(
    flow: Flow, target: Potential, rate: float, seconds: float, generator: torch.Generator, tell: Tell
) -> Floats:
    """Train the flow for CPU seconds; returns (CPU seconds, step, KL of the batch) about every hundredth."""
    optimizer = torch.optim.Adam(flow.parameters(), lr=rate)
    began, step = time.process_time(), 0
    curve: list[tuple[float, float, float]] = []
    while (spent := (time.process_time() - began) / seconds) < 1:
        optimizer.param_groups[0]["lr"] = rate * 0.5 * (1 + math.cos(math.pi * spent))
        optimizer.zero_grad()
        loss = _divergences(flow, target, BATCH, generator).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(flow.parameters(), 10.0)
        if not curve or spent >= len(curve) / 100:
            curve.append((spent * seconds, step, loss.item()))
            tell(f"step {step:,}, KL {loss.item():.4f}, {seconds * (1 - spent):.0f} s left")
        optimizer.step()
        step += 1
    return np.array([*curve, (seconds, step, curve[-1][2])])


def _key(trial: Trial) -> tuple[str, int, str]:
    return trial.values["target"], trial.values["size"], trial.values["model"]


def _reason(cases: int, behind: Sequence[str], level: Sequence[str], seconds: float) -> str:
    told = f"After {seconds:g} CPU seconds each, the continuous flow is below the planar one, with intervals"
    told += f" without zero, in {cases - len(behind) - len(level)} of {cases} pairs of target and size."
    if level:
        told += f" Not told apart: {'; '.join(level)}."
    if behind:
        told += f" Above it: {'; '.join(behind)}."
    return told


def _chart(target: str, sizes: Sequence[int], kl: dict[tuple[str, int, str], Floats]) -> Chart:
    x = np.array(sizes, dtype=float)
    series = []
    for model in MODELS:
        values = [kl[target, size, model] for size in sizes]
        series.append(
            Series(
                model,
                x,
                np.array([each.mean() for each in values]),
                np.array([each.min() for each in values]),
                np.array([each.max() for each in values]),
            )
        )
    return Chart(f"{target}", "width or depth", "KL(q || p), nats", tuple(series), ("x", "y"))


def _images(targets: Sequence[str], size: int, measured: Sequence[tuple[Trial, Measurement]]) -> list[Image]:
    """The densities of the targets, and those of the largest flows of the first seed."""
    images = []
    for target in targets:
        shown = {
            t.values["model"]: m
            for t, m in measured
            if _key(t)[:2] == (target, size) and not t.values["seed"]
        }
        axis = next(iter(shown.values())).arrays["axis"]
        truth = np.exp(tabulate(on_arrays(POTENTIALS[target].log_prob), axis, axis))
        images.append(Image(f"{target}: target", axis, axis, truth))
        images += [
            Image(f"{target}: {name}, {size}", axis, axis, m.arrays["density"]) for name, m in shown.items()
        ]
    return images
