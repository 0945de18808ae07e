"""The training loop: the phases of a plan inside one budget, and a state that resumes exactly.

What the loop decides by stands in files of its own, each to be read alone: `rows` (what a batch is drawn
from), `schedule` (the learning rate), `budget` (what is spent, when to validate, when to stop), `averaging`
(the weights that are judged), `judge` (how good weights are), `guard` (what happens when a step fails).
"""

import math
from collections.abc import Callable
from typing import Any, Generic, Literal

import torch

from flowbench.errors import ConfigurationError, IntegrationError, RunFailedError
from flowbench.models.trainable import Trainable
from flowbench.objectives.objective import ModelT, Objective
from flowbench.registry import OBJECTIVES
from flowbench.training import budget
from flowbench.training.criterion import Criterion
from flowbench.training.examples import ExamplesT, TrainingSet
from flowbench.training.gradient import Gradient
from flowbench.training.guard import Guard, find_fault
from flowbench.training.judge import NOT_JUDGED, Judge, Judgement
from flowbench.training.optimizers import make_optimizer, optimizer_tensors, restore_optimizer, set_rate
from flowbench.training.plan import Phase, TrainingPlan
from flowbench.training.precision import matmul_precision
from flowbench.training.progress import LossMeter, Progress, Throttle
from flowbench.training.schedule import learning_rate, smoothing_width
from flowbench.training.state import Counters, Tensors, TrainingState, copy_tensors
from flowbench.training.stopwatch import Stopwatch
from flowbench.training.weight_average import average_decay, update_average

Outcome = Literal["finished", "stopped early", "interrupted"]

#: Seconds between two calls of `on_progress`.
PROGRESS_INTERVAL = 0.2


def make_objectives(plan: TrainingPlan, model: Trainable) -> list[Objective[Any, Any]]:
    """The objective of each phase; raises `ConfigurationError` for one that cannot train `model`."""
    objectives: list[Objective[Any, Any]] = []
    for phase in plan.phases:
        objective = OBJECTIVES.get(phase.objective.name)(phase.objective)
        if not isinstance(model, objective.trains):
            raise ConfigurationError(
                f"objective `{phase.objective.name}` cannot train `{model.options.name}`; leave "
                "`plan.phases` out, or take those of its default"
            )
        objective.check(model)
        objectives.append(objective)
    return objectives


class Trainer(Generic[ModelT, ExamplesT]):
    """Trains `model` on the `examples` of a table in model space, by the phases of `plan`.

    `generator` draws the batches and all noise. `criterion` is the figure that chooses the weights.
    `on_progress` is called a few times a second at most, and
    `on_validation` after each validation, when `state()` may be saved. `should_stop` is asked before each
    step. `clock` counts the time of the run, and has begun already where something was fitted before.
    """

    def __init__(
        self,
        model: ModelT,
        plan: TrainingPlan,
        examples: TrainingSet[ExamplesT],
        *,
        generator: torch.Generator,
        criterion: Criterion[ModelT, ExamplesT],
        on_progress: Callable[[Progress], None] = lambda progress: None,
        on_validation: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Stopwatch | None = None,
    ) -> None:
        self.model = model
        self.plan = plan
        self.examples = examples
        self.generator = generator
        self.criterion = criterion
        self.on_progress = on_progress
        self.on_validation = on_validation
        self.should_stop = should_stop
        self.clock = clock or Stopwatch()
        self.gradients = [
            Gradient(model, objective, generator, clip_norm=phase.clip_norm or math.inf)
            for phase, objective in zip(plan.phases, make_objectives(plan, model), strict=True)
        ]
        self.judge = Judge(model, self.criterion, chunk=len(examples.validation))
        self.counters = Counters()
        self.ema = copy_tensors(model.state_dict())
        self.best = copy_tensors(model.state_dict())
        self.optimizer = self._new_optimizer()
        self.guard = Guard(self.state(), plan.max_rollbacks)
        #: Since the last validation; without a step in it, the weights are those that were judged.
        self._losses = LossMeter()
        self._throttle = Throttle(PROGRESS_INTERVAL)
        self._learning_rate = math.nan
        self.last_judgement = NOT_JUDGED
        self._best_judgement: Judgement | None = None

    def state(self) -> TrainingState:
        """Everything a resumed run needs to go on as if it had never stopped; the tensors are copies."""
        return TrainingState(
            flow=copy_tensors(self.model.state_dict()),
            ema=copy_tensors(self.ema),
            best=copy_tensors(self.best),
            optimizer=optimizer_tensors(self.optimizer),
            generator=self.generator.get_state(),
            counters=self.counters,
        )

    def load(self, state: TrainingState) -> None:
        """Go on from `state`, bit for bit where the budget is in steps."""
        self.counters = state.counters
        self._restore(state)
        self.best = self._on_device(state.best)
        self.generator.set_state(state.generator)
        self.guard.trusted = state
        self.clock = Stopwatch(state.counters.wall_seconds, state.counters.cpu_seconds)

    def run(self) -> Outcome:
        """Train to the end of the budget and leave the best weights in the model.

        Raises `RunFailedError` if the loss keeps leaving the finite numbers, if solves keep failing, or if no
        validation gave a number; the best weights so far are then in the model as well.
        """
        try:
            outcome = self._train()
            if outcome != "interrupted" and self.plan.phases and not math.isfinite(self.counters.best_nll):
                raise RunFailedError(
                    "no validation gave a finite NLL, so no weights could be chosen; of the last, "
                    f"{self.last_judgement.fault}; look for extreme values in the table, or let the flow's "
                    "solver do more"
                )
            self._choose()
        finally:
            self._load_weights(self.best)
        return outcome

    def _train(self) -> Outcome:
        if self.counters.step == 0 and not math.isfinite(self.counters.best_nll):
            self._validate()
        while self.plan.phases and (spent := self._spent()) < 1:
            if self.should_stop():
                return "interrupted"
            index, fraction = self.plan.phase_at(spent)
            # Phases begin, and training stops early, right after a validation only: a run that resumes from
            # there then does the same.
            if index != self.counters.phase:
                if self._losses.steps:
                    self._validate()
                    continue
                self._enter(index)
            elif not self._losses.steps and budget.is_stale(self.plan, self.counters, spent):
                return "stopped early"
            self._step(self.plan.phases[index], self.gradients[index], fraction)
            took = self.last_judgement.seconds
            if budget.validation_is_due(self.plan, self.counters, self.clock.wall(), took):
                self._validate()
        if self._losses.steps:
            self._validate()
        return "finished"

    def _enter(self, index: int) -> None:
        """Begin a phase from the best weights so far, with a fresh optimiser, average and rate."""
        self._load_weights(self.best)
        self.ema = copy_tensors(self.best)
        self.counters = self.counters.replace(
            phase=index, phase_step=0, rate_scale=1.0, improved_at=self._spent()
        )
        self.optimizer = self._new_optimizer()
        self.guard.trusted = self.state()

    def _step(self, phase: Phase, gradient: Gradient[ModelT, ExamplesT], fraction: float) -> None:
        """Take one step, `fraction` of the phase being spent, or return to the last good weights."""
        batch = self.examples.draw(phase.batch_size, smoothing_width(phase, fraction), self.generator)
        rate = self.counters.rate_scale * learning_rate(phase, self.counters.phase_step, fraction)
        set_rate(self.optimizer, rate, phase.weight_decay)
        self._learning_rate = rate
        try:
            with matmul_precision(phase.matmul_precision):
                found, norm = gradient(batch, fraction)
            loss = found.total.item()
            fault = find_fault(loss, norm.item())
        except IntegrationError as error:
            fault = str(error)
        if fault:
            name = gradient.objective.options.name
            counters = self.guard.roll_back(self.counters, fault=fault, objective=name, learning_rate=rate)
            self._restore(self.guard.trusted)
            self.counters = counters
            return
        self.optimizer.step()
        decay = average_decay(self.counters.phase_step, self.plan.ema_decay)
        update_average(self.ema, self.model.state_dict(), decay)
        self._losses.add(loss, found.terms)
        self.counters = self.counters.replace(
            step=self.counters.step + 1,
            rows=self.counters.rows + len(batch),
            phase_step=self.counters.phase_step + 1,
        )
        if self._throttle.is_due():
            self.on_progress(self._progress())

    def _validate(self) -> None:
        """Judge the averaged weights on the validation examples, and keep the best so far."""
        found = self.last_judgement = self.judge(self.ema, self.examples.validation)
        is_better = found.nll < self.counters.best_nll
        if is_better:
            self.best, self._best_judgement = copy_tensors(self.ema), found
        if self.counters.step == 0:
            self.counters = self.counters.replace(began_at=self.clock.wall())
        self._hold_back(found.seconds)
        self.counters = self.counters.replace(
            best_nll=min(found.nll, self.counters.best_nll),
            nll=found.nll,
            improved_at=self._spent() if is_better or self._is_level(found) else self.counters.improved_at,
            validated_at=self.clock.wall(),
            wall_seconds=self.clock.wall(),
            cpu_seconds=self.clock.cpu(),
        )
        if math.isfinite(found.nll):
            self.guard.trusted = self.state()
        self.on_validation(self._progress())
        self._losses = LossMeter()

    def _is_level(self, found: Judgement) -> bool:
        """Whether weights that are not the best so far count as progress all the same.

        They do if they are about as good and the learning rate declines: progress comes late then.
        """
        if not self.plan.phases or not self.plan.phases[self.counters.phase].decline:
            return False
        if self._best_judgement is None:  # of a run that was resumed
            self._best_judgement = self.judge(self.best, self.examples.validation)
        return found.is_level_with(self._best_judgement)

    def _choose(self) -> None:
        """Choose between the best and the last weights on the reserve, and settle the criterion by them.

        The best of many validations on the same rows is partly the luckiest. Rows that are new to both often
        prefer the last weights, at the end of the learning rate's decline.
        """
        held_out = self.examples.reserve or self.examples.validation
        chosen = self.judge(self.best, held_out)
        # Weights that moved on since the last validation, of a run that was interrupted, are not yet judged.
        is_judged = not self._losses.steps and self.counters.nll != self.counters.best_nll
        if self.examples.reserve is not None and is_judged:
            last = self.judge(self.ema, held_out)
            if last.nll < chosen.nll:
                self.best, chosen = copy_tensors(self.ema), last
                self.counters = self.counters.replace(best_nll=self.counters.nll)
        if chosen.is_solved:
            self.criterion.settle(held_out, chosen.log_prob)
        self.counters = self.counters.replace(wall_seconds=self.clock.wall(), cpu_seconds=self.clock.cpu())

    def _hold_back(self, seconds: float) -> None:
        """Keep time for `_choose`, which judges the reserve twice; a validation takes so many `seconds`."""
        if self.examples.reserve is not None:
            needed = 2 * seconds * len(self.examples.reserve) / len(self.examples.validation)
            held_back = budget.time_to_hold_back(self.plan, self.counters, needed)
            self.counters = self.counters.replace(held_back=held_back)

    def _restore(self, state: TrainingState) -> None:
        """Put back the weights, their average and the optimiser, but neither the counters nor the draws."""
        self._load_weights(state.flow)
        self.ema = self._on_device(state.ema)
        self.optimizer = self._new_optimizer()
        restore_optimizer(self.optimizer, state.optimizer)

    def _load_weights(self, weights: Tensors) -> None:
        self.model.load_state_dict(weights)
        for gradient in self.gradients:
            gradient.forget()

    def _on_device(self, tensors: Tensors) -> Tensors:
        device = self.model.like.device
        return {name: tensor.to(device, copy=True) for name, tensor in tensors.items()}

    def _new_optimizer(self) -> torch.optim.Optimizer:
        phases = self.plan.phases
        name = phases[self.counters.phase].optimizer if phases else "adamw"
        return make_optimizer(name, self.model.parameters())

    def _spent(self) -> float:
        return budget.spent_share(self.plan, self.counters, self.clock.wall())

    def _progress(self) -> Progress:
        wall, spent = self.clock.wall(), self._spent()
        trained = budget.elapsed(self.counters, wall)
        phase = self.plan.phases[self.counters.phase] if self.plan.phases else None
        return Progress(
            step=self.counters.step,
            phase=self.counters.phase,
            objective=phase.objective.name if phase else "fitted without steps",
            loss=self._losses.loss(),
            terms=self._losses.terms(),
            learning_rate=self._learning_rate,
            validation_nll=self.counters.nll,
            best_nll=self.counters.best_nll,
            nfe=self.last_judgement.nfe,
            rows_per_second=self.counters.rows / trained if trained > 0 else math.nan,
            wall_seconds=wall,
            cpu_seconds=self.clock.cpu(),
            fraction=min(spent, 1.0),
            seconds_left=budget.seconds_left(spent, trained),
            noun=self.examples.noun,
        )
