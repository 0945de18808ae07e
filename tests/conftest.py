"""Settings and fixtures that every test shares."""

import os

# One thread, here and in every process that a test starts: sums are then done in one order, so that the
# same seed gives the same bytes, and parallel test runs do not fight over cores. numpy and torch read
# this when they are first imported, which is why it stands above the imports.
os.environ["OMP_NUM_THREADS"] = "1"
os.environ["MPLBACKEND"] = "Agg"

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from sklearn.mixture import GaussianMixture

    from flowbench.models.mixture import Mixture

# No deadline: how long an example takes says more about the machine than about the code.
settings.register_profile("default", deadline=None)
settings.register_profile("ci", deadline=None, derandomize=True, print_blob=True)
settings.register_profile("thorough", deadline=None, max_examples=2000)
settings.load_profile("ci" if os.environ.get("CI") == "true" else "default")


@pytest.fixture(scope="session")
def as_sklearn() -> "Callable[[Mixture], GaussianMixture]":
    """Makes scikit-learn's object of a mixture, so that it can be the oracle."""
    import numpy as np
    from sklearn.mixture import GaussianMixture

    def convert(mixture: "Mixture") -> GaussianMixture:
        found = GaussianMixture(len(mixture.means))
        found.weights_ = mixture.log_weights.exp().numpy()
        found.means_ = mixture.means.numpy()
        found.covariances_ = ((mixture.axes * mixture.variances[:, None]) @ mixture.axes.mT).numpy()
        found.precisions_cholesky_ = np.linalg.cholesky(np.linalg.inv(found.covariances_))
        return found

    return convert


@pytest.fixture(scope="session")
def chromium() -> str:
    """The path of a Chromium for browser tests; skips the test where there is none."""
    for name in ("chromium", "chromium-browser", "google-chrome"):
        if found := shutil.which(name):
            return found
    pytest.skip("no Chromium on this machine")


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of real tables beside the checkout; skips the test where there is none."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no real data in {folder}")
    return folder


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip a test marked `gpu` where there is none."""
    if item.get_closest_marker("gpu") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device on this machine")
