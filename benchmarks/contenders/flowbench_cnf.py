"""flowbench's continuous flow: one likelihood gradient."""

from typing import Any

from benchmarks.problem import gradients, load_problem
from benchmarks.worker import Answer, Contender
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


def _integrator(options: dict[str, Any]) -> Any:
    engine = INTEGRATORS.get(options["name"])
    return engine(engine.Options(**options))
