"""The gradient of a training step, which a GPU records once and replays."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowbench.models.density import Density
from flowbench.objectives.objective import LossTerms, Objective

#: Steps before a recording, in which libraries choose their kernels and take their memory.
WARM_UP = 3


class Gradient:
    """Leaves the gradient of an `objective` in the parameters of a `flow`; all draws are of `generator`.

    The gradient's norm is brought down to `clip_norm`. Networks as small as these keep a GPU waiting for the
    next of hundreds of launches: where batches are on one and the objective `is_static_for` the flow, the
    first step is recorded as a CUDA graph, and each later one is one launch of it, with new rows and draws.
    """

    def __init__(
        self, flow: Density, objective: Objective, generator: torch.Generator, *, clip_norm: float
    ) -> None:
        self.objective = objective
        self._flow = flow
        self._generator = generator
        self._clip_norm = clip_norm
        self._recording: _Recording | None = None

    def __call__(self, batch: Tensor) -> tuple[LossTerms, Tensor]:
        """The loss on `batch: (n, d)`, in model space, and the gradient's norm, (), before it was clipped.

        Both are valid until the next call. Raises as the objective does.
        """
        if not (batch.is_cuda and self.objective.is_static_for(self._flow)):
            return self._take(batch)
        if self._recording is None or self._recording.batch.shape != batch.shape:
            self._recording = self._record(batch)
        return self._recording.replay(batch)

    def forget(self) -> None:
        """Record anew: to load weights may put other tensors in the place of those that were recorded."""
        self._recording = None

    def _take(self, batch: Tensor) -> tuple[LossTerms, Tensor]:
        for parameter in self._flow.parameters():
            parameter.grad = None
        loss = self.objective(self._flow, batch, self._generator)
        loss.total.backward()  # type: ignore[no-untyped-call]
        # Cut off, or the loss would keep the nodes that add up gradients on the stream of this call.
        loss = replace(loss, total=loss.total.detach())
        return loss, torch.nn.utils.clip_grad_norm_(self._flow.parameters(), self._clip_norm)

    def _record(self, batch: Tensor) -> "_Recording":
        batch, state = batch.clone(), self._generator.get_state()
        # Graphs are recorded on the current device, which need not be the one of the rows.
        with torch.cuda.device(batch.device):
            current = torch.cuda.current_stream()
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self._take(batch)
            current.wait_stream(aside)
            self._generator.set_state(state)
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self._generator)
            with torch.cuda.graph(graph, stream=aside):
                found = self._take(batch)
        gradients = [(parameter, parameter.grad) for parameter in self._flow.parameters()]
        return _Recording(graph, batch, found, gradients)


@dataclass(frozen=True)
class _Recording:
    """A step as a graph that reads `batch`, and writes what was `found` and the `gradients`."""

    graph: torch.cuda.CUDAGraph
    batch: Tensor
    found: tuple[LossTerms, Tensor]
    gradients: list[tuple[torch.nn.Parameter, Tensor | None]]

    def replay(self, batch: Tensor) -> tuple[LossTerms, Tensor]:
        self.batch.copy_(batch)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.found
