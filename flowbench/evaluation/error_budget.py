"""The sources of error of one model's log-likelihoods, under one choice of options."""

from flowbench.evaluation.averaging import Averaging
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.reference_draws import ReferenceDraws
from flowbench.evaluation.rounding import RoundingError
from flowbench.evaluation.solver_error import SolverError
from flowbench.evaluation.solver_levels import OnRows, SolverLevels
from flowbench.models.density_model import DensityModel


class ErrorBudget:
    """A model at several levels of accuracy, and what is known of each source of error.

    Nothing is solved before it is needed, and what was found on the model's own draws is kept for all rows
    that are scored or drawn later. `strict` says whether a solve that fails raises (`SolverLevels`).
    """

    def __init__(
        self,
        model: DensityModel,
        options: EvaluationOptions,
        on_rows: OnRows = lambda done, total: None,
        *,
        strict: bool = True,
    ) -> None:
        self.options = options
        self.levels = SolverLevels(model, options, on_rows, strict=strict)
        self.references = ReferenceDraws(self.levels)
        self.rounding = RoundingError(self.references)
        self.solver = SolverError(self.references, self.rounding)
        self.averaging = Averaging(self.references, self.solver)
