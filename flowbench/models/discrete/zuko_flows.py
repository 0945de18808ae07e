"""Autoregressive and coupling flows of the library zuko behind the contract of a flow."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from flowbench import options
from flowbench.models.density import Flow, Mapped, likelihood_phases


class ZukoFlow(Flow):
    """A flow whose map from data to base is a composed transform of zuko, in both directions.

    zuko's networks take a context themselves.
    """

    default_phases: ClassVar[tuple[dict[str, Any], ...]] = likelihood_phases(4e-3)
    is_static: ClassVar[bool] = True

    def __init__(
        self,
        features: int,
        options: options.PartOptions,
        generator: torch.Generator,
        context_features: int = 0,
    ) -> None:
        super().__init__(features, options, generator, context_features)
        # zuko draws its weights from the global random state, which is left as it was.
        with torch.random.fork_rng(devices=[]):
            seed = int(torch.randint(2**62, (), generator=generator))
            torch.default_generator.manual_seed(seed)
            self.network = self._build()

    @abstractmethod
    def _build(self) -> nn.Module:
        """zuko's lazy transform, with its weights."""

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return Mapped(*self.network(context).call_and_ladj(x))

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return Mapped(*self.network(context).inv.call_and_ladj(z))


class MAFOptions(options.PartOptions):
    """`transforms` maps in a row, each of them told by a network with layers of `hidden` units."""

    name: Literal["maf"] = "maf"
    transforms: PositiveInt = 8
    hidden: tuple[PositiveInt, ...] = (128, 128)


class MaskedAutoregressiveFlow(ZukoFlow):
    """Affine autoregressive maps (Papamakarios et al. 2017), the order of the columns turned round each time.

    Drawing a row takes as many passes as there are columns.
    """

    Options: ClassVar[type[options.PartOptions]] = MAFOptions
    options: MAFOptions

    def _build(self) -> nn.Module:
        from zuko.flows import MAF

        own = self.options
        flow: nn.Module = MAF(
            self.features,
            context=self.context_features,
            transforms=own.transforms,
            hidden_features=own.hidden,
        ).transform
        return flow


class SplineOptions(options.PartOptions):
    """As those of `maf`; each column is bent by a monotone spline of `bins` pieces over [-5, 5]."""

    transforms: PositiveInt = 5
    hidden: tuple[PositiveInt, ...] = (128, 128)
    bins: int = Field(default=8, ge=2)


class NSFOptions(SplineOptions):
    """Those of splines."""

    name: Literal["nsf"] = "nsf"


class NeuralSplineFlow(ZukoFlow):
    """Autoregressive rational-quadratic splines (Durkan et al. 2019); outside [-5, 5] the identity."""

    Options: ClassVar[type[options.PartOptions]] = NSFOptions
    options: SplineOptions
    #: Passes in which a row is drawn; as many as columns where None.
    passes: ClassVar[int | None] = None

    def _build(self) -> nn.Module:
        from zuko.flows import NSF

        own = self.options
        flow: nn.Module = NSF(
            self.features,
            context=self.context_features,
            bins=own.bins,
            transforms=own.transforms,
            hidden_features=own.hidden,
            passes=self.passes,
        ).transform
        return flow


class CouplingOptions(SplineOptions):
    """Those of splines; more transforms, since each of them bends half of the columns."""

    name: Literal["coupling"] = "coupling"
    transforms: PositiveInt = 8


class CouplingFlow(NeuralSplineFlow):
    """Coupling layers (Dinh et al. 2017) of rational-quadratic splines (Durkan et al. 2019).

    One half of the columns tells how the other is bent, by turns, so that drawing is as fast as scoring.
    """

    Options: ClassVar[type[options.PartOptions]] = CouplingOptions
    passes: ClassVar[int | None] = 2
