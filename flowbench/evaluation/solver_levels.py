"""One model under its own solver, under ever finer ones, and under a looser one."""

from collections.abc import Callable
from contextlib import suppress
from functools import partial

import torch
from torch import Tensor

from flowbench.errors import IntegrationError
from flowbench.evaluation.evaluation_options import COARSE, EvaluationOptions
from flowbench.evaluation.failures import failing_rows, past_failures, spread_scores
from flowbench.models.density import Scores
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows

#: The level whose solves are looser than the options ask for, and the tolerance of these solves. At it the
#: places within one cell are compared, which differ by far more than such solves are off.
LOOSER, LOOSE = -1, 1e-4
#: Draws that are given up together where the solve of one of them fails.
FEW_DRAWS = 8

#: Called with the number of rows that are done and the number of all rows.
OnRows = Callable[[int, int], None]


class SolverLevels:
    """A model that scores rows at several levels of accuracy.

    Level 0 is the solver that the options name, in the dtype and with the divergence that they name. Level k
    refines its tolerance by 10**-k, or its fixed grid by 2**k, in float64. `LOOSER` is the level below 0.
    Models are copied once for each level and dtype. `on_rows` hears of the rows that `solve` has scored.

    If `strict`, the first solve that fails raises. If not, `solve` finds every row that fails before it
    raises, `attempt` gives these rows NaN, and draws of the model that fail are left out. `first` is the
    number of the first of the rows that are scored, from 0, by which errors name rows.
    """

    def __init__(
        self,
        model: DensityModel,
        options: EvaluationOptions,
        on_rows: OnRows = lambda done, total: None,
        *,
        strict: bool = True,
    ) -> None:
        self.model = model
        self.options = options
        self.on_rows = on_rows
        self.strict = strict
        self.first = 0
        self._models: dict[tuple[int, torch.dtype], DensityModel] = {}

    def dtype_at(self, level: int) -> torch.dtype:
        """The dtype of a level's solves.

        A refined solve is in float64, so that its difference from level 0 includes rounding.
        """
        dtype: torch.dtype = getattr(torch, self.options.dtype) if level == 0 else torch.float64
        return dtype

    def model_at(self, level: int, dtype: torch.dtype | None = None) -> DensityModel:
        """The model with the solver of a level, in `dtype` or in that of the level."""
        dtype = dtype or self.dtype_at(level)
        if (level, dtype) not in self._models:
            given = self.options.integrator
            integrator = given.coarsened(LOOSE) if level == LOOSER else given.refined(level)
            self._models[level, dtype] = self.model.for_evaluation(
                integrator, divergence=self.options.divergence, dtype=dtype
            )
        return self._models[level, dtype]

    def coarse_model(self, dtype: torch.dtype) -> DensityModel:
        """The model in `dtype`, as coarse as a density is pictured."""
        coarse = self.options.integrator.coarsened(COARSE)
        return self.model.for_evaluation(coarse, divergence=self.options.divergence, dtype=dtype)

    def exact_model(self, level: int = 0) -> DensityModel:
        """The model with the solver of a level >= 0, in float64 and with the exact divergence."""
        return self.model.for_evaluation(self.options.integrator.refined(level))

    def solve(self, rows: Rows, level: int, seed: int = 0) -> Scores:
        """Scores of n `rows`, data units, at a level.

        The probes of an estimated divergence follow from `seed` and the place of the rows among these. They
        are the same at every level, so that solves differ by their steps alone.

        Raises `IntegrationError` if a solve fails. The `rows` of the error are places: those of the first
        batch that fails if strict, all those that fail if not.
        """
        return self._solve(self.model_at(level), rows, seed)

    def solve_exactly(self, rows: Rows) -> Scores:
        """`solve` at level 0, but in float64 and with the exact divergence."""
        return self._solve(self.exact_model(), rows)

    def _solve(self, model: DensityModel, rows: Rows, seed: int = 0) -> Scores:
        parts, failed = [], dict[int, str]()
        for start in range(0, len(rows), model.chunk):
            batch = rows[start : start + model.chunk]
            solve = partial(_score_with_seed, model, start + seed)
            try:
                parts.append(solve(batch))
            except IntegrationError as error:
                if self.strict:
                    raise _naming_rows(error, start, len(batch), self.first) from error
                causes = failing_rows(solve, batch, error)
                failed |= {start + place: cause for place, cause in causes.items()}
            self.on_rows(start + len(batch), len(rows))
        if failed:
            raise IntegrationError(f"the solves of {len(failed)} of {len(rows)} rows failed", rows=failed)
        return Scores.join(parts)

    def attempt(self, rows: Rows, level: int) -> tuple[Scores, dict[int, str]]:
        """`solve`, with NaN for the rows that fail, and the cause of each by its place among the n `rows`.

        If strict, it raises as `solve` does.
        """
        if self.strict:
            return self.solve(rows, level), {}
        kept, scores, failed = past_failures(len(rows), lambda places: self.solve(rows[places], level))
        return spread_scores(scores, kept, len(rows)), failed

    def draw(self, model: DensityModel, n: int, generator: torch.Generator) -> tuple[Rows, Scores]:
        """`n` draws of `model` with their scores; fewer if some fail and it is not strict.

        Those of a conditional model are at contexts of its train rows.
        """
        context = None if model.givens is None else model.givens.draw(n, generator)
        try:
            x, scores = model.draw_places(n, generator, context=context)
            return Rows(x, context), scores
        except IntegrationError:
            if self.strict:
                raise
        nothing = torch.zeros(0, len(model.columns), dtype=torch.float64)
        parts = [(Rows(nothing, None if context is None else context[:0]), Scores(nothing[:, 0]))]
        for start in range(0, n, FEW_DRAWS):
            few = min(FEW_DRAWS, n - start)
            given = None if context is None else context[start : start + few]
            with suppress(IntegrationError):
                x, scores = model.draw_places(few, generator, context=given)
                parts.append((Rows(x, given), scores))
        return Rows.join([rows for rows, _ in parts]), Scores.join([scores for _, scores in parts])

    def score_draws(self, model: DensityModel, rows: Rows) -> Scores:
        """Scores of n draws, `rows`, by `model`, with the same probes every time.

        A draw whose solve fails gets NaN if not strict; if strict, `IntegrationError` is raised.
        """
        if not len(rows):
            return spread_scores(None, torch.arange(0), 0)
        solve = partial(_score_with_seed, model, 1)
        if self.strict:
            return solve(rows)

        def named(places: Tensor) -> Scores:
            try:
                return solve(rows[places])
            except IntegrationError as error:
                raise IntegrationError(str(error), rows=failing_rows(solve, rows[places], error)) from error

        kept, scores, _ = past_failures(len(rows), named)
        return spread_scores(scores, kept, len(rows))


def _score_with_seed(model: DensityModel, seed: int, rows: Rows) -> Scores:
    return model.score_places(rows.x, torch.Generator().manual_seed(seed), context=rows.context)


def _naming_rows(error: IntegrationError, start: int, n: int, first: int) -> IntegrationError:
    """The same error, with the places of its rows among all that are scored, and what to do about it.

    The text counts from row number `first` of all, which may be scored in several calls.
    """
    return IntegrationError(
        f"rows {first + start + 1} to {first + start + n} of those scored, as one batch: {error}; or look "
        "there for values far outside the table that the run was fitted on, and leave their rows out",
        cause=error.cause,
        rows={start + place: cause for place, cause in error.rows.items()},
    )
