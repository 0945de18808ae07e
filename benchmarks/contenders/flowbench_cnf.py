"""flowbench's continuous flow: likelihood gradients, scoring and sampling."""

from typing import Any

import torch

from benchmarks.problem import carried, gradients, load_problem, perturbed_flow
from benchmarks.worker import Answer, Contender
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.models.density_model import CHUNK, DensityModel
from flowbench.models.rows import Rows
from flowbench.objectives.flow_matching import FlowMatching, FlowMatchingOptions
from flowbench.registry import INTEGRATORS
from flowbench.training.gradient import Gradient
from flowbench.training.precision import matmul_precision


def gradient(problem: str, integrator: dict[str, Any], dtype: str = "float32") -> Contender:
    """The gradient of the mean negative log-likelihood, exact divergence."""
    flow, x = load_problem(problem, dtype)
    flow.integrator = _integrator(integrator)

    def once() -> Answer:
        flow.zero_grad(set_to_none=True)
        mapped = flow.to_base(x)
        loss = (0.5 * mapped.value.square().sum(1) - mapped.log_det).mean()
        loss.backward()  # type: ignore[no-untyped-call]
        return Answer(gradients(flow.field), {"nfe": mapped.nfe})

    return once


def carry(
    problem: str,
    integrator: dict[str, Any],
    direction: str,
    dtype: str,
    tolerance: float | None = None,
    device: str = "cpu",
) -> Contender:
    """The log-likelihoods of the rows (`to_base`), or what they are the base of (`to_data`)."""
    flow, rows = load_problem(problem, dtype)
    tolerances = {} if tolerance is None else {"atol": tolerance, "rtol": tolerance}
    flow.integrator = _integrator({**integrator, **tolerances})
    flow.to(device)

    @torch.no_grad()
    def once() -> Answer:
        there = rows.to(device)
        mapped = flow.to_base(there) if direction == "to_base" else flow.to_data(there)
        value, log_det = mapped.value.cpu(), mapped.log_det.cpu()
        return Answer(carried(direction, rows, value, log_det), {"nfe": mapped.nfe})

    return once


def many(rows: int, direction: str) -> Contender:
    """A table of `rows` rows through a small model, for its memory."""
    flow = perturbed_flow(2, {"name": "time-mlp", "width": 16, "scales": 0}, 0.05)
    per_row = INTEGRATORS.get("per-row").Options(atol=1e-2, rtol=1e-2)
    model = DensityModel(TableEncoder(("x", "y")), flow).for_evaluation(per_row)
    generator = torch.Generator().manual_seed(0)

    @torch.no_grad()
    def once() -> Answer:
        if direction == "sampling":
            model.sample_and_log_prob(rows, generator)
        else:
            model.score(torch.randn(rows, 2, dtype=torch.float64, generator=generator))
        return Answer()

    return once


def steps(
    problem: str,
    device: str = "cpu",
    dtype: str = "float32",
    recorded: bool = False,
    repetitions: int = 20,
) -> Contender:
    """Steps of training as for toys in their first 100 seconds, not averaged.

    On a GPU they are `recorded`, as flowbench takes them, or launched kernel by kernel.
    """
    flow, rows = load_problem(problem, dtype)
    flow, rows = flow.to(device), rows.to(device)
    flow.field.is_static = recorded
    (values,) = flow.default_phases
    objective = FlowMatching(FlowMatchingOptions())
    gradient = Gradient(flow, objective, torch.Generator(device).manual_seed(0), clip_norm=10.0)
    optimizer = torch.optim.AdamW(flow.parameters(), lr=1e-4, fused=True)

    def once() -> Answer:
        for _ in range(repetitions):
            with matmul_precision(values["matmul_precision"]):
                found, norm = gradient(Rows(rows))
            optimizer.step()
            # As the training loop does, which looks whether they are finite.
            found.total.item(), norm.item()
        return Answer(figures={"repetitions": repetitions})

    return once


def rates(problem: str, dtype: str, repetitions: int = 20) -> Contender:
    """Velocities and divergences, as a solve asks for them, in chunks of the size that scoring takes."""
    flow, rows = load_problem(problem, dtype)
    t = torch.linspace(0, 1, len(rows), dtype=rows.dtype)

    @torch.no_grad()
    def once() -> Answer:
        for _ in range(repetitions):
            for times, part in zip(torch.split(t, CHUNK), torch.split(rows, CHUNK), strict=True):
                flow.rates(flow.field, times, part, None, None)
        return Answer(figures={"repetitions": repetitions})

    return once


def products(rows: int, width: int, dtype: str, precision: str, repetitions: int = 50) -> Contender:
    """The product of a matrix (rows, width) with one (width, width)."""
    torch.backends.mkldnn.matmul.fp32_precision = precision  # type: ignore[attr-defined]
    left, right = (torch.randn(size, width, dtype=getattr(torch, dtype)) for size in (rows, width))

    def once() -> Answer:
        for _ in range(repetitions):
            left @ right
        return Answer(figures={"operations": 2 * rows * width**2 * repetitions})

    return once


def _integrator(options: dict[str, Any]) -> Any:
    engine = INTEGRATORS.get(options["name"])
    return engine(engine.Options(**options))
