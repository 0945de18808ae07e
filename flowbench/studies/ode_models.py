"""Small models with an ODE inside, which are trained at one tolerance and solved at any other."""

import math
import time
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.ode.integrator import Integrator, State
from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions
from flowbench.registry import TOYS
from flowbench.studies.counting import CountingIntegrator
from flowbench.studies.study import Floats

TRAINING_TOLERANCE = 1e-6
BATCH = 128
#: Rows that are held out, for the solves that are measured.
HELD_OUT = 500
#: Features and hidden units of the classifier's block.
FEATURES, HIDDEN = 32, 64
#: The toy of the flow, its rows for training, and the flow's hidden units.
TOY, TOY_ROWS, UNITS = "moons", 20_000, 64


@dataclass(frozen=True)
class Solve:
    """A solve of held-out rows: what came out, how good it is, and what it took.

    `outputs` has a row for each row. `forward` and `backward` are numbers of evaluations, and the seconds are
    CPU seconds; those backward are zero if no gradient was asked for.
    """

    outputs: Floats
    score: float
    forward: int
    backward: int
    forward_seconds: float
    backward_seconds: float


class Subject(ABC):
    """A model with its data; everything is float64, and follows from the seed.

    `module` holds the parameters. `score_name` and `output_name` say what a solve's score and outputs are.
    """

    score_name: ClassVar[str]
    output_name: ClassVar[str]
    rate: ClassVar[float]
    module: nn.Module

    def __init__(self, seed: int) -> None:
        self.generator = torch.Generator().manual_seed(seed)
        self._build(seed)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=self.rate)

    @property
    def parameter_count(self) -> int:
        """How many numbers the model learns."""
        return sum(each.numel() for each in self.module.parameters())

    def train_step(self, spent: float) -> None:
        """One step of Adam on a batch, backpropagated through flowbench's own engine.

        `spent` is the share of the steps that are done; the rate falls to zero along a cosine.
        """
        self.optimizer.param_groups[0]["lr"] = self.rate * 0.5 * (1 + math.cos(math.pi * spent))
        self.optimizer.zero_grad()
        tolerances = {"atol": TRAINING_TOLERANCE, "rtol": TRAINING_TOLERANCE}
        self._training_loss(NativeIntegrator(NativeOptions(**tolerances))).backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(self.module.parameters(), 10.0)
        self.optimizer.step()

    def solve(self, tolerance: float, *, backward: bool = False) -> Solve:
        """Solve the held-out rows by torchdiffeq's dopri5, and their mean loss backward by its adjoint."""
        options = TorchdiffeqOptions(atol=tolerance, rtol=tolerance, gradient="adjoint", seminorm=False)
        counter = CountingIntegrator(TorchdiffeqIntegrator(options))
        with torch.set_grad_enabled(backward):
            began = time.process_time()
            outputs = self._outputs(counter)
            middle, forward = time.process_time(), counter.calls
            score, loss = self._judge(outputs)
            if backward:
                self.optimizer.zero_grad()
                middle = time.process_time()
                loss.backward()  # type: ignore[no-untyped-call]
        seconds = (middle - began, time.process_time() - middle if backward else 0.0)
        return Solve(outputs.detach().numpy(), score, forward, counter.calls - forward, *seconds)

    @abstractmethod
    def _build(self, seed: int) -> None:
        """Make `module` and the data."""

    @abstractmethod
    def _training_loss(self, integrator: Integrator) -> Tensor:
        """The loss () of a batch that `generator` draws."""

    @abstractmethod
    def _outputs(self, integrator: Integrator) -> Tensor:
        """The model's outputs for the held-out rows, (m, ...)."""

    @abstractmethod
    def _judge(self, outputs: Tensor) -> tuple[float, Tensor]:
        """The score of the held-out rows, and their mean loss ()."""


class _Classifier(nn.Module):
    """A linear layer, an ODE block of tanh units on the state and the time, and a linear layer."""

    def __init__(self, pixels: int, classes: int) -> None:
        super().__init__()
        self.stem = nn.Linear(pixels, FEATURES)
        self.hidden = nn.Linear(FEATURES + 1, HIDDEN)
        self.slope = nn.Linear(HIDDEN, FEATURES)
        self.head = nn.Linear(FEATURES, classes)

    def logits(self, x: Tensor, integrator: Integrator) -> Tensor:
        """Unnormalised log-probabilities `(n, classes)` of images `x: (n, pixels)`."""
        block = (*self.hidden.parameters(), *self.slope.parameters())
        solution = integrator.integrate(self._velocity, (self.stem(x),), 0.0, 1.0, parameters=block)
        logits: Tensor = self.head(solution.state[0])
        return logits

    def _velocity(self, t: Tensor, state: State) -> State:
        (y,) = state
        return (self.slope(torch.tanh(self.hidden(torch.cat([y, t.expand(len(y), 1)], dim=1)))),)


class DigitsClassifier(Subject):
    """An ODE network that classifies scikit-learn's digits."""

    score_name: ClassVar[str] = "classification error"
    output_name: ClassVar[str] = "logits"
    rate: ClassVar[float] = 3e-3
    module: _Classifier

    def _build(self, seed: int) -> None:
        from sklearn.datasets import load_digits

        digits = load_digits()
        order = np.random.default_rng(seed).permutation(len(digits.target))
        x, labels = torch.from_numpy(digits.data[order] / 16), torch.from_numpy(digits.target[order])
        self.x, self.labels = x[HELD_OUT:], labels[HELD_OUT:]
        self.held_out, self.truth = x[:HELD_OUT], labels[:HELD_OUT]
        self.module = _Classifier(x.shape[1], len(digits.target_names)).double()
        with torch.no_grad():
            for parameter in self.module.parameters():
                shape = parameter.shape
                scale = 1 / shape[1] ** 0.5 if len(shape) > 1 else 0.0
                parameter.copy_(scale * torch.randn(shape, generator=self.generator, dtype=torch.float64))

    def _training_loss(self, integrator: Integrator) -> Tensor:
        chosen = torch.randint(len(self.x), (BATCH,), generator=self.generator)
        logits = self.module.logits(self.x[chosen], integrator)
        return nn.functional.cross_entropy(logits, self.labels[chosen])

    def _outputs(self, integrator: Integrator) -> Tensor:
        return self.module.logits(self.held_out, integrator)

    def _judge(self, outputs: Tensor) -> tuple[float, Tensor]:
        wrong = (outputs.argmax(1) != self.truth).double().mean().item()
        return wrong, nn.functional.cross_entropy(outputs, self.truth)


class ToyFlow(Subject):
    """A continuous flow, as the paper has it, that learns a toy by maximum likelihood."""

    score_name: ClassVar[str] = "NLL"
    output_name: ClassVar[str] = "log-densities"
    rate: ClassVar[float] = 1e-2
    module: ContinuousFlow

    def _build(self, seed: int) -> None:
        density, draws = TOYS.get(TOY)(), np.random.default_rng(seed)
        self.x, self.held_out = (torch.from_numpy(density.sample(n, draws)) for n in (TOY_ROWS, HELD_OUT))
        options = ContinuousOptions(field={"name": "hypernetwork", "width": UNITS})
        self.module = ContinuousFlow(2, options, self.generator).double()

    def _training_loss(self, integrator: Integrator) -> Tensor:
        chosen = torch.randint(len(self.x), (BATCH,), generator=self.generator)
        return -self._log_prob(self.x[chosen], integrator).mean()

    def _outputs(self, integrator: Integrator) -> Tensor:
        return self._log_prob(self.held_out, integrator)

    def _judge(self, outputs: Tensor) -> tuple[float, Tensor]:
        loss = -outputs.mean()
        return loss.item(), loss

    def _log_prob(self, x: Tensor, integrator: Integrator) -> Tensor:
        self.module.integrator = integrator
        return self.module.log_prob(x)


SUBJECTS: dict[str, type[Subject]] = {"classifier": DigitsClassifier, "flow": ToyFlow}
