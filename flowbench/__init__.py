"""flowbench: a density-modelling workbench for continuous normalizing flows.

The names below are imported when they are first used, so that `import flowbench` stays fast.
"""

from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowbench.data import load_dataset
    from flowbench.estimator import FlowDensity
    from flowbench.experiment import fit, load_model

__all__ = ["FlowDensity", "__version__", "fit", "load_dataset", "load_model"]

_HOMES = {
    "FlowDensity": "flowbench.estimator",
    "fit": "flowbench.experiment",
    "load_dataset": "flowbench.data",
    "load_model": "flowbench.experiment",
}

try:
    __version__ = version("flowbench-density")
except PackageNotFoundError:  # a checkout that was not installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module `flowbench` has no attribute `{name}`")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)
