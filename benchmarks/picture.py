"""`python -m benchmarks.picture`: fit two toys, and draw how their flows carry the base to the data.

Writes `docs/flow.webp`, the picture at the head of the README. On a free core it takes about five minutes.
"""

import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from benchmarks.harness import ROOT
from flowbench import FlowDensity
from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.density import base_log_prob
from flowbench.ode.integrator import State
from flowbench.ode.native_engine import NativeOptions
from flowbench.registry import TOYS

PAGE = ROOT / "docs" / "flow.webp"
NAMES = ("2spirals", "checkerboard")
SECONDS = 60.0
ROWS, SAMPLES = 200_000, 700
#: Half the width of a panel, in standard deviations of the data, and the grid points along it.
REACH, POINTS = 2.4, 110
FRAMES, FRAME_MS, FIRST_MS, LAST_MS = 36, 80, 700, 2600
PIXELS = 400
COLOURS = colormaps["magma"]

Floats = NDArray[Any]


def main() -> None:
    """Fit, integrate and draw."""
    # Most of what one sees happens close to the data, so later frames are closer together in time.
    times = 1 - (1 - np.linspace(0, 1, FRAMES)) ** 2
    toys = [(name, *carry(fitted(name), times)) for name in NAMES]
    frames = [draw(float(t), [(name, x[i], p[i]) for name, x, p in toys]) for i, t in enumerate(times)]
    write(frames, PAGE)
    print(f"{PAGE}: {PAGE.stat().st_size / 1e3:.0f} kB")


def fitted(name: str) -> ContinuousFlow:
    """The flow of the toy called `name`, in standardised columns, float32."""
    x = TOYS.get(name)().sample(ROWS, np.random.default_rng(0))
    options = {"transforms": ["standardise"], "background": False}
    density = FlowDensity("cnf", time_budget=SECONDS, dequantise=False, options=options, random_state=0)
    model = density.fit(x).model_.for_evaluation(NativeOptions(atol=1e-3, rtol=1e-3), dtype=torch.float32)
    flow = model.flow
    if not isinstance(flow, ContinuousFlow):
        raise TypeError(f"`cnf` is a continuous flow; got {type(flow).__name__}")
    return flow


@torch.no_grad()
def carry(flow: ContinuousFlow, times: Floats) -> tuple[Floats, Floats]:
    """Positions of samples `(k, n, 2)` and densities on the grid `(k, m, m)`, at each of `times: (k,)`."""
    z = flow.sample_base(SAMPLES, torch.Generator().manual_seed(1))
    axis = torch.linspace(-REACH, REACH, POINTS)
    grid = torch.cartesian_prod(axis, axis)
    densities = [log_prob_at(flow, grid, float(t)).exp().reshape(POINTS, POINTS).T.numpy() for t in times]
    return flow.trajectory(z, torch.tensor(times)).numpy(), np.stack(densities)


def log_prob_at(flow: ContinuousFlow, x: Tensor, t: float) -> Tensor:
    """The log-density (n,) at `x: (n, 2)` of what the base has become at time `t`, nats.

    It is that of the base at the point which flows to `x`, less the divergence on the way.
    """

    def derivative(time: Tensor, state: State) -> State:
        return flow.rates(flow.field, time, state[0], None, None)

    z, log_det = flow.integrator.integrate(derivative, (x, x.new_zeros(len(x))), t, 0.0).state
    return base_log_prob(z) + log_det


def draw(t: float, panels: list[tuple[str, Floats, Floats]]) -> Image.Image:
    """One frame: for each toy its name, samples `(n, 2)` over the density `(m, m)`."""
    inches = PIXELS / 100
    figure = Figure(figsize=(inches * len(panels), inches + 0.4), dpi=100, facecolor=COLOURS(0.0))
    high = inches / (inches + 0.4)
    for index, (_, x, density) in enumerate(panels):
        axes = figure.add_axes((index / len(panels), 0, 1 / len(panels), high))
        extent: Any = (-REACH, REACH, -REACH, REACH)
        # Each frame has its own scale: densities grow manifold on the way.
        most = float(np.quantile(density, 0.99))
        axes.imshow(
            density, COLOURS, origin="lower", extent=extent, vmin=0, vmax=most, interpolation="bicubic"
        )
        axes.scatter(x[:, 0], x[:, 1], s=3.5, c="white", alpha=0.75, linewidths=0)
        axes.set(xlim=extent[:2], ylim=extent[2:])
        axes.set_axis_off()
    label: dict[str, Any] = {"color": "#e8e4ee", "fontsize": 12, "va": "center", "family": "DejaVu Sans"}
    middle = (1 + high) / 2
    figure.text(0.02, middle, "base", ha="left", **label)
    figure.text(0.98, middle, "data", ha="right", **label)
    bar = figure.add_axes((0.08, middle - 0.006, 0.84, 0.012))
    bar.barh([0], [1], color="#3b2f55")
    bar.barh([0], [t], color="#fc8961")
    bar.set(xlim=(0, 1), ylim=(-0.4, 0.4))
    bar.set_axis_off()
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png")
    return Image.open(buffer).convert("RGB")


def write(frames: list[Image.Image], path: Path) -> None:
    """Animate `frames`, with a pause at either end."""
    path.parent.mkdir(exist_ok=True)
    pauses = [FIRST_MS, *[FRAME_MS] * (len(frames) - 2), LAST_MS]
    frames[0].save(
        path, save_all=True, append_images=frames[1:], duration=pauses, loop=0, quality=70, method=6
    )


if __name__ == "__main__":
    main()
