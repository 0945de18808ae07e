"""The scikit-learn face: a density estimator like any other."""

from collections.abc import Mapping
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from sklearn.base import BaseEstimator, DensityMixin
from sklearn.utils import check_random_state
from sklearn.utils.validation import check_is_fitted, validate_data

from flowbench.encoding.dequantiser import choose_dequantiser
from flowbench.errors import ConfigurationError
from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.reported import mean_log_prob, score_rows
from flowbench.models.rows import Rows
from flowbench.workflows.config import RunConfig, resolve
from flowbench.workflows.preparation import DEQUANTISATION, Watch, build_encoder, make_trainer, prepare

Floats = NDArray[np.float64]

#: Parts of a run that `options` may set.
PARTS = ("flow", "plan", "transforms", "background")


class FlowDensity(DensityMixin, BaseEstimator):
    """A normalizing flow as a scikit-learn density estimator.

    Parameters
    ----------
    model : str
        A model of the registry, such as "cnf", "planar", "nsf" or "mixture".
    preset : str
        "default", or a published recipe of the model, such as "ffjord" for "cnf".
    time_budget : float or None
        Seconds of training; 60 if neither `steps` nor the preset sets steps. Of both, whichever ends first.
    steps : int or None
        Optimiser steps; results repeat exactly only with a budget in steps.
    dequantise : bool
        Whether columns of evenly spaced values, most of which repeat, are spread over the cells that these
        stand for; a log-likelihood is then the mean over a row's cell (`flowbench.encoding.dequantiser`).
    validation_fraction : float
        Share of the rows held out to choose the weights and to stop early.
    options : mapping or None
        Further options by dotted name, such as {"flow.field.width": 128}; of the evaluation those of its
        integrator, which scores and draws.
    random_state : int, RandomState or None
        Seed of the held-out rows, the weights and the batches.

    Attributes
    ----------
    model_ : flowbench.models.density_model.DensityModel
        The fitted model, float64, with exact divergence; `model_.as_distribution(generator)` is a
        `torch.distributions.Distribution`. Its `encoder` has the dequantiser.
    config_ : flowbench.workflows.config.RunConfig
        The resolved configuration.
    n_features_in_ : int
        Columns seen in `fit`.
    """

    def __init__(
        self,
        model: str = "cnf",
        *,
        preset: str = "default",
        time_budget: float | None = None,
        steps: int | None = None,
        dequantise: bool = True,
        validation_fraction: float = 0.1,
        options: Mapping[str, Any] | None = None,
        random_state: int | np.random.RandomState | None = None,
    ) -> None:
        self.model = model
        self.preset = preset
        self.time_budget = time_budget
        self.steps = steps
        self.dequantise = dequantise
        self.validation_fraction = validation_fraction
        self.options = options
        self.random_state = random_state

    def fit(self, X: ArrayLike, y: None = None) -> Self:
        """Learn the density of the rows of `X: (n, d)`; `y` is ignored.

        Raises `ValueError` for options that cannot work and for columns without spread, and
        `RunFailedError` if training diverges.
        """
        if not 0 < self.validation_fraction < 1:
            raise ConfigurationError(
                f"`validation_fraction` must lie between 0 and 1; got {self.validation_fraction}"
            )
        rows = validate_data(self, X, dtype=np.float64, ensure_min_samples=2)
        random = check_random_state(self.random_state)
        config = self._configure(int(random.randint(2**31 - 1)))
        order = random.permutation(len(rows))
        held_out = min(max(1, round(self.validation_fraction * len(rows))), len(rows) - 1)
        columns = tuple(f"x{i}" for i in range(rows.shape[1]))
        train, validation = rows[order[held_out:]], rows[order[:held_out]]
        dequantiser = choose_dequantiser(columns, train) if self.dequantise else None
        encoder = build_encoder(config, columns, dequantiser)
        random_places = np.random.default_rng((config.seed, DEQUANTISATION))
        learnt, judged = (Rows(encoder.jitter(torch.tensor(x), random_places)) for x in (train, validation))
        prepared = prepare(config, encoder, learnt, judged)
        make_trainer(prepared, Watch()).run()
        # Together and at the end: a fit that fails must leave an earlier one as it was.
        self.config_ = config
        self.model_ = prepared.model.cpu().for_evaluation(config.evaluation.integrator)
        return self

    def score_samples(self, X: ArrayLike) -> Floats:
        """Log-likelihood of each row of `X: (n, d)`: `(n,)`, nats, in the units of `X`."""
        log_prob: Floats = mean_log_prob(*self._to_score(X)).numpy()
        return log_prob

    def score_samples_with_errors(self, X: ArrayLike) -> tuple[Floats, Floats]:
        """As `score_samples`, and how far each log-likelihood may be off, `(n,)`, nats, by further solves.

        About 99 in 100 rows are off by less (`flowbench.evaluation.reported.score_rows`).
        """
        found = score_rows(*self._to_score(X))
        return found.log_prob.numpy(), found.error.numpy()

    def score(self, X: ArrayLike, y: None = None) -> float:
        """The mean log-likelihood of the rows of `X: (n, d)`, nats a row; higher is better."""
        return float(self.score_samples(X).mean())

    def sample(self, n_samples: int = 1, random_state: int | np.random.RandomState | None = None) -> Floats:
        """Draw rows `(n_samples, d)` in the units of the fitted rows; raises `ValueError` for none."""
        check_is_fitted(self)
        if n_samples < 1:
            raise ConfigurationError(f"`n_samples` must be at least 1; got {n_samples}")
        seed = int(check_random_state(random_state).randint(2**31 - 1))
        with torch.no_grad():
            drawn: Floats = self.model_.sample(n_samples, torch.Generator().manual_seed(seed)).numpy()
        return drawn

    def _to_score(self, X: ArrayLike) -> tuple[ErrorBudget, Rows]:
        """The error budget of the model, and the rows."""
        check_is_fitted(self)
        x = torch.tensor(validate_data(self, X, dtype=np.float64, reset=False))
        return ErrorBudget(self.model_, self.config_.evaluation), Rows(x)

    def _configure(self, seed: int) -> RunConfig:
        for name in self.options or {}:
            part = name.partition(".")[0]
            if part not in PARTS and not f"{name}.".startswith("evaluation.integrator."):
                raise ConfigurationError(
                    f"`options` takes those of {', '.join(PARTS)} and evaluation.integrator; got `{name}`"
                )
        own = {"plan.seconds": self.time_budget, "plan.steps": self.steps, "seed": seed}
        told = {name: value for name, value in own.items() if value is not None}
        return resolve("array", self.model, preset=self.preset, overrides={**(self.options or {}), **told})
