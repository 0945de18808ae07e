"""Checks of a machine: versions, devices, write access, and a short fit whose result is known."""

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch

from flowbench.errors import FlowbenchError
from flowbench.workflows.config import resolve
from flowbench.workflows.environment import describe_versions
from flowbench.workflows.fit import fit
from flowbench.workflows.home import Home
from flowbench.workflows.preparation import Watch
from flowbench.workflows.stored_run import load_model


@dataclass(frozen=True)
class Check:
    """The outcome of one check."""

    name: str
    passed: bool
    detail: str


def examine(home: Home) -> list[Check]:
    """Run every check; takes ten to twenty seconds."""
    return [
        Check(
            "versions", True, ", ".join(f"{name} {number}" for name, number in describe_versions().items())
        ),
        _check("devices", _devices),
        *(
            _check(f"write to {folder}", partial(_try_writing, folder))
            for folder in (home.runs, home.reports)
        ),
        _check("self-test", _fit_and_integrate),
    ]


def _check(name: str, attempt: Callable[[], str]) -> Check:
    try:
        return Check(name, True, attempt())
    # Drivers and libraries raise errors of any kind on a faulty machine, and the check has to report them.
    except Exception as error:
        return Check(name, False, str(error) if isinstance(error, FlowbenchError | OSError) else repr(error))


def _devices() -> str:
    names = [f"cpu ({torch.get_num_threads()} threads)"]
    return ", ".join(names + [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())])


def _try_writing(folder: Path) -> str:
    """Write into `folder`, or into the nearest folder above it that exists."""
    there = next(path for path in (folder, *folder.absolute().parents) if path.exists())
    if not there.is_dir():
        raise FlowbenchError(f"{there} is a file where a folder is needed; move it, or give another `--home`")
    with tempfile.TemporaryFile(dir=there):
        return f"{there} can be written"


def _fit_and_integrate() -> str:
    """Fit a small continuous flow; check the integral of its density, and its likelihoods after reloading."""
    settings = (
        "flow.field.width=32",
        "evaluation.grid=80",
        "evaluation.test_rows=200",
        "evaluation.samples=100",
        "evaluation.certificates=false",
        "plan.validation_steps=100",
    )
    with tempfile.TemporaryDirectory() as folder:
        config = resolve("moons", "cnf", overrides={"plan.steps": 200, "data.rows": 4000}, settings=settings)
        warnings: list[str] = []
        run = fit(config, home=Home(Path(folder)), watch=Watch(on_warning=warnings.append))
        if warnings:
            raise FlowbenchError("; ".join(warnings))
        results = run.read_results()
        rescored = (
            load_model(run)
            .for_evaluation(config.evaluation.integrator)
            .log_prob(torch.tensor(results.scored.x))
        )
    mass = results.metrics["grid_mass"].value
    moved = float(np.abs(rescored.numpy() - results.scored.log_prob).max())
    if abs(mass - 1) > 0.02 or moved > 1e-8:
        raise FlowbenchError(
            f"the density integrates to {mass:.4f} and likelihoods moved by {moved:.1e} on reloading"
        )
    return f"a fitted density integrates to {mass:.4f} and is the same after reloading"
