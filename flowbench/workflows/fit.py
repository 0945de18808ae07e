"""From a configuration to a run: train, evaluate, store; and on from what was stored."""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Self

import torch

from flowbench.data import Dataset, Split
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.evaluation.fit_results import compute_results
from flowbench.evaluation.pitfalls import Pitfalls
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.givens import Givens
from flowbench.store import Metric, Run
from flowbench.training.progress import Progress
from flowbench.training.state import TrainingState
from flowbench.training.trainer import Trainer
from flowbench.workflows.config import RunConfig, with_evaluation
from flowbench.workflows.dataset_rows import (
    describe_dataset,
    find_circle,
    find_dequantiser,
    find_periods,
    find_support,
    given_levels,
    load_rows,
    set_atoms_aside,
    split_sizes,
    tell_pitfalls,
)
from flowbench.workflows.home import Home
from flowbench.workflows.machine import check_device, cpu_threads
from flowbench.workflows.preparation import (
    EVALUATION,
    Prepared,
    Watch,
    build_encoder,
    build_givens,
    build_mass,
    make_trainer,
    periods_in,
    place_rows,
    prepare,
    random_stream,
)
from flowbench.workflows.running import (
    Job,
    carry_out,
    check_is_free,
    describe_start,
    keep_evaluation,
    refuse_finished,
)
from flowbench.workflows.stored_run import StoredRun


def fit(
    config: RunConfig,
    *,
    home: Home | None = None,
    name: str | None = None,
    command: Sequence[str] = (),
    watch: Watch | None = None,
) -> Run:
    """Fit a model and store everything it says in a new run folder, which is returned.

    The run's status tells how it ended: "finished", or "interrupted" where `watch.should_stop` asked for
    an end (the best weights are kept, and `resume` goes on from the last validation). Raises `DataError`,
    `ConfigurationError` and `RunExistsError` before anything is written, and `RunFailedError` if training
    diverges.
    """
    home, watch = home or Home(), watch or Watch()
    check_device(config.device)
    check_is_free(home, name)
    with cpu_threads(config.threads), ExitStack() as held:
        dataset, split = load_rows(config, home.datasets)
        dataset = set_atoms_aside(config, dataset, split)
        periods, dataset = find_periods(config, dataset)
        circle = find_circle(periods, dataset)
        dequantiser = find_dequantiser(config, dataset, split)
        pitfalls = tell_pitfalls(config, dataset, split, dequantiser, watch.on_table or watch.on_warning)
        support = find_support(config, dataset, dequantiser, periods)
        encoder = build_encoder(config, dataset.target_names, dequantiser, support, dataset.atoms, circle)
        givens = build_givens(config, dataset.given, given_levels(dataset), periods)
        work = _Work.begin(config, dataset, split, encoder, givens, watch)
        stem = f"{Path(config.data.dataset).name.partition('.')[0]}-{config.flow.name}"
        run = home.create_run(name, stem, config.to_values(), work.describe(command, pitfalls), held)
        carry_out(_TableJob(StoredRun(run), work, watch), None, watch)
    return run


def resume(
    run: Run, *, settings: Sequence[str] = (), home: Home | None = None, watch: Watch | None = None
) -> Run:
    """Go on with a run that was interrupted or killed, or whose evaluation failed, from its last saved state.

    With a budget in steps and one thread, the weights end up the same, bit for bit, as those of a run that
    was never interrupted. `settings`, such as "evaluation.integrator.rtol=1e-5", change its evaluation, and
    its configuration on disk. Raises `RunExistsError` if the run is finished, `RunLockedError` if it is under
    way, `DataError` if the table has changed since.
    """
    home, watch = home or Home(), watch or Watch()
    refuse_finished(run)
    stored = StoredRun(run)
    config = stored.config
    if settings:
        config = with_evaluation(config, settings)
    check_device(config.device)
    with cpu_threads(config.threads), run.lock():
        dataset, split = load_rows(config, home.datasets)
        stored.check(dataset, split)
        dataset = dataset.with_atoms(stored.atoms)
        saved = stored.load_state()
        work = _Work.begin(config, dataset, split, saved.encoder, saved.givens, watch, saved.seconds)
        if settings:
            keep_evaluation(run, config)
        carry_out(_TableJob(stored, work, watch), saved.training, watch)
    return run


@dataclass(frozen=True)
class _Work:
    """What a run is made of before its first step."""

    config: RunConfig
    dataset: Dataset
    split: Split
    prepared: Prepared

    @classmethod
    def begin(
        cls,
        config: RunConfig,
        dataset: Dataset,
        split: Split,
        encoder: TableEncoder,
        givens: Givens | None,
        watch: Watch,
        spent: tuple[float, float] | None = None,
    ) -> Self:
        """Fit the encoders, unless seconds were `spent` on that already, and build the model."""
        rows = place_rows(encoder, dataset, config.data.seed)
        train, validation = (rows[torch.from_numpy(part)] for part in (split.train, split.validation))
        del rows  # as large as the table
        prepared = prepare(
            config,
            encoder,
            train,
            validation,
            watch.on_preparation,
            givens=givens,
            mass=build_mass(dataset.categorical, given_levels(dataset)),
            spent=spent,
        )
        if prepared.chosen:
            watch.on_choice(prepared.chosen)
        for text in prepared.model.flow.remarks:
            watch.on_warning(text)
        return cls(config, dataset, split, prepared)

    def describe(self, command: Sequence[str], pitfalls: Pitfalls) -> dict[str, Any]:
        """What `run.json` says of a run that begins."""
        model = self.prepared.model
        flow = model.flow
        divergence = flow.divergence.describe(flow.field) if isinstance(flow, ContinuousFlow) else None
        return {
            **describe_start(self.config, command),
            "model": self.config.flow.name,
            **({"divergence": divergence} if divergence else {}),
            "dataset": describe_dataset(
                self.dataset, model.encoder.dequantiser, model.encoder.support, periods_in(model)
            ),
            "pitfalls": asdict(pitfalls),
            "split": split_sizes(self.split),
        }


class _TableJob(Job):
    """The fit of a density of the rows of a table."""

    def __init__(self, stored: StoredRun, work: _Work, watch: Watch) -> None:
        self.run = stored.run
        self.seconds = work.prepared.encoder_seconds
        self._stored = stored
        self._work = work
        self._watch = watch

    def begin_told(self) -> dict[str, Any]:
        prepared = self._work.prepared
        return {"chosen": prepared.chosen or None, "remarks": list(prepared.model.flow.remarks) or None}

    def make_trainer(self, on_validation: Callable[[Progress], None]) -> Trainer[Any, Any]:
        return make_trainer(self._work.prepared, self._watch, on_validation)

    def save_state(self, state: TrainingState) -> None:
        self._stored.save_state(state, self._work.prepared.model, self.seconds)

    def save_model(self) -> None:
        self._stored.save_model(self._work.prepared.model)

    def evaluate(self, training_metrics: dict[str, Metric]) -> dict[str, Any]:
        config, run = self._work.config, self.run
        results = compute_results(
            self._work.prepared.model,
            self._work.dataset,
            self._work.split,
            config.evaluation,
            random_stream(config.seed, EVALUATION),
            training_metrics=training_metrics,
            provenance={"run": run.name, **run.dataset, "seed": config.seed},
            warn=self._watch.on_warning,
        )
        run.write_results(results)
        return {"test_rows_scored": len(results.scored.row)}
