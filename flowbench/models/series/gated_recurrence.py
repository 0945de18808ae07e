"""A gated recurrent network whose gradient takes less than half the time of `torch.nn.GRU` on a CPU."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.autograd.function import once_differentiable

_sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input


def gated_states(network: nn.GRU, inputs: Tensor, first: Tensor, ends: Tensor | None = None) -> Tensor:
    """The states after each of the inputs `(n, L, i)`, read in order from the state `first: (n, units)`.

    They are those of `network`, a GRU of one layer: `(n, L, units)`. With `ends: (n,)`, int64, they are only
    the states after that place of each row: `(n, units)`.
    """
    if inputs.device.type != "cpu":
        states: Tensor = network(inputs, first[None].contiguous())[0]
        return states if ends is None else states[torch.arange(len(inputs), device=ends.device), ends]
    weights = [parameter for _, parameter in network.named_parameters()]
    found: Tensor = _Recurrence.apply(  # type: ignore[no-untyped-call]
        inputs.permute(1, 2, 0), (first.t() + 1) / 2, _combined(*weights), ends
    )
    return 2 * (found.permute(2, 0, 1) if ends is None else found.t()) - 1


def _combined(of_input: Tensor, of_state: Tensor, input_bias: Tensor, state_bias: Tensor) -> Tensor:
    """All weights as one matrix `(4 u, u + i + 1)` that is multiplied by (state, input, 1).

    Its rows are those of the reset gate, the update gate, and the state's and the input's part of the new
    state. The state here is (h + 1) / 2 for a state h of the GRU, and tanh(a) is 2 sigmoid(2 a) - 1. So every
    activation is a sigmoid, which costs a quarter of tanh.
    """
    units = of_state.shape[1]
    bias = state_bias - of_state.sum(1)
    gates = torch.cat([2 * of_state, of_input, (bias + input_bias)[:, None]], 1)[: 2 * units]
    old = torch.cat([2 * of_state, torch.zeros_like(of_input), bias[:, None]], 1)[2 * units :]
    new = torch.cat([torch.zeros_like(of_state), of_input, input_bias[:, None]], 1)[2 * units :]
    return torch.cat([gates, 2 * old, 2 * new])


def _find_gates(weights: Tensor, known: Tensor, out: Tensor) -> tuple[Tensor, ...]:
    """Reset gate, update gate, the state's part of the new state, and the new state: `(u, n)`, in `out`."""
    units = len(out) // 4
    torch.mm(weights, known, out=out)
    reset, update, old, new = torch.split(out, units)
    out[: 2 * units].sigmoid_()
    new.addcmul_(reset, old).sigmoid_()
    return reset, update, old, new


class _Recurrence(Function):
    """The states in (0, 1) that `_combined` weights give, `(L, u, n)`, or `(u, n)` at the `ends`.

    Rows are the last axis, along which memory is contiguous. A step takes a single product of matrices
    forward, and three backward. `torch.nn.GRU` takes more products, of shapes that take longer.
    """

    @staticmethod
    def forward(ctx: Any, inputs: Tensor, first: Tensor, weights: Tensor, ends: Tensor | None) -> Tensor:
        length, width, n = inputs.shape
        units = len(first)
        known = inputs.new_empty(length + 1, units + width + 1, n)
        known[0, :units] = first
        known[:length, units:-1] = inputs
        known[:, -1] = 1
        gates = inputs.new_empty(4 * units, n)
        for place in range(length):
            _, update, _, new = _find_gates(weights, known[place], gates)
            torch.lerp(new, known[place, :units], update, out=known[place + 1, :units])
        ctx.save_for_backward(known, weights, ends)
        states = known[1:, :units]
        return states if ends is None else states.gather(0, ends.expand(1, units, n)).squeeze(0)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, found: Tensor) -> tuple[Tensor | None, Tensor, Tensor, None]:
        known, weights, ends = ctx.saved_tensors
        length, (units, n) = len(known) - 1, found.shape[-2:]
        counts = [] if ends is None else ends.bincount(minlength=length).tolist()
        # The input's part of the new state does not depend on the state.
        by_state = weights[: 3 * units, :units].t().contiguous()
        by_input = weights[:, units:-1].t().contiguous()
        of_inputs = found.new_empty(length, len(by_input), n) if ctx.needs_input_grad[0] else None
        of_weights = weights.new_zeros(weights.shape[::-1])
        of_state = found.new_zeros(units, n)
        gates, of_gates = found.new_empty(2, 4 * units, n)
        of_reset, of_update, of_old, of_new = torch.split(of_gates, units)
        for place in reversed(range(length)):
            if ends is None:
                of_state += found[place]
            elif counts[place]:
                of_state += found if counts[place] == n else torch.where(ends == place, found, 0)
            # To compute the gates again is faster than to write and read as much memory.
            reset, update, old, new = _find_gates(weights, known[place], gates)
            torch.sub(known[place, :units], new, out=of_update).mul_(of_state)
            _sigmoid_backward(of_update, update, grad_input=of_update)
            kept = of_state * update
            _sigmoid_backward(of_state.sub_(kept), new, grad_input=of_new)
            torch.mul(of_new, reset, out=of_old)
            torch.mul(of_new, old, out=of_reset)
            _sigmoid_backward(of_reset, reset, grad_input=of_reset)
            of_weights.addmm_(known[place], of_gates.t())
            of_state = kept.addmm_(by_state, of_gates[: 3 * units])
            if of_inputs is not None:
                torch.mm(by_input, of_gates, out=of_inputs[place])
        return of_inputs, of_state, of_weights.t(), None
