"""Log-likelihoods of rows with missing cells: those of the cells that are there."""

from dataclasses import replace

import torch
from torch import Tensor

from flowbench.evaluation.error_budget import ErrorBudget
from flowbench.evaluation.failures import spread
from flowbench.evaluation.reported import Likelihoods, score_rows
from flowbench.evaluation.solver_levels import LOOSER
from flowbench.models.completion import observed_log_prob
from flowbench.models.rows import Rows


def has_gaps(rows: Rows) -> Tensor:
    """Which of the n rows have a missing cell, NaN: `(n,)`."""
    missing = rows.x.isnan().any(1)
    return missing if rows.context is None else missing | rows.context.isnan().any(1)


@torch.no_grad()
def score_known(budget: ErrorBudget, rows: Rows) -> tuple[Likelihoods, Tensor | None]:
    """Log-densities of n rows of the table, and the log-masses `(n,)` of their categories, if there are some.

    Complete rows are scored as `score_rows` does. A row with missing cells, NaN, gets the log-likelihood of
    the others (`flowbench.models.completion.observed_log_prob`), solved at the level `LOOSER`. Its error
    covers the scatter of the completions. Its log-density is that less the log-mass of the categories that
    are there. Raises `IntegrationError` if a solve fails and the budget is strict.
    """
    model = budget.levels.model
    log_mass = model.log_mass(rows.context)
    gaps = has_gaps(rows)
    if not bool(gaps.any()):
        return score_rows(budget, rows), log_mass

    def score(whole: Rows, draw: int) -> Tensor:
        return budget.levels.attempt(whole, LOOSER)[0].log_prob

    n, kept, open_ = len(rows), (~gaps).nonzero().squeeze(1), gaps.nonzero().squeeze(1)
    found = score_rows(budget, rows[kept]) if len(kept) else _nothing()
    log_prob, error = spread(found.log_prob, kept, n), spread(found.error, kept, n)
    log_prob[open_], error[open_] = observed_log_prob(model, rows[open_], score)
    if log_mass is not None:
        log_prob[open_] -= log_mass[open_]
    flagged = torch.zeros(n, dtype=torch.bool)
    flagged[kept] = found.flagged
    if (bound := budget.options.max_error) is not None:
        flagged[open_] = ~(error[open_] <= bound)
    places = kept.tolist()
    return replace(
        found,
        log_prob=log_prob,
        error=error,
        flagged=flagged,
        parts={name: spread(part, kept, n) for name, part in found.parts.items()},
        failed={places[row]: cause for row, cause in found.failed.items()},
        unrefined={places[row]: cause for row, cause in found.unrefined.items()},
    ), log_mass


def _nothing() -> Likelihoods:
    nothing = torch.zeros(0, dtype=torch.float64)
    return Likelihoods(nothing, nothing, torch.zeros(0, dtype=torch.bool))
