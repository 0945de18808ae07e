"""Networks that recognise digits: with residual blocks, with an ODE in their place, and of one layer."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn.functional import conv2d, relu

from flowbench.models.seeded_layers import seeded_convolution, seeded_linear
from flowbench.ode.integrator import Integrator, State
from flowbench.ode.native_engine import NativeIntegrator, NativeOptions
from flowbench.ode.torchdiffeq_engine import TorchdiffeqIntegrator, TorchdiffeqOptions

NetworkName = Literal["MLP", "ResNet", "RK-Net", "ODE-Net"]
NETWORKS: tuple[NetworkName, ...] = get_args(NetworkName)

CLASSES, CHANNELS, GROUPS, RESIDUAL_BLOCKS, HIDDEN = 10, 64, 32, 6, 300
#: Of the ODE-Net's adaptive solver, absolute and relative; and the equal steps of the RK-Net.
TOLERANCE, RUNGE_KUTTA_STEPS = 1e-3, 2


class ResidualBlock(nn.Module):
    """x + f(x), with two groups of norm, ReLU and convolution (He, Zhang, Ren and Sun 2016)."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.norms = nn.ModuleList(_norm() for _ in range(2))
        self.convolutions = nn.ModuleList(
            seeded_convolution(CHANNELS, CHANNELS, 3, generator, padding=1, bias=False) for _ in range(2)
        )

    def forward(self, x: Tensor) -> Tensor:
        """`x: (n, 64, h, w)` to the same shape."""
        out = x
        for norm, convolution in zip(self.norms, self.convolutions, strict=True):
            out = convolution(relu(norm(out)))
        return x + out


class TimeConvolution(nn.Module):
    """A 3 x 3 convolution of the channels and of one more, which is the time everywhere."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.layer = seeded_convolution(CHANNELS + 1, CHANNELS, 3, generator, padding=1)

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """`x: (n, 64, h, w)` at the time `t: ()`, to the same shape."""
        weight = self.layer.weight
        # All images share the channel of the time, so it is convolved once. That saves a fifth of the time.
        of_time = conv2d(x.new_ones(1, 1, *x.shape[2:]), weight[:, :1], padding=1)
        return conv2d(x, weight[:, 1:], self.layer.bias, padding=1) + t.to(x) * of_time


class Dynamics(nn.Module):
    """dx/dt of an image's features; `evaluations` counts the calls."""

    def __init__(self, generator: torch.Generator) -> None:
        super().__init__()
        self.norms = nn.ModuleList(_norm() for _ in range(3))
        self.convolutions = nn.ModuleList(TimeConvolution(generator) for _ in range(2))
        self.evaluations = 0

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        """`x: (n, 64, h, w)` at the time `t: ()`, to the same shape."""
        self.evaluations += 1
        for norm, convolution in zip(self.norms[:2], self.convolutions, strict=True):
            x = convolution(t, relu(norm(x)))
        return self.norms[2](x)  # type: ignore[no-any-return]


class OdeBlock(nn.Module):
    """The solution at t = 1 of dx/dt = f(t, x) that starts with the block's input at t = 0."""

    def __init__(self, integrator: Integrator, generator: torch.Generator) -> None:
        super().__init__()
        self.dynamics = Dynamics(generator)
        self.integrator = integrator

    def forward(self, x: Tensor) -> Tensor:
        """`x: (n, 64, h, w)` to the same shape; the solver's steps are those of the whole batch."""

        def derivative(t: Tensor, state: State) -> State:
            return (self.dynamics(t, state[0]),)

        solution = self.integrator.integrate(
            derivative, (x,), 0.0, 1.0, parameters=self.dynamics.parameters()
        )
        return solution.state[0]


def build_network(name: NetworkName, side: int, generator: torch.Generator) -> nn.Sequential:
    """The network for grey images `(n, 1, side, side)`; it gives logits `(n, 10)`.

    The images are of 28 x 28 pixels, or of 8 x 8. Between stem and head, features are `(n, 64, 6, 6)`. Small
    images have 6 x 6 after the first convolution, so the two that halve them are left out.
    """
    if name == "MLP":
        layers = seeded_linear(side * side, HIDDEN, generator), seeded_linear(HIDDEN, CLASSES, generator)
        return nn.Sequential(nn.Flatten(), layers[0], nn.ReLU(), layers[1])
    stem: list[nn.Module] = [seeded_convolution(1, CHANNELS, 3, generator)]
    for _ in range(2 if side > 8 else 0):
        halving = seeded_convolution(CHANNELS, CHANNELS, 4, generator, stride=2, padding=1)
        stem += [_norm(), nn.ReLU(), halving]
    body = (
        [ResidualBlock(generator) for _ in range(RESIDUAL_BLOCKS)]
        if name == "ResNet"
        else [OdeBlock(_integrator(name), generator)]
    )
    head = _norm(), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    return nn.Sequential(*stem, *body, *head, seeded_linear(CHANNELS, CLASSES, generator))


def dynamics_of(network: nn.Module) -> Dynamics | None:
    """The right-hand side of the network's ODE; None if it has no ODE."""
    return next((module for module in network.modules() if isinstance(module, Dynamics)), None)


def _integrator(name: NetworkName) -> Integrator:
    if name == "RK-Net":
        return NativeIntegrator(NativeOptions(method="rk4", steps=RUNGE_KUTTA_STEPS))
    return TorchdiffeqIntegrator(TorchdiffeqOptions(atol=TOLERANCE, rtol=TOLERANCE, gradient="adjoint"))


def _norm() -> nn.GroupNorm:
    return nn.GroupNorm(GROUPS, CHANNELS)
