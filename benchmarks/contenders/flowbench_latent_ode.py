"""flowbench's latent ODE: the gradient of its evidence bound."""

from typing import Any

from benchmarks.latent_problem import load_latent_problem
from benchmarks.problem import gradients
from benchmarks.worker import Answer, Contender


def gradient(problem: str, integrator: dict[str, Any], dtype: str = "float32") -> Contender:
    """The gradient of the negative evidence bound, nats for each cell."""
    model, batch, noise = load_latent_problem(problem, integrator, dtype)

    def once() -> Answer:
        model.zero_grad(set_to_none=True)
        model.dynamics.nfe = 0
        found = model.evidence(batch, noise)
        loss = (found.divergence.sum() - found.log_prob.sum()) / batch.cells.sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return Answer(gradients(model), {"nfe": model.dynamics.nfe})

    return once
