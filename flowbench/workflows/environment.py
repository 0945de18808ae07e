"""The environment of a run: versions, host and source commit."""

import os
import platform
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

PACKAGES = (
    "flowbench-density",
    "torch",
    "torchdiffeq",
    "pytorch-optimizer",
    "zuko",
    "ngboost",
    "numpy",
    "scipy",
    "scikit-learn",
    "h5py",
    "safetensors",
)


def describe_versions() -> dict[str, str]:
    """Versions of Python and of the packages that results depend on."""
    versions = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = "not installed"
    return versions


def describe_host() -> dict[str, str | int]:
    """The properties of the machine on which speed depends."""
    return {
        "platform": platform.platform(),
        "machine": platform.machine(),
        "processor": processor_name(),
        "bfloat16_units": ", ".join(bfloat16_units()) or "none",
        "cpus": os.cpu_count() or 0,
        "python": sys.implementation.name,
    }


def processor_name() -> str:
    """The processor's own name."""
    return str(torch.cpu.get_capabilities().get("cpu_name") or platform.processor())


def bfloat16_units() -> list[str]:
    """The processor's units for bfloat16 products; with one, `cnf` takes more steps a second."""
    capabilities = torch.cpu.get_capabilities()
    return [name for name in ("avx512_bf16", "amx_bf16") if capabilities.get(name)]


def source_commit() -> str | None:
    """The commit of the checkout that flowbench runs from; None if it is none, or git cannot tell."""
    folder = Path(__file__).resolve().parents[2]
    if not (folder / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(folder), "rev-parse", "HEAD"],
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
