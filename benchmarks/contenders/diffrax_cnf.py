"""A jitted continuous flow in diffrax, for FFJORD's concatsquash network; its environment is its own."""

import json
import os
import time
from typing import Any

import numpy as np

# One thread: XLA sizes its pool by the cores it may use.
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")
if hasattr(os, "sched_setaffinity"):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})

import diffrax
import jax
import jax.numpy as jnp

from benchmarks.worker import Answer, Contender

Weights = dict[str, Any]


def gradient(problem: str, adjoint: str, trace: str, tolerance: float = 1e-5) -> Contender:
    """The gradient of the mean negative log-likelihood; `trace` by "jvp" or "vjp", over d basis vectors."""
    with np.load(problem, allow_pickle=False) as file:
        options = json.loads(str(file["options"]))["field"]
        rows = jnp.asarray(file["rows"])
        prefix = "flow.field."
        weights = {name.removeprefix(prefix): jnp.asarray(file[name]) for name in file if prefix in name}
    layers = len(options["hidden"]) + 1
    end_time = options["time_length"]
    basis = jnp.eye(rows.shape[1])
    adjoints = {
        "backsolve": diffrax.BacksolveAdjoint(),
        "recursive-checkpoint": diffrax.RecursiveCheckpointAdjoint(),
    }

    def velocity(weights: Weights, tau: Any, x: Any) -> Any:
        for i in range(layers):
            layer = f"layers.{i}"
            gate = jax.nn.sigmoid(weights[f"{layer}.gate.weight"][:, 0] * tau + weights[f"{layer}.gate.bias"])
            x = (x @ weights[f"{layer}.layer.weight"].T + weights[f"{layer}.layer.bias"]) * gate
            x = x + weights[f"{layer}.shift.weight"][:, 0] * tau
            if i < layers - 1:
                x = jnp.tanh(x)
        return x

    def rates(tau: Any, state: Any, weights: Weights) -> Any:
        x = state[0]

        def at(rows: Any) -> Any:
            return velocity(weights, tau, rows)

        if trace == "jvp":
            dx, push = jax.linearize(at, x)
            columns = jax.vmap(lambda e: push(jnp.broadcast_to(e, x.shape)))(basis)
        else:
            dx, pull = jax.vjp(at, x)
            columns = jax.vmap(lambda e: pull(jnp.broadcast_to(e, x.shape))[0])(basis)
        return dx, jnp.einsum("kni,ki->n", columns, basis)

    def loss(weights: Weights, rows: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(rates),
            diffrax.Dopri5(),
            0.0,
            end_time,
            None,
            (rows, jnp.zeros(len(rows))),
            weights,
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            adjoint=adjoints[adjoint],
            max_steps=256,
        )
        z, log_det = (part[0] for part in solution.ys)
        return (0.5 * (z**2).sum(1) - log_det).mean(), solution.stats["num_steps"]

    compiled = jax.jit(jax.grad(loss, has_aux=True))
    began = time.process_time()
    jax.block_until_ready(compiled(weights, rows))
    figures = {"compile_cpu_seconds": round(time.process_time() - began, 1)}

    def once() -> Answer:
        found, steps = jax.block_until_ready(compiled(weights, rows))
        # Dopri5 keeps its last slope: six evaluations a step, and two to begin with.
        nfe = 6 * int(steps) + 2
        gradient = {name: np.asarray(value, np.float64) for name, value in found.items()}
        return Answer(gradient, figures | {"nfe": nfe})

    return once
