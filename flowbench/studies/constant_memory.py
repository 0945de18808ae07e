"""Memory of a training step against evaluations of an ODE solver, or layers (Chen et al. 2018, table 1)."""

import time
from collections.abc import Callable, Sequence
from itertools import product
from typing import ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import base_log_prob
from flowbench.ode.integrator import Integrator, State
from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions
from flowbench.statistics.lines import Line, fit_line
from flowbench.store.findings import Chart, Findings
from flowbench.store.text_table import TextTable
from flowbench.studies.counting import CountingIntegrator
from flowbench.studies.peak_memory import (
    SavedBytes,
    give_back_freed,
    in_process_of_its_own,
    peak_bytes,
    resident_bytes,
)
from flowbench.studies.study import Budget, Claim, Floats, Measurement, Study, Tell, Trial, over_seeds

#: Rows of a batch, and columns and hidden units of a block.
ROWS, WIDTH = 256, 64
#: Columns of the flow's rows, and the spread of its weights around the first ones.
FEATURES, SPREAD = 6, 0.3
#: The time over which the network's block is solved.
HORIZON = 5.0
RESIDUAL = "residual network"
GRADIENTS = ("backpropagation", "checkpointing", "adjoint")
#: A model, and how its gradient is computed.
Kind = tuple[str, str]
KINDS: tuple[Kind, ...] = (
    *product(("ODE network", "flow"), GRADIENTS),
    (RESIDUAL, "backpropagation"),
)
#: For each kind and measure, memory against depth.
Lines = dict[tuple[Kind, str], Line]
#: For each budget: tolerances of the solver, layers of the residual network, and seeds.
EXTENT: dict[Budget, tuple[tuple[float, ...], tuple[int, ...], int]] = {
    "quick": ((1e-2, 1e-4, 1e-6, 1e-7), (4, 16, 32, 64), 2),
    "default": ((1e-2, 1e-4, 1e-6, 1e-7, 1e-8, 1e-9), (4, 8, 16, 32, 64, 128), 3),
    "full": ((1e-2, 1e-4, 1e-6, 1e-8, 1e-9, 1e-10, 1e-11, 1e-12), (4, 8, 16, 32, 64, 128, 256, 512), 10),
}
MIB = 2**20
#: The peak of a process tells slopes apart from zero down to this share of backpropagation's: what malloc
#: holds beside the tensors moves it by a few hundred KiB, in a way that no interval over seeds shows.
RESOLUTION = 0.01
#: What the server of processes imports, so that no process has to.
IMPORTS = (__name__, "torchdiffeq", "torch._dynamo")
#: The two measures of memory: the name of the figure, and what it is called.
MEASURES = {"saved_bytes": "saved by autograd", "peak_bytes": "peak of the process"}


class ConstantMemory(Study):
    """Measures what a training step keeps, as its solve or its network gets longer."""

    claim: ClassVar[Claim] = Claim(
        "memory",
        "By the adjoint, memory does not grow with the evaluations of a solve",
        "An ODE network trained by the adjoint needs constant memory in its number of evaluations. "
        "Backpropagation through a solver, and a residual network, need memory in proportion to depth.",
        "Chen et al. 2018, section 2 and table 1 (orders, without numbers)",
    )

    def trials(self, budget: Budget) -> Sequence[Trial]:
        """One for each model, gradient, tolerance or number of layers, and seed."""
        tolerances, layers, seeds = EXTENT[budget]
        return [
            Trial(
                f"{model}-{gradient}-{number}-{seed}".replace(" ", "-"),
                {"model": model, "gradient": gradient, "size": size, "seed": seed},
            )
            for (model, gradient), seed in product(KINDS, range(seeds))
            for number, size in enumerate(layers if model == RESIDUAL else tolerances)
        ]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """One training step in a process of its own, whose memory is read."""
        values = [trial.values[name] for name in ("model", "gradient", "size", "seed")]
        tolerances, _, _ = EXTENT[budget]
        # The longest solve, where its graph goes at once. Any other would leave memory to build upon.
        if trial.values["gradient"] == "adjoint":
            first = tolerances[-1]
        else:
            first = 1.0 if trial.values["model"] == RESIDUAL else tolerances[0]
        return Measurement(in_process_of_its_own(measure_step, *values, first, imports=IMPORTS))

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """Reproduced, if the adjoint's slopes are zero within their errors and all others positive.

        The errors are the intervals and, for the peak of the process, `RESOLUTION`.
        """
        lines: Lines = {
            (kind, name): fit_line(_figures(measured, kind, "depth"), _figures(measured, kind, name))
            for kind, name in product(KINDS, MEASURES)
        }
        wrong = [
            f"{_label(kind)}, {MEASURES[name]}"
            for (kind, name), line in lines.items()
            if not (_is_constant(lines, kind, name) if kind[1] == "adjoint" else line.low > 0)
        ]
        return Findings(
            "not reproduced" if wrong else "reproduced",
            _reason(lines, wrong),
            (_slopes(lines, EXTENT[budget][2]), _costs(measured)),
            tuple(
                _chart(measured, model, name)
                for model in dict.fromkeys(model for model, _ in KINDS if model != RESIDUAL)
                for name in MEASURES
            ),
        )


class _Block(nn.Module):
    """dy/dt of a state `(n, WIDTH)`: one hidden layer of tanh units on the state and the time."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.hidden = nn.Linear(WIDTH + 1, WIDTH, dtype=torch.float64)
        self.output = nn.Linear(WIDTH, WIDTH, dtype=torch.float64)
        with torch.no_grad():
            for layer in (self.hidden, self.output):
                layer.weight.copy_(torch.randn(layer.weight.shape, generator=generator) / WIDTH**0.5)
                layer.bias.zero_()

    def forward(self, t: Tensor, y: Tensor) -> Tensor:
        inputs = torch.cat([y, t.expand(len(y), 1)], dim=1)
        slope: Tensor = self.output(torch.tanh(self.hidden(inputs)))
        return slope


#: Computes a loss (), and says how many layers it passed; a solve says none, since its calls are counted.
Loss = Callable[[], tuple[Tensor, int]]


class Step:
    """A training step of a `model` by a `gradient`, at a tolerance or with so many layers.

    `rows` are those of a batch. The weights and the rows are those of `seed`.
    """

    def __init__(self, model: str, gradient: str, size: float, seed: int, rows: int = ROWS) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.module: nn.Module
        self.counter: CountingIntegrator | None = None
        if model == RESIDUAL:
            self._loss = self._residual(int(size), rows, generator)
        else:
            self.counter = CountingIntegrator(_integrator(gradient, size))
            build = self._flow if model == "flow" else self._network
            self._loss = build(self.counter, rows, generator)
        self.optimizer = torch.optim.Adam(self.module.parameters(), lr=1e-3)

    def __call__(self) -> tuple[float, float]:
        """Compute the gradient and move the weights; evaluations, or layers, forward and backward."""
        before = self.counter.calls if self.counter else 0
        self.optimizer.zero_grad()
        loss, depth = self._loss()
        forward = self.counter.calls - before if self.counter else depth
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        backward = self.counter.calls - before - forward if self.counter else 0
        return float(forward), float(backward)

    def gradient(self) -> Tensor:
        """The gradient of the last step, of all parameters as one vector."""
        return torch.cat([p.grad.flatten() for p in self.module.parameters() if p.grad is not None])

    def _residual(self, layers: int, rows: int, generator: torch.Generator) -> Loss:
        x = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64)
        blocks = self.module = nn.ModuleList(_Block(generator) for _ in range(layers))

        def loss() -> tuple[Tensor, int]:
            y = x
            for number, block in enumerate(blocks):
                y = y + HORIZON / layers * block(y.new_tensor(number / layers), y)
            return y.square().mean(), layers

        return loss

    def _network(self, integrator: Integrator, rows: int, generator: torch.Generator) -> Loss:
        x = torch.randn(rows, WIDTH, generator=generator, dtype=torch.float64)
        block = self.module = _Block(generator)

        def f(t: Tensor, state: State) -> State:
            return (block(t, state[0]),)

        def loss() -> tuple[Tensor, int]:
            solution = integrator.integrate(f, (x,), 0.0, HORIZON, parameters=block.parameters())
            return solution.state[0].square().mean(), 0

        return loss

    def _flow(self, integrator: Integrator, rows: int, generator: torch.Generator) -> Loss:
        options = ContinuousOptions(field={"name": "time-mlp", "scales": 0, "width": WIDTH})
        flow = self.module = ContinuousFlow(FEATURES, options, generator).double()
        with torch.no_grad():
            for parameter in flow.parameters():
                parameter.add_(SPREAD * torch.randn(parameter.shape, generator=generator) / WIDTH**0.5)
        flow.integrator = integrator
        x = torch.randn(rows, FEATURES, generator=generator, dtype=torch.float64)

        def loss() -> tuple[Tensor, int]:
            mapped = flow.to_base(x)
            return -(base_log_prob(mapped.value) + mapped.log_det).mean(), 0

        return loss


def _integrator(gradient: str, tolerance: float) -> Integrator:
    tolerances = {"atol": tolerance, "rtol": tolerance}
    if gradient == "adjoint":
        return TorchdiffeqIntegrator(TorchdiffeqOptions(gradient="adjoint", seminorm=False, **tolerances))
    return NativeIntegrator(NativeOptions(checkpoint=gradient == "checkpointing", **tolerances))


def measure_step(model: str, gradient: str, size: float, seed: int, first: float) -> dict[str, float]:
    """The figures of one trial; the process is to have done nothing before.

    A step of two rows goes before, at the size `first`, which is the same for all sizes. What libraries take
    at their first use, and a solve beside its tensors, is then there already.
    """
    torch.set_num_threads(1)
    give_back_freed(True)
    Step(model, gradient, first, seed, rows=2)()
    step = Step(model, gradient, size, seed)
    before = resident_bytes()
    depth, backward = step()
    peak = peak_bytes() - before
    found = step.gradient()
    give_back_freed(False)
    step = Step(model, gradient, size, seed)
    saved = SavedBytes(step.module.parameters())
    with saved:
        step()
    began = time.process_time()
    step()
    seconds = time.process_time() - began
    figures = {
        "depth": depth,
        "backward": backward,
        "peak_bytes": float(peak),
        "saved_bytes": float(saved.peak),
        "cpu_seconds": seconds,
    }
    if gradient != "backpropagation":
        exact = Step(model, "backpropagation", size, seed)
        exact()
        figures["gradient_error"] = float((found - exact.gradient()).norm() / exact.gradient().norm())
    return figures


def _figures(measured: Sequence[tuple[Trial, Measurement]], kind: Kind, name: str) -> Floats:
    return np.array(
        [m.figures[name] for t, m in measured if (t.values["model"], t.values["gradient"]) == kind]
    )


def _label(kind: Kind) -> str:
    return kind[0] if kind[0] == RESIDUAL else f"{kind[0]} by {kind[1]}"


def _is_constant(lines: Lines, kind: Kind, name: str) -> bool:
    """Whether a slope is zero within its interval, or too small for the measure to tell."""
    line, against = lines[kind, name], lines[(kind[0], "backpropagation"), name].slope
    told_apart = name == "saved_bytes" or max(-line.low, line.high) > RESOLUTION * against
    return line.is_level or not told_apart


def _reason(lines: Lines, wrong: Sequence[str]) -> str:
    shares = ", ".join(
        f"{kind[0]} {100 * line.slope / (lines[(kind[0], 'backpropagation'), name].slope or np.nan):.2g}%"
        for (kind, name), line in lines.items()
        if kind[1] == "adjoint" and name == "peak_bytes"
    )
    saved = [line for (kind, name), line in lines.items() if kind[1] == "adjoint" and name == "saved_bytes"]
    kept = "What autograd keeps does not grow with the evaluations of an adjoint at all"
    if not all(line.is_level for line in saved):
        kept = "What autograd keeps grows with the evaluations of an adjoint"
    told = f"{kept}. The peak of the process grows by this share of backpropagation's: {shares}."
    above = [
        kind[0]
        for (kind, name), line in lines.items()
        if kind[1] == "adjoint" and name == "peak_bytes" and not line.is_level
    ]
    if above:
        told += f" The interval leaves out zero for: {', '.join(above)}."
        told += f" Below {100 * RESOLUTION:g}% the measure cannot tell a slope from none."
    if wrong:
        return f"{told} Not as claimed: {'; '.join(wrong)}."
    return f"{told} All other slopes are positive."


def _slopes(lines: Lines, seeds: int) -> TextTable:
    return TextTable(
        "Memory of a training step, more for each evaluation or layer (KiB)",
        ("what", "per", *(f"{title} [95%]" for title in MEASURES.values())),
        tuple(
            (
                _label(kind),
                "layer" if kind[0] == RESIDUAL else "evaluation",
                *(_interval(lines[kind, name]) for name in MEASURES),
            )
            for kind in KINDS
        ),
        (False, False, True, True),
        (
            f"Slopes of least-squares lines over all sizes and {seeds} seeds, with t intervals. A batch "
            f"has {ROWS} rows in float64. The block of the networks has {WIDTH} columns and hidden units; "
            f"the flow has {FEATURES} columns and minimises the NLL. Both are solved by dopri5 over a range "
            "of tolerances, and the depth is the number of evaluations forward.",
            "Saved by autograd: the most bytes that are kept for the backward pass at a time, without the "
            "weights. The step that a checkpoint computes again is not in it, and is of constant size.",
            "Peak of the process: what the resident memory of a fresh process rises by in a step, with "
            "gradients and Adam's state, after a step of two rows. Before an adjoint, this step is at the "
            "tightest tolerance, so the few KiB that a solve takes beside its tensors are left out. malloc "
            "gives freed memory back at once.",
            f"A slope of the peak below {100 * RESOLUTION:g}% of backpropagation's counts as none, since "
            "malloc moves it by a few hundred KiB in a way that no interval over seeds shows.",
            "flowbench's native engine backpropagates and checkpoints; the adjoint is torchdiffeq's.",
        ),
    )


def _interval(line: Line) -> str:
    slope, low, high = (each / 1024 for each in (line.slope, line.low, line.high))
    return f"{slope:.4g} [{low:.4g}, {high:.4g}]"


def _costs(measured: Sequence[tuple[Trial, Measurement]]) -> TextTable:
    """What the deepest steps need, take, and how exact their gradients are."""
    rows = []
    for kind in KINDS:
        depth = _figures(measured, kind, "depth")
        deepest = depth == depth.max()
        told = {
            name: _figures(measured, kind, name)[deepest].mean()
            for name in ("backward", *MEASURES, "cpu_seconds")
        }
        error = "exact"
        if kind[1] != "backpropagation":
            error = f"{_figures(measured, kind, 'gradient_error')[deepest].mean():.1e}"
        rows.append(
            (
                _label(kind),
                f"{depth.max():.0f}",
                f"{told['backward']:.0f}",
                *(f"{told[name] / MIB:.1f}" for name in MEASURES),
                f"{told['cpu_seconds']:.2f}",
                error,
            )
        )
    return TextTable(
        "The deepest step of each",
        (
            "what",
            "depth",
            "evaluations backward",
            *(f"{title}, MiB" for title in MEASURES.values()),
            "CPU s",
            "error of the gradient",
        ),
        tuple(rows),
        (False, *[True] * 6),
        ("The error is the relative distance from the gradient by backpropagation at the same tolerance.",),
    )


def _chart(measured: Sequence[tuple[Trial, Measurement]], model: str, name: str) -> Chart:
    kinds = [kind for kind in KINDS if kind[0] == model or (model, kind[0]) == ("ODE network", RESIDUAL)]
    series = []
    for kind in kinds:
        depth, memory = _figures(measured, kind, "depth"), _figures(measured, kind, name) / MIB
        places = np.unique(depth)
        groups = [memory[depth == place] for place in places]
        series.append(over_seeds(kind[1] if kind[0] == model else kind[0], places, groups))
    title = f"{model}: {MEASURES[name]}"
    return Chart(title, "evaluations or layers", f"{MEASURES[name]}, MiB", tuple(series), ("x", "y"))
