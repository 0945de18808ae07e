"""A jitted latent ODE in diffrax; its environment is its own."""

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
LEAST_NOISE = 1e-2


def gradient(
    problem: str, rows: str, tolerance: float = 1e-5, adjoint: str = "recursive-checkpoint"
) -> Contender:
    """The gradient of the negative evidence bound, nats for each cell.

    `rows` is `together` for one solve whose state is the whole batch, as elsewhere, or `apart` for a solve of
    each series under `vmap`, as in diffrax's example.
    """
    prefix = "model."
    with np.load(problem, allow_pickle=False) as file:
        times, values, epsilon = (jnp.asarray(file[name]) for name in ("times", "values", "epsilon"))
        epsilon = epsilon[:, 0]
        weights = {name.removeprefix(prefix): jnp.asarray(file[name]) for name in file if prefix in name}
        latent = json.loads(str(file["options"]))["latent"]
    gaps = jnp.concatenate([times[1:] - times[:-1], jnp.zeros(1)])
    inputs = jnp.concatenate(
        [values, jnp.ones_like(values), jnp.broadcast_to(gaps[None, :, None], (*values.shape[:2], 1))], 2
    )
    adjoints = {
        "direct": diffrax.DirectAdjoint(),
        "recursive-checkpoint": diffrax.RecursiveCheckpointAdjoint(),
        "backsolve": diffrax.BacksolveAdjoint(),
    }

    def perceptron(weights: Weights, name: str, x: Any) -> Any:
        hidden = x @ weights[f"{name}.layers.0.weight"].T + weights[f"{name}.layers.0.bias"]
        hidden = jax.nn.elu(hidden)
        return hidden @ weights[f"{name}.layers.1.weight"].T + weights[f"{name}.layers.1.bias"]

    def read(weights: Weights) -> Any:
        of_input, of_state, input_bias, state_bias = (
            weights[f"recognition.gru.{name}_l0"] for name in ("weight_ih", "weight_hh", "bias_ih", "bias_hh")
        )

        def step(state: Any, each: Any) -> Any:
            reset, update, new = jnp.split(each @ of_input.T + input_bias, 3, axis=1)
            more_reset, more_update, more_new = jnp.split(state @ of_state.T + state_bias, 3, axis=1)
            reset, update = jax.nn.sigmoid(reset + more_reset), jax.nn.sigmoid(update + more_update)
            new = jnp.tanh(new + reset * more_new)
            return (1 - update) * new + update * state, None

        first = jnp.zeros((len(values), of_state.shape[1]))
        return jax.lax.scan(step, first, inputs.transpose(1, 0, 2), reverse=True)[0]

    def solve(weights: Weights, z: Any) -> Any:
        solution = diffrax.diffeqsolve(
            diffrax.ODETerm(lambda t, z, weights: perceptron(weights, "dynamics.field", z)),
            diffrax.Dopri5(),
            times[0],
            times[-1],
            None,
            z,
            weights,
            saveat=diffrax.SaveAt(ts=times),
            stepsize_controller=diffrax.PIDController(rtol=tolerance, atol=tolerance),
            adjoint=adjoints[adjoint],
            max_steps=64,
        )
        return solution.ys, solution.stats["num_steps"]

    def loss(weights: Weights) -> Any:
        known = jnp.concatenate([read(weights), jnp.broadcast_to(times[0], (len(values), 1))], 1)
        head = known @ weights["recognition.head.weight"].T + weights["recognition.head.bias"]
        mean, log_scale = head[:, :latent], head[:, latent:]
        z = mean + jnp.exp(log_scale) * epsilon
        if rows == "together":
            states, steps = solve(weights, z)
            states = states.transpose(1, 0, 2)
        else:
            states, steps = jax.vmap(solve, (None, 0))(weights, z)
        decoded = perceptron(weights, "decoder", states)
        scale = jnp.sqrt(jnp.exp(2 * weights["log_noise"]) + LEAST_NOISE**2)
        log_prob = -0.5 * ((values - decoded) / scale) ** 2 - jnp.log(scale) - 0.5 * jnp.log(2 * jnp.pi)
        divergence = 0.5 * (mean**2 + jnp.exp(2 * log_scale) - 1) - log_scale
        return (divergence.sum() - log_prob.sum()) / values.size, jnp.max(steps)

    compiled = jax.jit(jax.grad(loss, has_aux=True))
    began = time.process_time()
    jax.block_until_ready(compiled(weights))
    figures = {"compile_cpu_seconds": round(time.process_time() - began, 1)}

    def once() -> Answer:
        found, steps = jax.block_until_ready(compiled(weights))
        # Dopri5 keeps its last slope: six evaluations a step, and two to begin with.
        nfe = 6 * int(steps) + 2
        gradient = {name: np.asarray(value, np.float64) for name, value in found.items()}
        return Answer(gradient, figures | {"nfe": nfe})

    return once
