"""FFJORD's recipe (Grathwohl et al. 2019), written out on plain torchdiffeq.

As the released code has it: state (x, -delta log p) with the density as a column; `odeint_adjoint`, also
for evaluation, with the library's default norms; the trace by reverse-mode autograd, column by column
(`brute_force`) or with one Gaussian probe (`approximate`), always with a graph; time from the data at 0 to
the base at T. Concatsquash networks are FFJORD's own layers; another field is asked for its velocity.
"""

import torch
from torch import Tensor, nn
from torchdiffeq import odeint_adjoint

from benchmarks.problem import carried, gradients, load_problem
from benchmarks.worker import Answer, Contender
from flowbench.models.continuous.fields.velocity_field import VelocityField


class ConcatSquashLinear(nn.Module):
    """FFJORD's layer: (W x + b) sigmoid(g t + c) + h t."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.layer = nn.Linear(inputs, outputs)
        self.shift = nn.Linear(1, outputs, bias=False)
        self.gate = nn.Linear(1, outputs)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """The output (n, outputs) for `x` (n, inputs)."""
        gate = torch.sigmoid(self.gate(t.view(1, 1)))
        value: Tensor = self.layer(x) * gate + self.shift(t.view(1, 1))
        return value


class ODEnet(nn.Module):
    """Layers with tanh between them."""

    def __init__(self, widths: list[int]) -> None:
        super().__init__()
        self.layers = nn.ModuleList(map(ConcatSquashLinear, widths[:-1], widths[1:]))

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """dx/dt (n, d)."""
        for index, layer in enumerate(self.layers):
            x = layer(t, x)
            if index < len(self.layers) - 1:
                x = torch.tanh(x)
        return x


class Backwards(nn.Module):
    """A velocity field in FFJORD's direction of time: t = 0 is the data."""

    def __init__(self, field: VelocityField) -> None:
        super().__init__()
        self.field = field

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """dx/dt (n, d).

        torchdiffeq asks beyond the last time and interpolates; the fields are not made for t > 1.
        """
        return -self.field.velocity((1 - t).clamp(max=1.0), x)


def divergence_bf(dx: Tensor, y: Tensor) -> Tensor:
    """The trace, one reverse pass for each column."""
    total = torch.zeros(())
    for i in range(y.shape[1]):
        total = total + torch.autograd.grad(dx[:, i].sum(), y, create_graph=True)[0].contiguous()[:, i]
    return total.contiguous()


class ODEfunc(nn.Module):
    """The right-hand side of (x, -delta log p)."""

    def __init__(self, diffeq: nn.Module, approximate: bool) -> None:
        super().__init__()
        self.diffeq = diffeq
        self.approximate = approximate
        self.probe: Tensor | None = None
        self.nfe = 0

    def forward(self, t: Tensor, states: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        """The derivatives (n, d) and (n, 1)."""
        self.nfe += 1
        y = states[0]
        if self.approximate and self.probe is None:
            self.probe = torch.randn_like(y)
        with torch.set_grad_enabled(True):
            y.requires_grad_(True)
            t.requires_grad_(True)
            dy = self.diffeq(t, y)
            if self.probe is not None:
                pushed = torch.autograd.grad(dy, y, self.probe, create_graph=True)[0]
                divergence = (pushed * self.probe).sum(1)
            else:
                divergence = divergence_bf(dy, y)
        return dy, -divergence.view(len(y), 1)


class CNF:
    """The flow, from data to base or back, at one tolerance."""

    def __init__(self, problem: str, tolerance: float, dtype: str, approximate: bool = False) -> None:
        flow, self.rows = load_problem(problem, dtype)
        options = flow.options.field  # type: ignore[attr-defined]
        self.parameters: nn.Module
        diffeq: nn.Module
        if options.name == "concatsquash":
            features = self.rows.shape[1]
            net = ODEnet([features, *options.hidden, features]).to(self.rows.dtype)
            net.load_state_dict(flow.field.state_dict())
            diffeq, self.parameters, self.end_time = net, net, options.time_length
        else:
            diffeq, self.parameters, self.end_time = Backwards(flow.field), flow.field, 1.0
        self.odefunc = ODEfunc(diffeq, approximate)
        self.tolerance = tolerance

    def integrate(self, rows: Tensor, *, reverse: bool = False) -> tuple[Tensor, Tensor]:
        """The other end (n, d) and -delta log p (n,)."""
        times = torch.tensor([0.0, self.end_time], dtype=rows.dtype)
        self.odefunc.probe, self.odefunc.nfe = None, 0
        x, change = odeint_adjoint(
            self.odefunc,
            (rows, rows.new_zeros(len(rows), 1)),
            times.flip(0) if reverse else times,
            atol=self.tolerance,
            rtol=self.tolerance,
            method="dopri5",
        )
        return x[1], change[1].squeeze(1)


def gradient(
    problem: str, tolerance: float = 1e-5, approximate: bool = False, dtype: str = "float32"
) -> Contender:
    """The gradient of the mean negative log-likelihood by the continuous adjoint."""
    cnf = CNF(problem, tolerance, dtype, approximate)
    torch.manual_seed(0)

    def once() -> Answer:
        cnf.parameters.zero_grad(set_to_none=True)
        z, change = cnf.integrate(cnf.rows)
        forward = cnf.odefunc.nfe
        loss = (0.5 * z.square().sum(1) + change).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return Answer(gradients(cnf.parameters), {"nfe": forward, "backward_nfe": cnf.odefunc.nfe - forward})

    return once


def carry(problem: str, direction: str, dtype: str, tolerance: float) -> Contender:
    """The log-likelihoods of the rows (`to_base`), or what they are the base of (`to_data`), by brute
    force.
    """
    cnf = CNF(problem, tolerance, dtype)

    @torch.no_grad()
    def once() -> Answer:
        value, change = cnf.integrate(cnf.rows, reverse=direction == "to_data")
        return Answer(carried(direction, cnf.rows, value, -change), {"nfe": cnf.odefunc.nfe})

    return once
