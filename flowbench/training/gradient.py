"""The gradient of a training step, which a GPU records once and replays."""

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from flowbench.models.density import Density
from flowbench.objectives.objective import LossTerms, Objective

#: Steps before a recording, in which libraries choose their kernels and take their memory.
WARM_UP = 3


class Gradient:
    """The gradient of an `objective` with respect to the parameters of a `flow`, with its norm clipped.

    It is left in the parameters' `grad`. All draws are of `generator`. A norm above `clip_norm` is brought
    down to it. A GPU records the first step as a CUDA graph if the objective `is_static_for` the flow. Each
    later step is one launch of that graph, with new rows and draws. Launched one by one, the hundreds of
    kernels of a small network keep a GPU waiting.
    """

    def __init__(
        self, flow: Density, objective: Objective, generator: torch.Generator, *, clip_norm: float
    ) -> None:
        self.objective = objective
        self._flow = flow
        self._generator = generator
        self._clip_norm = clip_norm
        self._recording: _Recording | None = None

    def __call__(self, batch: Tensor, context: Tensor | None = None) -> tuple[LossTerms, Tensor]:
        """The loss on `batch: (n, d)`, in model space, and the gradient's norm, (), before it was clipped.

        `context: (n, c)` goes with the rows of a conditional density. Loss and norm are valid until the next
        call. Raises as the objective does.
        """
        if not (batch.is_cuda and self.objective.is_static_for(self._flow)):
            return self._take(batch, context)
        if self._recording is None or not self._recording.fits(batch, context):
            self._recording = self._record(batch, context)
        return self._recording.replay(batch, context)

    def forget(self) -> None:
        """Record anew: to load weights may put other tensors in the place of those that were recorded."""
        self._recording = None

    def _take(self, batch: Tensor, context: Tensor | None) -> tuple[LossTerms, Tensor]:
        for parameter in self._flow.parameters():
            parameter.grad = None
        loss = self.objective(self._flow, batch, self._generator, context=context)
        loss.total.backward()  # type: ignore[no-untyped-call]
        # Cut off, or the loss would keep the nodes that add up gradients on the stream of this call.
        loss = replace(loss, total=loss.total.detach())
        return loss, torch.nn.utils.clip_grad_norm_(self._flow.parameters(), self._clip_norm)

    def _record(self, batch: Tensor, context: Tensor | None) -> "_Recording":
        batch, state = batch.clone(), self._generator.get_state()
        context = None if context is None else context.clone()
        # Graphs are recorded on the current device, which need not be the one of the rows.
        with torch.cuda.device(batch.device):
            current = torch.cuda.current_stream()
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self._take(batch, context)
            current.wait_stream(aside)
            self._generator.set_state(state)
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self._generator)
            with torch.cuda.graph(graph, stream=aside):
                found = self._take(batch, context)
        gradients = [(parameter, parameter.grad) for parameter in self._flow.parameters()]
        return _Recording(graph, batch, context, found, gradients)


@dataclass(frozen=True)
class _Recording:
    """A step as a graph that reads `batch` and `context`, and writes what was `found` and the `gradients`."""

    graph: torch.cuda.CUDAGraph
    batch: Tensor
    context: Tensor | None
    found: tuple[LossTerms, Tensor]
    gradients: list[tuple[torch.nn.Parameter, Tensor | None]]

    def fits(self, batch: Tensor, context: Tensor | None) -> bool:
        """Whether the graph can be replayed with these: it reads tensors of fixed shapes."""
        if self.context is None or context is None:
            return self.context is context and self.batch.shape == batch.shape
        return self.batch.shape == batch.shape and self.context.shape == context.shape

    def replay(self, batch: Tensor, context: Tensor | None) -> tuple[LossTerms, Tensor]:
        self.batch.copy_(batch)
        if self.context is not None and context is not None:
            self.context.copy_(context)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.found
