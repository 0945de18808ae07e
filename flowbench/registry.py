"""Registries of the interchangeable parts: name -> "module:Attribute".

Entries are strings, so listing names imports nothing, and lower layers import nothing above them. To add a
part, write one file and add one line here; the contract tests run over every entry.
"""

from dataclasses import dataclass
from importlib import import_module
from typing import Any

from flowbench.errors import UnknownNameError, unknown_name


@dataclass(frozen=True)
class Registry:
    """A registry of parts of one kind.

    `kind` is the word for them in error messages ("flow", "dataset"). `entries` maps each name to
    "module:Attribute".
    """

    kind: str
    entries: dict[str, str]

    def names(self) -> tuple[str, ...]:
        """All names, in the order of the registry."""
        return tuple(self.entries)

    def get(self, name: str) -> Any:
        """Import and return the part called `name`; raises `UnknownNameError` if there is none."""
        if name not in self.entries:
            raise UnknownNameError(unknown_name(self.kind, name, self.entries))
        module, _, attribute = self.entries[name].partition(":")
        return getattr(import_module(module), attribute)


TOYS = Registry(
    "toy density",
    {
        "8gaussians": "flowbench.data.toys:EightGaussians",
        "pinwheel": "flowbench.data.toys:Pinwheel",
        "rings": "flowbench.data.toys:Rings",
        "circles": "flowbench.data.toys:Circles",
        "moons": "flowbench.data.toys:Moons",
        "swissroll": "flowbench.data.toys:SwissRoll",
        "2spirals": "flowbench.data.toys:TwoSpirals",
        "checkerboard": "flowbench.data.toys:Checkerboard",
    },
)

BENCHMARKS = Registry(
    "benchmark",
    {
        "power": "flowbench.data.benchmarks:POWER",
        "gas": "flowbench.data.benchmarks:GAS",
        "hepmass": "flowbench.data.benchmarks:HEPMASS",
        "miniboone": "flowbench.data.benchmarks:MINIBOONE",
        "bsds300": "flowbench.data.benchmarks:BSDS300",
    },
)

SERIES_TOYS = Registry(
    "toy series",
    {
        "spirals": "flowbench.data.series_toys:Spirals",
        "oscillators": "flowbench.data.series_toys:Oscillators",
        "gaussian-process": "flowbench.data.series_toys:GaussianProcessToy",
        "hopper": "flowbench.data.hopper:Hopper",
    },
)

TRANSFORMS = Registry(
    "transform",
    {
        "standardise": "flowbench.encoding.standardise:Standardise",
        "gaussianise": "flowbench.encoding.gaussianise:Gaussianise",
    },
)

INTEGRATORS = Registry(
    "integrator engine",
    {
        "torchdiffeq": "flowbench.ode.torchdiffeq_engine:TorchdiffeqIntegrator",
        "per-row": "flowbench.ode.per_row_engine:PerRowIntegrator",
        "native": "flowbench.ode.native_engine:NativeIntegrator",
    },
)

DIVERGENCES = Registry(
    "divergence estimator",
    {
        "auto": "flowbench.ode.divergence:AutoDivergence",
        "exact": "flowbench.ode.divergence:ExactDivergence",
        "hutchinson": "flowbench.ode.divergence:Hutchinson",
        "hutch++": "flowbench.ode.divergence:HutchPlusPlus",
    },
)

FIELDS = Registry(
    "velocity field",
    {
        "time-mlp": "flowbench.models.continuous.fields.time_mlp:TimeMLP",
        "concatsquash": "flowbench.models.continuous.fields.concatsquash:ConcatSquash",
        "potential": "flowbench.models.continuous.fields.potential:Potential",
        "hypernetwork": "flowbench.models.continuous.fields.hypernetwork:Hypernetwork",
    },
)

MODELS = Registry(
    "model",
    {
        "cnf": "flowbench.models.continuous.flow:ContinuousFlow",
        "planar": "flowbench.models.discrete.planar:PlanarFlow",
        "radial": "flowbench.models.discrete.radial:RadialFlow",
        "sylvester": "flowbench.models.discrete.sylvester:SylvesterFlow",
        "maf": "flowbench.models.discrete.zuko_flows:MaskedAutoregressiveFlow",
        "nsf": "flowbench.models.discrete.zuko_flows:NeuralSplineFlow",
        "coupling": "flowbench.models.discrete.zuko_flows:CouplingFlow",
        "made": "flowbench.models.discrete.masked_mixture:MaskedMixture",
        "gaussian": "flowbench.models.classical.gaussian:GaussianFlow",
        "mixture": "flowbench.models.classical.gaussian_mixture:MixtureDensity",
        "ngboost": "flowbench.models.classical.boosted_trees:BoostedTrees",
        "kde": "flowbench.models.classical.kernel:KernelDensity",
    },
)

SERIES_MODELS = Registry(
    "model of series",
    {
        "latent-ode": "flowbench.models.series.latent_ode:LatentOde",
        "rnn": "flowbench.models.series.recurrent:Rnn",
        "rnn-dt": "flowbench.models.series.recurrent:RnnWithGaps",
        "gru-decay": "flowbench.models.series.recurrent:GruDecay",
        "ode-rnn": "flowbench.models.series.recurrent:OdeRnn",
        "gp": "flowbench.models.series.gaussian_process:GaussianProcess",
    },
)

OBJECTIVES = Registry(
    "objective",
    {
        "likelihood": "flowbench.objectives.likelihood:Likelihood",
        "regularised-likelihood": "flowbench.objectives.regularised_likelihood:RegularisedLikelihood",
        "ot-flow": "flowbench.objectives.ot_flow:OTFlow",
        "flow-matching": "flowbench.objectives.flow_matching:FlowMatching",
        "reverse-kl": "flowbench.objectives.reverse_kl:ReverseKL",
        "evidence-bound": "flowbench.objectives.evidence_bound:EvidenceBound",
        "series-likelihood": "flowbench.objectives.series_likelihood:SeriesLikelihood",
    },
)

STUDIES = Registry(
    "claim",
    {
        "density-matching": "flowbench.studies.density_matching:DensityMatching",
        "maximum-likelihood": "flowbench.studies.maximum_likelihood:MaximumLikelihood",
        "odenet": "flowbench.studies.odenet:OdeNet",
        "memory": "flowbench.studies.constant_memory:ConstantMemory",
        "adaptive-depth": "flowbench.studies.adaptive_depth:AdaptiveDepth",
        "ffjord-toys": "flowbench.studies.ffjord_toys:FfjordToys",
        "spirals": "flowbench.studies.spirals:SpiralsStudy",
        "hopper": "flowbench.studies.hopper:HopperStudy",
    },
)
