"""flowbench: a density-modelling workbench for continuous normalizing flows.

The names below are found when they are first used, so that `import flowbench` stays fast.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flowbench.data import load_dataset
    from flowbench.estimator import FlowDensity, FlowRegressor
    from flowbench.notebook import FittedRun, compare, fit, open_run
    from flowbench.series_estimator import SeriesDensity
    from flowbench.workflows.stored_run import load_model

    __version__: str

__all__ = [
    "FittedRun",
    "FlowDensity",
    "FlowRegressor",
    "SeriesDensity",
    "__version__",
    "compare",
    "fit",
    "load_dataset",
    "load_model",
    "open_run",
]

_HOMES = {
    "FittedRun": "flowbench.notebook",
    "FlowDensity": "flowbench.estimator",
    "FlowRegressor": "flowbench.estimator",
    "SeriesDensity": "flowbench.series_estimator",
    "compare": "flowbench.notebook",
    "fit": "flowbench.notebook",
    "load_dataset": "flowbench.data",
    "load_model": "flowbench.workflows.stored_run",
    "open_run": "flowbench.notebook",
}


def __getattr__(name: str) -> Any:
    if name == "__version__":
        return _version()
    if name not in _HOMES:
        raise AttributeError(f"module `flowbench` has no attribute `{name}`")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted(__all__)


def _version() -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return version("flowbench-density")
    except PackageNotFoundError:  # a checkout that was not installed
        return "0+unknown"
