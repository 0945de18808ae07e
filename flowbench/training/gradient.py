"""The gradient of a training step, which a GPU records once and replays."""

from dataclasses import dataclass, replace
from typing import Any, Generic

import torch
from torch import Tensor

from flowbench.models.rows import Rows
from flowbench.objectives.objective import BatchT, LossTerms, ModelT, Objective

#: Steps before a recording, in which libraries choose their kernels and take their memory.
WARM_UP = 3


class Gradient(Generic[ModelT, BatchT]):
    """The gradient of an `objective` with respect to the parameters of a `model`, with its norm clipped.

    It is left in the parameters' `grad`. All draws are of `generator`. A norm above `clip_norm` is brought
    down to it. On rows, a GPU records the first step as a CUDA graph if the objective `is_static_for` the
    model. Each later step is one launch of that graph, with new rows and draws. Launched one by one, the
    hundreds of kernels of a small network keep a GPU waiting.
    """

    def __init__(
        self,
        model: ModelT,
        objective: Objective[ModelT, BatchT],
        generator: torch.Generator,
        *,
        clip_norm: float,
    ) -> None:
        self.objective = objective
        self._model = model
        self._generator = generator
        self._clip_norm = clip_norm
        self._recording: _Recording | None = None

    def __call__(self, batch: BatchT, spent: float = 1.0) -> tuple[LossTerms, Tensor]:
        """The loss on `batch`, in model space, and the gradient's norm, (), before it was clipped.

        `spent` is the share of the training phase that is over; a recorded step does not depend on it. Loss
        and norm are valid until the next call. Raises as the objective does.
        """
        if not (isinstance(batch, Rows) and batch.x.is_cuda and self.objective.is_static_for(self._model)):
            return self._take(batch, spent)
        if self._recording is None or not self._recording.fits(batch):
            self._recording = self._record(batch)
        return self._recording.replay(batch)

    def forget(self) -> None:
        """Record anew: to load weights may put other tensors in the place of those that were recorded."""
        self._recording = None

    def _take(self, batch: BatchT, spent: float) -> tuple[LossTerms, Tensor]:
        for parameter in self._model.parameters():
            parameter.grad = None
        loss = self.objective(self._model, batch, self._generator, spent)
        loss.total.backward()  # type: ignore[no-untyped-call]
        # Cut off, or the loss would keep the nodes that add up gradients on the stream of this call.
        loss = replace(loss, total=loss.total.detach())
        return loss, torch.nn.utils.clip_grad_norm_(self._model.parameters(), self._clip_norm)

    def _record(self, rows: Rows) -> "_Recording":
        state = self._generator.get_state()
        batch: Any = rows.each(Tensor.clone)
        # Graphs are recorded on the current device, which need not be the one of the rows.
        with torch.cuda.device(batch.x.device):
            current = torch.cuda.current_stream()
            aside = torch.cuda.Stream()  # type: ignore[no-untyped-call]
            aside.wait_stream(current)
            with torch.cuda.stream(aside):
                for _ in range(WARM_UP):
                    self._take(batch, 1.0)
            current.wait_stream(aside)
            self._generator.set_state(state)
            graph = torch.cuda.CUDAGraph()
            graph.register_generator_state(self._generator)
            with torch.cuda.graph(graph, stream=aside):
                found = self._take(batch, 1.0)
        gradients = [(parameter, parameter.grad) for parameter in self._model.parameters()]
        return _Recording(graph, batch, found, gradients)


@dataclass(frozen=True)
class _Recording:
    """A step as a graph that reads `batch`, and writes what was `found` and the `gradients`."""

    graph: torch.cuda.CUDAGraph
    batch: Rows
    found: tuple[LossTerms, Tensor]
    gradients: list[tuple[torch.nn.Parameter, Tensor | None]]

    def fits(self, batch: Rows) -> bool:
        """Whether the graph can be replayed with these: it reads tensors of fixed shapes."""
        own, other = self.batch.context, batch.context
        if own is None or other is None:
            return own is other and self.batch.x.shape == batch.x.shape
        return self.batch.x.shape == batch.x.shape and own.shape == other.shape

    def replay(self, batch: Rows) -> tuple[LossTerms, Tensor]:
        self.batch.x.copy_(batch.x)
        if self.batch.context is not None and batch.context is not None:
            self.batch.context.copy_(batch.context)
        self.graph.replay()
        for parameter, gradient in self.gradients:
            parameter.grad = gradient
        return self.found
