"""flowbench's continuous flow: likelihood gradients, scoring and sampling."""

from typing import Any

import torch

from benchmarks.problem import gradients, load_problem
from benchmarks.worker import Answer, Contender
from flowbench.flows.base import base_log_prob
from flowbench.registry import INTEGRATORS


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
    problem: str, integrator: dict[str, Any], direction: str, dtype: str, tolerance: float | None = None
) -> Contender:
    """The log-likelihoods of the rows (`to_base`), or what they are the base of (`to_data`)."""
    flow, rows = load_problem(problem, dtype)
    tolerances = {} if tolerance is None else {"atol": tolerance, "rtol": tolerance}
    flow.integrator = _integrator({**integrator, **tolerances})

    @torch.no_grad()
    def once() -> Answer:
        if direction == "to_data":
            mapped = flow.to_data(rows)
            log_prob = base_log_prob(rows) - mapped.log_det
            arrays = {"x": mapped.value.double().numpy(), "log_prob": log_prob.double().numpy()}
        else:
            mapped = flow.to_base(rows)
            arrays = {"log_prob": (base_log_prob(mapped.value) + mapped.log_det).double().numpy()}
        return Answer(arrays, {"nfe": mapped.nfe})

    return once


def _integrator(options: dict[str, Any]) -> Any:
    engine = INTEGRATORS.get(options["name"])
    return engine(engine.Options(**options))
