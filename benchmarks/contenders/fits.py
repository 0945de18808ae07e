"""Models that are trained for a number of CPU seconds, and then asked for the same test rows."""

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from benchmarks.contenders.others import OTHERS
from benchmarks.known import known
from benchmarks.worker import Answer, Contender
from flowbench.errors import IntegrationError
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.ode.integrator import Derivative, PathDerivative, Solution, State
from flowbench.ode.native_engine import NativeOptions
from flowbench.ode.per_row_engine import PerRowIntegrator, PerRowOptions
from flowbench.studies.timed_fit import TimedFit
from flowbench.workflows.config import resolve

#: Test rows that are solved twice, for the errors of all.
ERROR_ROWS = 200
#: A tolerance at which evaluations are counted beside those of the scores.
LOOSE = 1e-5
COUNTED_ROWS = 2000


@dataclass(frozen=True)
class Task(TimedFit):
    """A fit whose rows were drawn from the density of `benchmarks.known` called `truth`, if it has a name."""

    truth: str = ""

    def answer(self, log_prob: Tensor, **figures: Any) -> Answer:
        """Log-likelihoods of the test rows, and the truth where it is known."""
        arrays = {"log_prob": log_prob.double().numpy()}
        density = known(self.truth) if self.truth else self.dataset.density
        if density is not None:
            arrays["truth"] = density.log_prob(self.test)
        return Answer(arrays, figures)


def load(dataset: str, model: str, seconds: float, seed: int, test_rows: int, settings: list[str]) -> Task:
    """The rows of `dataset`, and flowbench's `model` of them, untrained."""
    torch.set_num_threads(1)
    overrides = {
        "plan.seconds": seconds,
        "plan.patience": 0,
        "seed": seed,
        "data.seed": seed,
        "evaluation.error_rows": ERROR_ROWS,
    }
    config = resolve(dataset, model, overrides=overrides, settings=settings)
    return Task.load(config, test_rows, Path("datasets"))


def flowbench(
    dataset: str,
    model: str,
    seconds: float,
    seed: int,
    test_rows: int,
    settings: list[str] | None = None,
    truth: str = "",
) -> Contender:
    """A model of flowbench as `flowbench fit` trains it, but for CPU seconds and without an early stop.

    `truth` is the name of a density of `benchmarks.known`, where the rows were drawn from one.
    """
    task = replace(load(dataset, model, seconds, seed, test_rows, settings or []), truth=truth)

    def once() -> Answer:
        trainer = task.train()
        scores = task.score()
        return task.answer(
            scores.log_prob,
            seconds=trainer.counters.cpu_seconds,
            steps=trainer.counters.step,
            nfe=scores.nfe,
            row_error=scores.error.max().item(),
            background=background.whole_share if (background := task.prepared.model.background) else None,
            validation_nll=trainer.counters.best_nll,
            **_evaluations(task),
        )

    return once


def other(
    dataset: str,
    name: str,
    like: str,
    seconds: float,
    seed: int,
    test_rows: int,
    settings: list[str] | None = None,
) -> Contender:
    """The flow called `name` of another library, trained as flowbench's model `like` is, by likelihood."""
    task = load(dataset, like, seconds, seed, test_rows, settings or [])
    model = task.prepared.model
    model.flow, model.background = OTHERS[name](len(model.columns)), None

    def once() -> Answer:
        trainer = task.train()
        options = task.prepared.config.evaluation
        rows = torch.from_numpy(task.test)
        scores, finer = (
            task.prepared.model.for_evaluation(options.integrator.refined(level)).score(part)
            for level, part in ((0, rows), (1, rows[:ERROR_ROWS]))
        )
        off = (scores.log_prob[:ERROR_ROWS] - finer.log_prob).abs().max().item()
        return task.answer(
            scores.log_prob,
            seconds=trainer.counters.cpu_seconds,
            steps=trainer.counters.step,
            nfe=scores.nfe,
            row_error=off,
            validation_nll=trainer.counters.best_nll,
        )

    return once


def _evaluations(task: Task) -> dict[str, Any]:
    """What a solve at `LOOSE` takes: of batches with common steps, of the mean row and of the slowest alone.

    Empty for a model that solves no equation, and for one of which a solve with common steps fails.
    """
    if not isinstance(task.prepared.model.flow, ContinuousFlow):
        return {}
    tolerances = {"atol": LOOSE, "rtol": LOOSE}
    batch = task.prepared.model.for_evaluation(NativeOptions(**tolerances))
    single = task.prepared.model.for_evaluation(PerRowOptions(**tolerances))
    counting = CountingIntegrator(PerRowOptions(**tolerances))
    cast(ContinuousFlow, single.flow).integrator = counting
    rows = torch.from_numpy(task.test[:COUNTED_ROWS])
    with torch.no_grad(), suppress(IntegrationError):
        return {
            "nfe_of_batches": batch.score(rows).nfe,
            "nfe_of_slowest_row": single.score(rows).nfe,
            "nfe_of_mean_row": counting.rows / len(rows),
        }
    return {}


class CountingIntegrator(PerRowIntegrator):
    """Counts `rows`, the evaluations of all of them together."""

    rows = 0

    def integrate(
        self, f: Derivative, *arguments: Any, path: PathDerivative | None = None, **others: Any
    ) -> Solution:
        return super().integrate(self._counted(f), *arguments, path=path and self._counted(path), **others)

    def _counted(self, derivative: Callable[..., Any]) -> Callable[..., Any]:
        def counted(t: Tensor, y: State, *args: Tensor) -> Any:
            self.rows += len(t)
            return derivative(t, y, *args)

        return counted


def classical(dataset: str, seed: int, test_rows: int, settings: list[str]) -> Contender:
    """scikit-learn's Gaussian, mixture (by BIC) and kernel density (width by cross-validation).

    Fitted on train and validation rows together, as they need none to choose their weights.
    """
    from sklearn.mixture import GaussianMixture
    from sklearn.model_selection import GridSearchCV
    from sklearn.neighbors import KernelDensity

    task = load(dataset, "cnf", 1.0, seed, test_rows, settings)
    model, chosen = task.prepared.model, np.concatenate([task.split.train, task.split.validation])
    rows = model.encoder.to_model(torch.from_numpy(task.rows[chosen]))[0].numpy()

    def once() -> Answer:
        widths = {"bandwidth": np.geomspace(0.03, 1.5, 25)}
        fits = [
            GaussianMixture(count, reg_covar=1e-4, n_init=3, random_state=0).fit(rows)
            for count in range(1, min(8, len(rows) // 10) + 1)
        ]
        densities = {
            "Gaussian": fits[0],
            "mixture": min(fits, key=lambda fit: fit.bic(rows)),
            "KDE": GridSearchCV(KernelDensity(), widths, cv=5).fit(rows).best_estimator_,
        }
        z, log_det = (part.numpy() for part in model.encoder.to_model(torch.from_numpy(task.test)))
        return Answer({name: fit.score_samples(z) + log_det for name, fit in densities.items()})

    return once
