"""A latent ODE on plain torchdiffeq, computed as that library's example computes its own.

The example reads a series backwards, one call of the recurrent cell for each time. It solves for all the
times at once, backpropagates through the solver, and decodes every state. Here the cell is the gated one of
the weights, so that all contenders compute one function. `cell` is `loop` for that, or `module` for
`torch.nn.GRU`, which the example does without.
"""

import math

import torch
from torch import Tensor
from torch.nn.functional import elu
from torchdiffeq import odeint

from benchmarks.latent_problem import load_latent_problem
from benchmarks.problem import gradients
from benchmarks.worker import Answer, Contender
from flowbench.models.series.recognition import RecurrentRecognition
from flowbench.models.series.series_model import LEAST_NOISE


def gradient(problem: str, cell: str = "loop", tolerance: float = 1e-5) -> Contender:
    """The gradient of the negative evidence bound, nats for each cell."""
    model, batch, noise = load_latent_problem(problem, {"name": "native"})
    times, values, epsilon = batch.times[0], batch.values, noise.normal(model.latent)
    gaps = torch.cat([times[1:] - times[:-1], torch.zeros(1)])
    inputs = torch.cat([values, torch.ones_like(values), gaps[None, :, None].expand(len(values), -1, 1)], 2)
    recognition = model.recognition
    if not isinstance(recognition, RecurrentRecognition):
        raise TypeError("the problem's recognition is another one")
    network, field, decoder = recognition.gru, model.dynamics.field, model.decoder
    calls = [0]

    def slope(t: Tensor, z: Tensor) -> Tensor:
        calls[0] += 1
        first, last = field.layers
        found: Tensor = last(elu(first(z)))
        return found

    def read() -> Tensor:
        if cell == "module":
            states, _ = network(inputs.flip(1))
            last: Tensor = states[:, -1]
            return last
        names = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
        weights = [getattr(network, name) for name in names]
        state = values.new_zeros(len(values), network.hidden_size)
        for place in reversed(range(inputs.shape[1])):
            # What nn.GRUCell calls.
            state = torch._VF.gru_cell(inputs[:, place], state, *weights)
        return state

    def once() -> Answer:
        model.zero_grad(set_to_none=True)
        calls[0] = 0
        known = torch.cat([read(), times[0].expand(len(values), 1)], 1)
        mean, log_scale = recognition.head(known).chunk(2, 1)
        z = mean + log_scale.exp() * epsilon
        states = odeint(slope, z, times, rtol=tolerance, atol=tolerance).permute(1, 0, 2)
        first, last = decoder.layers
        decoded = last(elu(first(states)))
        scale = (model.log_noise.exp().square() + LEAST_NOISE**2).sqrt()
        log_prob = -0.5 * ((values - decoded) / scale).square() - scale.log() - 0.5 * math.log(2 * math.pi)
        divergence = 0.5 * (mean.square() + (2 * log_scale).exp() - 1) - log_scale
        loss = (divergence.sum() - log_prob.sum()) / values.numel()
        loss.backward()
        return Answer(gradients(model), {"nfe": calls[0]})

    return once
