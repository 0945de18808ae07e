"""Synthetic runs whose densities, samples and likelihoods belong together, written by the real store."""

from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from scipy.special import logsumexp

from flowbench.store import Certificate, Grid, Metric, Results, RowSplit, Run, Samples, ScoredRows, Trajectory

Floats = NDArray[np.float64]
SHA256 = "5f" * 32


class Mixture:
    """Equal round normals at `centres: (k, d)`."""

    def __init__(self, centres: Floats, scale: float) -> None:
        self.centres = centres
        self.scale = scale

    def log_prob(self, x: Floats) -> Floats:
        squares = np.sum((x[..., None, :] - self.centres) ** 2, axis=-1) / self.scale**2
        constant = self.centres.shape[1] * np.log(self.scale * np.sqrt(2 * np.pi)) + np.log(len(self.centres))
        log_prob: Floats = logsumexp(-squares / 2, axis=-1) - constant
        return log_prob

    def sample(self, n: int, rng: np.random.Generator) -> Floats:
        means = self.centres[rng.integers(len(self.centres), size=n)]
        return means + self.scale * rng.standard_normal(means.shape)


def ring(features: int = 2, modes: int = 8, radius: float = 2.8) -> Floats:
    """Centres on a circle in the first two columns, on a slope in the others."""
    angles = 2 * np.pi * np.arange(modes) / modes
    centres = [radius * np.cos(angles), radius * np.sin(angles)]
    return np.stack([*centres, *(np.linspace(-k, k, modes) for k in range(3, features + 1))], axis=1)


TRUTH = 0.5
SCALES = {"cnf": 0.52, "planar": 0.75, "gaussian": 2.0}


@cache
def entropy(features: int) -> float:
    """Of the truth, in nats, by Monte Carlo."""
    true = Mixture(ring(features), TRUTH)
    return float(-true.log_prob(true.sample(50_000, np.random.default_rng(5))).mean())


def make_results(
    model: str,
    *,
    features: int = 2,
    seed: int = 0,
    test_rows: int = 1000,
    columns: Sequence[str] | None = None,
    truth: bool = True,
    grid: bool = True,
    first_row: int = 0,
    samples: int = 2000,
) -> Results:
    """What a model that has widened every mode to its own scale would have stored."""
    rng = np.random.default_rng(1000 + seed)
    centres = ring(features)
    true = Mixture(centres, TRUTH)
    fitted = Mixture(centres + 0.02 * rng.standard_normal(centres.shape), SCALES.get(model, 1.0))
    x = true.sample(test_rows, np.random.default_rng(first_row))
    log_prob = fitted.log_prob(x)
    true_log_prob = true.log_prob(x) if truth else None
    drawn = fitted.sample(samples, rng)
    axis = np.linspace(-4.95, 4.95, 100)
    points = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1)
    metrics = {
        "test_nll": Metric(-log_prob.mean(), "nats"),
        "validation_nll": Metric(-log_prob.mean() + 0.01, "nats"),
        "parameters": Metric(float(1000 * (1 + list(SCALES).index(model))) if model in SCALES else 7.0, "1"),
        "cpu_seconds": Metric(61.2, "seconds"),
        "wall_seconds": Metric(60.1 if model != "gaussian" else 0.013, "seconds"),
        "evaluation_cpu_seconds": Metric(4.4, "seconds"),
    }
    if truth:
        metrics["entropy"] = Metric(entropy(features), "nats")
    tabulated, paths = None, None
    if features == 2 and grid:
        tabulated = Grid(axis, axis, fitted.log_prob(points), true.log_prob(points) if truth else None)
        metrics["grid_mass"] = Metric(float(np.exp(tabulated.log_prob).sum() * (axis[1] - axis[0]) ** 2), "1")
    if model == "cnf":
        metrics |= {"nfe": Metric(182.0, "evaluations"), "log_prob_error_largest": Metric(3.4e-5, "nats")}
        time = np.linspace(0, 1, 11)
        base = 1.5 * rng.standard_normal((200, features))
        ends = drawn[:200]
        paths = Trajectory(time, (1 - time)[:, None, None] * base + time[:, None, None] * ends)
    certificates = {
        "normalisation": Certificate(2e-4, 0.01, "1", True, "the density adds up to 0.9998 ± 0.0001"),
        "round_trip": Certificate(3e-6, 1e-2, "standard deviations", True, "200 rows come back"),
    }
    return Results(
        columns=tuple(columns or ["x", "y", *(f"column {k}" for k in range(3, features + 1))]),
        scored=ScoredRows(np.arange(first_row, first_row + test_rows), x, log_prob, true_log_prob),
        samples=Samples(drawn, fitted.log_prob(drawn)),
        split=RowSplit(np.arange(0), np.arange(0), np.arange(first_row, first_row + test_rows)),
        metrics=metrics,
        grid=tabulated,
        trajectory=paths,
        certificates=certificates,
    )


def make_history(model: str, seed: int, final: float) -> list[dict[str, Any]]:
    """A training log that ends at validation NLL `final`."""
    if model == "gaussian":
        return [
            {
                "step": 0,
                "phase": 0,
                "objective": "",
                "loss": None,
                "wall_seconds": 0.0,
                "validation_nll": final,
            }
        ]
    rng = np.random.default_rng(seed)
    seconds = np.linspace(0.0, 60.0, 41)
    above = 3.0 * np.exp(-seconds / 8) + 0.01 * rng.standard_normal(41) * (seconds < 55)
    switch = 36 if model == "cnf" else 0
    return [
        {
            "step": 100 * k,
            "phase": int(k >= switch),
            "objective": "likelihood" if k >= switch else "flow-matching",
            "loss": float(2 + above[k] + 0.1 * rng.standard_normal()) if k else None,
            "learning_rate": 2e-3,
            "wall_seconds": float(seconds[k]),
            "cpu_seconds": float(seconds[k]),
            "rows_per_second": 50_000.0,
            "validation_nll": float(final + above[k]),
            "nfe": 60 if model == "cnf" else None,
        }
        for k in range(41)
    ]


def write_run(
    folder: Path,
    model: str = "cnf",
    *,
    name: str | None = None,
    dataset: str = "8gaussians",
    seed: int = 0,
    sha256: str = SHA256,
    status: str = "finished",
    results: Results | bool = True,
    info: dict[str, Any] | None = None,
    options: dict[str, Any] | None = None,
    **shape: Any,
) -> Run:
    """Write a run into `folder`; with `results=False` it has none, as if it had been interrupted."""
    made = make_results(model, seed=seed, **shape) if results is True else results or None
    columns = list(made.columns) if made else ["x", "y"]
    name = name or f"{dataset}-{model}-{seed}"
    rows = 10 * len(made.scored.row) if made else 1000
    described = {
        "model": model,
        "dataset": {
            "name": dataset,
            "source": "drawn by flowbench",
            "sha256": sha256,
            "licence": "MIT",
            "description": "eight normals on a ring",
            "rows": rows,
            "columns": columns,
        },
        "split": {"train": 8 * rows // 10, "validation": rows // 10, "test": rows // 10},
        "seed": seed,
        "status": status,
        "device": "cpu",
        "started": f"2026-05-01T12:0{seed}:00+00:00",
        "finished": f"2026-05-01T12:0{seed + 1}:00+00:00",
        "command": ["flowbench", "fit", dataset, "--model", model],
        "versions": {"python": "3.11.2", "flowbench-density": "0.1.0", "torch": "2.13.0"},
        "host": {"platform": "Linux", "machine": "x86_64", "cpus": 2},
        **(info or {}),
    }
    config = {"data": {"dataset": dataset}, "seed": seed, "flow": {"name": model, **(options or {})}}
    run = Run.create(folder / name, config, described)
    final = made.metrics["validation_nll"].value if made else 3.0
    for record in make_history(model, seed, final)[: None if made else 5]:
        run.append_metrics(record)
    if made:
        run.write_results(made)
    return run


RunMaker = Callable[..., Run]


@pytest.fixture(scope="session")
def run_writer() -> RunMaker:
    """`write_run`, for fixtures that outlive a test."""
    return write_run


@pytest.fixture
def make_run(tmp_path: Path) -> RunMaker:
    """`write_run` into a fresh folder."""
    return partial(write_run, tmp_path / "runs")


@pytest.fixture
def results_of() -> Callable[..., Results]:
    """`make_results`, for tests that change something in them."""
    return make_results
