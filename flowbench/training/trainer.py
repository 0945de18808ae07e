"""The training loop: phases inside a budget, validated averages, guards, and a state that resumes exactly."""

import math
import time
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from flowbench.errors import IntegrationError, RunFailedError
from flowbench.models.density import Density
from flowbench.objectives.objective import Objective
from flowbench.registry import OBJECTIVES
from flowbench.training.gradient import Gradient
from flowbench.training.optimizers import make_optimizer, optimizer_tensors, restore_optimizer
from flowbench.training.plan import Phase, TrainingPlan
from flowbench.training.precision import matmul_precision
from flowbench.training.progress import Progress
from flowbench.training.smoothing import SmoothedBootstrap
from flowbench.training.state import Counters, Tensors, TrainingState, copy_tensors
from flowbench.training.stopwatch import Stopwatch

Outcome = Literal["finished", "stopped early", "interrupted"]

#: Share of the time that validation may take when the budget is a time.
VALIDATION_SHARE = 0.05
VALIDATIONS = 40


def make_objectives(plan: TrainingPlan, flow: Density) -> list[Objective]:
    """The objective of each phase; raises `ConfigurationError` for one that cannot train `flow`."""
    objectives = [OBJECTIVES.get(phase.objective.name)(phase.objective) for phase in plan.phases]
    for objective in objectives:
        objective.check(flow)
    return objectives


class Trainer:
    """Trains `flow` on `train: (n, d)` in model space by the phases of `plan`.

    `validation: (m, d)` are the fixed rows that choose the weights, and `reserve: (k, d)`, if there are any,
    further ones on which the best and the last weights meet at the end. `nll` makes the figures of rows
    (n, d), nats, (n,), of the flow's log-densities (n,) there, and `settle` is told those of the best
    weights at the end. `generator` draws batches and all noise. `on_progress` is called at most a few times a
    second; `on_validation` after each validation, when `state()` may be saved. `should_stop` is asked
    between steps. `clock` has begun already, where something was fitted before. `smoother` draws around the
    train rows in phases with `smoothing`; without one they are taken as they are.
    """

    def __init__(
        self,
        flow: Density,
        plan: TrainingPlan,
        train: Tensor,
        validation: Tensor,
        *,
        generator: torch.Generator,
        smoother: SmoothedBootstrap | None = None,
        reserve: Tensor | None = None,
        nll: Callable[[Tensor, Tensor], Tensor] = lambda rows, log_prob: -log_prob,
        settle: Callable[[Tensor, Tensor], None] = lambda rows, log_prob: None,
        on_progress: Callable[[Progress], None] = lambda progress: None,
        on_validation: Callable[[Progress], None] = lambda progress: None,
        should_stop: Callable[[], bool] = lambda: False,
        clock: Stopwatch | None = None,
    ) -> None:
        self.flow = flow
        self.plan = plan
        self.train = train
        self.validation = validation
        self.reserve = reserve if reserve is not None and len(reserve) else None
        self.nll = nll
        self.settle = settle
        self.generator = generator
        self.on_progress = on_progress
        self.on_validation = on_validation
        self.should_stop = should_stop
        self.smoother = smoother
        self.gradients = [
            Gradient(flow, objective, generator, clip_norm=phase.clip_norm or math.inf)
            for phase, objective in zip(plan.phases, make_objectives(plan, flow), strict=True)
        ]
        self.counters = Counters()
        self._judge = flow.for_validation()
        self.ema = copy_tensors(flow.state_dict())
        self.best = copy_tensors(flow.state_dict())
        self.optimizer = self._new_optimizer()
        self._safe = self.state()
        self._losses: list[float] = []
        self._terms: dict[str, float] = {}
        self._nfe: int | None = None
        self._best_rows: Tensor | None = None
        self._fault = ""
        self._validation_seconds = 0.0
        self._clock = clock or Stopwatch()
        self._last_event = 0.0
        self._learning_rate = 0.0

    def state(self) -> TrainingState:
        """Everything a resumed run needs to go on as if it had never stopped; the tensors are copies."""
        return TrainingState(
            flow=copy_tensors(self.flow.state_dict()),
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
        self._safe = state
        self._clock = Stopwatch(state.counters.wall_seconds, state.counters.cpu_seconds)

    def run(self) -> Outcome:
        """Train to the end of the budget and leave the best weights in the flow.

        Raises `RunFailedError` if the loss keeps leaving the finite numbers, if solves keep failing, or if no
        validation gave a number; the best weights so far are then in the flow as well.
        """
        try:
            outcome = self._run()
            if outcome != "interrupted" and self.plan.phases and not math.isfinite(self.counters.best_nll):
                raise RunFailedError(
                    f"no validation gave a finite NLL, so no weights could be chosen; of the last, "
                    f"{self._fault}; look for extreme values in the table, or let the flow's solver do more"
                )
            self._choose()
        finally:
            self._load_weights(self.best)
        return outcome

    def _run(self) -> Outcome:
        if self.counters.step == 0 and not math.isfinite(self.counters.best_nll):
            self._validate()
        while self.plan.phases and (spent := self._spent()) < 1:
            if self.should_stop():
                return "interrupted"
            index, fraction = self.plan.phase_at(spent)
            # Both are asked between a validation and the next step, where a run that resumes asks them too.
            if index != self.counters.phase:
                if self._losses:
                    self._validate()
                    continue
                self._enter(index)
            elif not self._losses and self._is_stale(spent):
                return "stopped early"
            self._step(self.plan.phases[index], self.gradients[index], fraction)
            if self._validation_due():
                self._validate()
        if self._losses:
            self._validate()
        return "finished"

    def _is_stale(self, spent: float) -> bool:
        """Whether so much of the budget brought nothing, when `spent` of it is, that training may stop."""
        return self.plan.patience > 0 and spent - self.counters.improved_at >= self.plan.patience

    def _choose(self) -> None:
        """Let the last weights take the best ones' place if rows that chose neither say so.

        The best of forty validations on a thousand rows is partly the luckiest: rows that are new to both
        often prefer the last one, at the end of the learning rate's decline.
        """
        rows = self.validation if self.reserve is None else self.reserve
        best = self._log_prob(self.best, rows)
        # Weights that moved on since the last validation, of a run that was interrupted, are not yet judged.
        judged = not self._losses and self.counters.nll != self.counters.best_nll
        if self.reserve is not None and judged:
            last = self._log_prob(self.ema, rows)
            if self._row_nll(rows, last).mean() < self._row_nll(rows, best).mean():
                self.best, best = copy_tensors(self.ema), last
                self.counters = self.counters.replace(best_nll=self.counters.nll)
        if not torch.isnan(best).any():
            self.settle(rows, best)
        self.counters = self.counters.replace(wall_seconds=self._clock.wall(), cpu_seconds=self._clock.cpu())

    def _enter(self, phase: int) -> None:
        """Begin a phase from the best weights so far, with a fresh optimiser, average and rate."""
        self._load_weights(self.best)
        self.ema = copy_tensors(self.best)
        self.counters = self.counters.replace(
            phase=phase, phase_step=0, rate_scale=1.0, improved_at=self._spent()
        )
        self.optimizer = self._new_optimizer()
        self._safe = self.state()

    def _step(self, phase: Phase, gradient: Gradient, fraction: float) -> None:
        batch = self._batch(phase, fraction)
        self._learning_rate = self._rate(phase, fraction)
        for group in self.optimizer.param_groups:
            group["lr"] = self._learning_rate
            group["weight_decay"] = phase.weight_decay
        try:
            with matmul_precision(phase.matmul_precision):
                found, norm = gradient(batch)
            loss = found.total.item()
            is_finite = math.isfinite(loss) and math.isfinite(norm.item())
            fault = "" if is_finite else "the loss is not finite"
        except IntegrationError as error:
            fault = str(error)
        if fault:
            self._roll_back(fault, gradient.objective)
            return
        self.optimizer.step()
        self._average()
        self._losses.append(loss)
        for name, term in found.terms.items():
            self._terms[name] = self._terms.get(name, 0.0) + term.item()
        self.counters = self.counters.replace(
            step=self.counters.step + 1,
            rows=self.counters.rows + len(batch),
            phase_step=self.counters.phase_step + 1,
        )
        self._announce()

    def _batch(self, phase: Phase, fraction: float) -> Tensor:
        """Rows `(m, d)` to learn from, drawn with replacement."""
        rows = torch.randint(
            len(self.train), (phase.batch_size,), generator=self.generator, device=self.train.device
        )
        if phase.smoothing and self.smoother is not None:
            return self.smoother.draw(rows, phase.smoothing * (1 - fraction), self.generator)
        return self.train[rows]

    def _rate(self, phase: Phase, fraction: float) -> float:
        warmup = min(1.0, (self.counters.phase_step + 1) / (phase.warmup_steps + 1))
        left = min(1.0, (1 - fraction) / phase.decline) if phase.decline else 1.0
        decay = (1 - math.cos(math.pi * left)) / 2
        return phase.learning_rate * self.counters.rate_scale * warmup * decay

    @torch.no_grad()
    def _average(self) -> None:
        step = self.counters.phase_step
        decay = min(self.plan.ema_decay, (step + 1) / (step + 10))
        # Masks and orders of columns are no numbers to average, and never change.
        current = {name: value for name, value in self.flow.state_dict().items() if value.is_floating_point()}
        torch._foreach_lerp_([self.ema[name] for name in current], list(current.values()), 1 - decay)

    def _roll_back(self, fault: str, objective: Objective) -> None:
        """Return to the last validated state at half the learning rate, or give up with a diagnosis."""
        name, step = objective.options.name, self.counters.step
        if self.counters.rollbacks >= self.plan.max_rollbacks:
            raise RunFailedError(
                f"training with `{name}` failed at step {step}, after {self.counters.rollbacks} returns to "
                "the last good weights at ever lower learning rates "
                f"(now {self._learning_rate:.2g}): {fault}; "
                "lower `learning_rate`, raise `batch_size`, or look for extreme values in the table"
            )
        self._restore(self._safe)
        self.counters = self.counters.replace(
            step=step + 1, rollbacks=self.counters.rollbacks + 1, rate_scale=self.counters.rate_scale / 2
        )

    def _restore(self, state: TrainingState) -> None:
        self._load_weights(state.flow)
        self.ema = self._on_device(state.ema)
        self.optimizer = self._new_optimizer()
        restore_optimizer(self.optimizer, state.optimizer)

    def _load_weights(self, weights: Tensors) -> None:
        self.flow.load_state_dict(weights)
        for gradient in self.gradients:
            gradient.forget()

    def _on_device(self, tensors: Tensors) -> Tensors:
        return {name: tensor.to(self.train.device, copy=True) for name, tensor in tensors.items()}

    def _new_optimizer(self) -> torch.optim.Optimizer:
        phases = self.plan.phases
        name = phases[self.counters.phase].optimizer if phases else "adamw"
        return make_optimizer(name, self.flow.parameters())

    def _spent(self) -> float:
        """The share of the budget that is used up."""
        by_steps = self.counters.step / self.plan.steps if self.plan.steps else 0.0
        if not self.plan.seconds:
            return by_steps
        # Between what was fitted before the first step and what the choice at the end will take.
        whole = self.plan.seconds - self.counters.began_at - self.counters.held_back
        return max(by_steps, self._elapsed() / whole if whole > 0 else 1.0)

    def _elapsed(self) -> float:
        """Seconds since the first step."""
        return self._clock.wall() - self.counters.began_at

    def _validation_due(self) -> bool:
        if self.plan.validation_steps or self.plan.steps:
            interval = self.plan.validation_steps or max(1, (self.plan.steps or 0) // VALIDATIONS)
            if self.counters.step % interval == 0:
                return True
        if self.plan.validation_steps or not self.plan.seconds:
            return False
        now, last = self._clock.wall(), self.counters.validated_at
        # At first after every tenth of the time so far: a small table is overfitted within a second.
        wait = min(self.plan.seconds / VALIDATIONS, 0.1 * last)
        return now - last >= max(wait, self._validation_seconds / VALIDATION_SHARE)

    def _validate(self) -> None:
        """Judge the averaged weights on the validation rows, keep them if they are the best so far."""
        began = time.monotonic()
        rows = self._row_nll(self.validation, self._log_prob(self.ema, self.validation))
        nll = rows.mean().item()
        better = nll < self.counters.best_nll
        if better:
            self.best = copy_tensors(self.ema)
            self._best_rows = rows
        self._validation_seconds = time.monotonic() - began
        if self.counters.step == 0:
            self.counters = self.counters.replace(began_at=self._clock.wall())
        self._hold_back()
        self.counters = self.counters.replace(
            best_nll=min(nll, self.counters.best_nll),
            nll=nll,
            improved_at=self._spent() if better or self._is_level(rows) else self.counters.improved_at,
            validated_at=self._clock.wall(),
            wall_seconds=self._clock.wall(),
            cpu_seconds=self._clock.cpu(),
        )
        if math.isfinite(nll):
            self._safe = self.state()
        self.on_validation(self._progress())
        self._losses, self._terms = [], {}

    def _hold_back(self) -> None:
        """Set aside what `_choose` will take of a budget that is a time: two more solves, or a tenth."""
        if self.reserve is not None and self.plan.seconds:
            needed = 2 * self._validation_seconds * len(self.reserve) / len(self.validation)
            held_back = max(self.counters.held_back, min(needed, 0.1 * self.plan.seconds))
            self.counters = self.counters.replace(held_back=held_back)

    def _is_level(self, rows: Tensor) -> bool:
        """Whether NLLs of the validation rows are no worse than the best ones, within two standard errors.

        Asked only where the learning rate declines: no progress at a high rate is no reason to stop.
        """
        declines = self.plan.phases and self.plan.phases[self.counters.phase].decline > 0
        if not declines or len(rows) < 2:
            return False
        if self._best_rows is None:
            log_prob = self._log_prob(self.best, self.validation)
            self._best_rows = self._row_nll(self.validation, log_prob)
        worse = rows - self._best_rows
        return bool(worse.mean() < 2 * worse.std() / len(worse) ** 0.5)

    @torch.no_grad()
    def _log_prob(self, weights: Tensors, rows: Tensor) -> Tensor:
        """The flow's log-densities (n,) of `rows: (n, d)` under `weights`; all NaN where a solve fails."""
        self._judge.load_state_dict(weights)
        # The same probes every time, so that a stochastic divergence does not add noise to the choice.
        generator = torch.Generator(rows.device).manual_seed(0)
        try:
            scores = [self._judge.score(part, generator) for part in torch.split(rows, len(self.validation))]
        except IntegrationError as error:
            self._fault = str(error)
            return torch.full((len(rows),), math.nan, dtype=torch.float64)
        self._nfe, self._fault = scores[0].nfe, ""
        return torch.cat([part.log_prob for part in scores]).double()

    def _row_nll(self, rows: Tensor, log_prob: Tensor) -> Tensor:
        """`nll` of rows with these log-densities under the flow; infinite where the model breaks down."""
        if not torch.isnan(log_prob).any():
            nll = self.nll(rows, log_prob)
            if torch.isfinite(nll).all():
                return nll
        self._fault = self._fault or "some rows have no finite log-likelihood"
        return torch.full((len(rows),), math.inf, dtype=torch.float64)

    def _announce(self) -> None:
        now = time.monotonic()
        if now - self._last_event > 0.2:
            self._last_event = now
            self.on_progress(self._progress())

    def _progress(self) -> Progress:
        wall, spent = self._clock.wall(), self._spent()
        phase = self.plan.phases[self.counters.phase] if self.plan.phases else None
        return Progress(
            step=self.counters.step,
            phase=self.counters.phase,
            objective=phase.objective.name if phase else "closed form",
            loss=sum(self._losses) / len(self._losses) if self._losses else math.nan,
            terms={name: total / len(self._losses) for name, total in self._terms.items()},
            learning_rate=self._learning_rate,
            validation_nll=self.counters.nll,
            best_nll=self.counters.best_nll,
            nfe=self._nfe,
            rows_per_second=self.counters.rows / wall if wall > 0 else 0.0,
            wall_seconds=wall,
            cpu_seconds=self._clock.cpu(),
            fraction=min(spent, 1.0),
            seconds_left=self._elapsed() * (1 - spent) / spent if 0 < spent < 1 else 0.0,
        )
