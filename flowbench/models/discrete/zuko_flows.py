"""Autoregressive and coupling flows of the library zuko, as subclasses of `Flow`."""

from abc import abstractmethod
from typing import Any, ClassVar, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from flowbench import options
from flowbench.models.density import Flow, Mapped
from flowbench.models.seeded_layers import global_seed
from flowbench.models.training_defaults import likelihood_phases


class ZukoFlow(Flow):
    """A flow whose map from data to base is a composed transform of zuko, and its inverse.

    zuko's own networks take the context.
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
        with global_seed(generator):
            self.network = self._build()

    @abstractmethod
    def _build(self) -> nn.Module:
        """zuko's lazy transform, with its weights."""

    def _to_base(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return Mapped(*self.network(context).call_and_ladj(x))

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        return Mapped(*self.network(context).inv.call_and_ladj(z))


class MAFOptions(options.PartOptions):
    """`transforms` is the number of maps; the network of each has layers of `hidden` units."""

    name: Literal["maf"] = "maf"
    transforms: PositiveInt = 8
    hidden: tuple[PositiveInt, ...] = (128, 128)


class MaskedAutoregressiveFlow(ZukoFlow):
    """Affine autoregressive maps (Papamakarios et al. 2017), with the column order reversed between maps.

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
    """The options of `maf`, and the number of `bins` of each column's monotone spline over [-5, 5]."""

    transforms: PositiveInt = 5
    hidden: tuple[PositiveInt, ...] = (128, 128)
    bins: int = Field(default=8, ge=2)


class NSFOptions(SplineOptions):
    """The options of autoregressive splines."""

    name: Literal["nsf"] = "nsf"


class NeuralSplineFlow(ZukoFlow):
    """Autoregressive rational-quadratic splines (Durkan et al. 2019); the identity outside [-5, 5]."""

    Options: ClassVar[type[options.PartOptions]] = NSFOptions
    options: SplineOptions
    #: Passes that drawing a row takes; None is one for each column.
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
    """The options of splines, with more transforms, since each of them changes half of the columns."""

    name: Literal["coupling"] = "coupling"
    transforms: PositiveInt = 8


class CouplingFlow(NeuralSplineFlow):
    """Coupling layers (Dinh et al. 2017) of rational-quadratic splines (Durkan et al. 2019).

    Each layer transforms one half of the columns with parameters from the other half, in turn. So drawing is
    as fast as scoring.
    """

    Options: ClassVar[type[options.PartOptions]] = CouplingOptions
    passes: ClassVar[int | None] = 2
