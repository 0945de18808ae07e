"""Completion of names and paths in the shell."""

import os
from collections.abc import Iterable
from pathlib import Path

import typer

from flowbench.registry import BENCHMARKS, MODELS, SERIES_MODELS


def complete_dataset(context: typer.Context, incomplete: str) -> list[str]:
    """Names of data sets, and paths."""
    from flowbench.data import dataset_names

    return _starting(dataset_names(_home(context) / "datasets"), incomplete) + _complete_path(incomplete)


def complete_benchmark(incomplete: str) -> list[str]:
    """Names of benchmarks."""
    return _starting(BENCHMARKS.names(), incomplete)


def complete_run(context: typer.Context, incomplete: str) -> list[str]:
    """Names of runs, and paths."""
    names = sorted(path.parent.name for path in (_home(context) / "runs").glob("*/run.json"))
    return _starting(names, incomplete) + _complete_path(incomplete)


def complete_model(incomplete: str) -> list[str]:
    """Names of models."""
    return _starting([*MODELS.names(), *SERIES_MODELS.names()], incomplete)


def _complete_path(incomplete: str) -> list[str]:
    """Visible files, and folders with a separator behind them."""
    folder, _, start = incomplete.rpartition(os.sep)
    above = f"{folder}{os.sep}" if os.sep in incomplete else ""
    try:
        found = sorted(os.scandir(above or "."), key=lambda entry: entry.name)
    except OSError:  # completion has no way to report an error
        return []
    names = [entry.name + os.sep * entry.is_dir() for entry in found if not entry.name.startswith(".")]
    return [above + name for name in _starting(names, start)]


def _starting(names: Iterable[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]


def _home(context: typer.Context) -> Path:
    return Path(context.params.get("home") or "")
