"""Flows of other libraries as their users build them, behind flowbench's transforms and trainer."""

from typing import Self

import torch
from torch import Tensor

from flowbench import options
from flowbench.models.density import Density, Scores, base_log_prob

#: Of zuko's continuous flow, beside the tolerance at which it is scored: it lets the log-determinant's be a
#: hundred times looser.
FINER = 1e-2


class ZukoCNF(Density):
    """zuko's `CNF` with its defaults: two layers of 64 ELU units, exact trace, adjoint, rtol = 1e-5."""

    def __init__(self, features: int) -> None:
        from zuko.flows import CNF

        torch.manual_seed(0)
        super().__init__(features, options.PartOptions(name="zuko CNF"), torch.Generator())
        self.transform = CNF(features).transform
        self.nfe = 0

    def for_evaluation(
        self,
        integrator: options.PartOptions,
        *,
        divergence: options.PartOptions | None = None,
        dtype: torch.dtype = torch.float64,
    ) -> Self:
        """See `Density`."""
        copied = super().for_evaluation(integrator, dtype=dtype)
        tolerances = integrator.model_dump()
        copied.transform.atol, copied.transform.rtol = (FINER * tolerances[name] for name in ("atol", "rtol"))
        return copied

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        raise NotImplementedError

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        self.nfe = 0
        counting = self.transform.ode.register_forward_hook(self._count)
        z, log_det = self.transform().call_and_ladj(x)
        counting.remove()
        return Scores(base_log_prob(z) + log_det, self.nfe)

    def _count(self, *arguments: object) -> None:
        self.nfe += 1


class NormflowsPlanar(Density):
    """As many of normflows' planar layers as flowbench's planar flow has, from data to base."""

    def __init__(self, features: int, layers: int = 32) -> None:
        import normflows

        torch.manual_seed(0)
        super().__init__(features, options.PartOptions(name="normflows planar"), torch.Generator())
        self.layers = torch.nn.ModuleList(normflows.flows.Planar((features,)) for _ in range(layers))

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        # Its layers have no inverse.
        raise NotImplementedError

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        total = x.new_zeros(len(x))
        for layer in self.layers:
            x, log_det = layer(x)
            total = total + log_det
        return Scores(base_log_prob(x) + total)


OTHERS = {"zuko CNF": ZukoCNF, "normflows planar": NormflowsPlanar}
