"""Judging a finished run: its draws, its calibration, and its solver."""

from dataclasses import replace

from flowbench.errors import ConfigurationError
from flowbench.evaluation.incomplete import has_gaps
from flowbench.evaluation.solver_ladder import climb
from flowbench.evaluation.solver_levels import OnRows
from flowbench.evaluation.suite import judge
from flowbench.models.rows import Rows
from flowbench.store import Metric, Run
from flowbench.store.rung import Rung
from flowbench.workflows.dataset_rows import load_rows
from flowbench.workflows.home import Home
from flowbench.workflows.machine import cpu_threads
from flowbench.workflows.stored_run import StoredRun

#: Figures of a run with which an evaluation begins.
_LOSSES = ("test_nll", "test_nll_standard_error", "kl_to_truth", "kl_to_truth_standard_error")


def evaluate(run: Run, *, seed: int = 0, home: Home | None = None) -> dict[str, Metric]:
    """Judge a finished run's draws and its calibration, and store what comes of it with its results.

    The figures are those of `flowbench.evaluation.suite.judge`, by name, after the run's NLL and, where the
    truth is known, its divergence from that. Raises `DataError` if the run has no
    results yet, or if its data set has changed; `RunLockedError` if the run is under way.
    """
    stored = StoredRun(run)
    with cpu_threads(stored.config.threads), run.lock():
        results = run.read_results()
        dataset, split = load_rows(stored.config, (home or Home()).datasets)
        stored.check(dataset, split)
        dataset = dataset.with_atoms(stored.atoms)
        options = stored.config.evaluation
        model = stored.model_on_device().for_evaluation(options.integrator)
        weights = None if dataset.weights is None else dataset.weights[split.train]
        train = Rows.of_arrays(*dataset.at(split.train), weights)
        found = judge(model, train, results, options, seed)
        metrics = {**results.metrics, **found.metrics}
        run.write_results(replace(results, metrics=metrics, calibration=found.calibration))
    return {name: metrics[name] for name in _LOSSES if name in metrics} | found.metrics


def tradeoff(
    run: Run, *, rows: int = 500, on_solver: OnRows = lambda done, total: None
) -> tuple[list[Rung], int]:
    """What solvers of the run's model cost and get wrong, on the first `rows` of its scored test rows.

    Returns the ladder of `flowbench.evaluation.solver_ladder.climb` and how many rows it was climbed with.
    Raises `ConfigurationError` if the run has no results yet or a single test row, or its model solves no
    equation.
    """
    stored = StoredRun(run)
    scored = run.read_results().scored
    few = Rows.of_arrays(scored.x, scored.context)
    few = few[~has_gaps(few)][:rows]
    if len(few) < 2:
        raise ConfigurationError(
            f"the run `{run.name}` has one test row, from which no interval of a bias follows; fit with more"
        )
    with cpu_threads(stored.config.threads):
        places = few.at(stored.model.encoder.spread(few.x, 0))
        return climb(stored.model, places, on_solver), len(few)
