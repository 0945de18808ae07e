"""Training goes on after a kill with the same bytes, keeps the best epoch, and follows its schedule."""

from pathlib import Path

import numpy as np
import pytest
import torch

from flowbench.errors import DamagedFileError
from flowbench.studies import digit_training
from flowbench.studies.digit_networks import NetworkName, build_network
from flowbench.studies.digit_training import (
    CPU_SECONDS,
    LOSS,
    VALIDATION_ERROR,
    Images,
    Recipe,
    _shifted,
    mistakes,
    train,
)
from flowbench.studies.study import Floats


def images(count: int, seed: int) -> Images:
    """Noise whose mean brightness tells the class."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(10, (count,), generator=generator)
    noise = torch.rand(count, 1, 8, 8, generator=generator)
    return Images((noise + labels[:, None, None, None] / 5) / 3, labels)


class KilledError(Exception):
    pass


@pytest.mark.parametrize("name", ["MLP", "ODE-Net"])
def test_after_a_kill_training_gives_the_same_bytes(
    name: NetworkName, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digit_training, "SAVE_EVERY", 2)
    recipe, parts = Recipe(epochs=2, batch=4, shift=1), (images(14, 0), images(6, 1))

    def run(scrap: Path | None, kill_at: int) -> tuple[dict[str, torch.Tensor], Floats]:
        network = build_network(name, 8, torch.Generator().manual_seed(0))
        told = 0

        def tell(text: str) -> None:
            nonlocal told
            told += 1
            if told == kill_at:
                raise KilledError

        curve = train(network, parts, recipe, 0, tell, scrap)
        return network.state_dict(), curve

    whole, curve = run(None, 0)
    scrap = tmp_path / "scrap.safetensors"
    # Three steps an epoch: killed before the first save, between two saves, and right after one.
    for kill_at in (1, 3, 2):
        with pytest.raises(KilledError):
            run(scrap, kill_at)
    resumed, curve_again = run(scrap, 0)
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[key], resumed[key]) for key in whole)
    times = np.arange(curve.shape[1]) == CPU_SECONDS
    np.testing.assert_array_equal(curve[:, ~times], curve_again[:, ~times])
    assert (np.diff(curve_again[:, CPU_SECONDS]) > 0).all()
    with pytest.raises(DamagedFileError, match=r"scrap\.safetensors is of training with other settings"):
        train(build_network(name, 8, torch.Generator()), parts, Recipe(epochs=3), 0, lambda text: None, scrap)


def test_the_weights_are_those_of_the_best_epoch() -> None:
    network = build_network("MLP", 8, torch.Generator().manual_seed(0))
    validation = images(40, 1)
    # A rate that is far too high at first, so that the errors go up and down.
    recipe = Recipe(epochs=8, batch=8, rate=2.0, milestones=(20,))
    curve = train(network, (images(80, 0), validation), recipe, 0, lambda text: None)
    errors = curve[:, VALIDATION_ERROR]
    assert errors[-1] > errors.min() == mistakes(network, validation).mean()


def test_training_lowers_loss_and_error() -> None:
    network = build_network("MLP", 8, torch.Generator().manual_seed(0))
    before = mistakes(network, images(200, 1)).mean()
    curve = train(
        network, (images(600, 0), images(200, 1)), Recipe(epochs=10, batch=20), 0, lambda text: None
    )
    assert curve[-1, LOSS] < 0.7 * curve[0, LOSS] and mistakes(network, images(200, 1)).mean() < 0.6 * before


def test_images_are_moved_by_at_most_the_shift() -> None:
    x = torch.rand(50, 1, 6, 7, generator=torch.Generator().manual_seed(0))
    moved = _shifted(x, 2, np.random.default_rng(0)).numpy()
    found = set()
    for image, after in zip(x.numpy()[:, 0], moved[:, 0], strict=True):
        padded = np.pad(image, 2)
        places = [(i, j) for i in range(5) for j in range(5) if (padded[i : i + 6, j : j + 7] == after).all()]
        assert len(places) == 1
        found |= set(places)
    assert len(found) > 15
    assert _shifted(x, 0, np.random.default_rng(0)) is x


def test_the_learning_rate_follows_its_schedule() -> None:
    steps = Recipe(epochs=160, rate=0.1, milestones=(60, 100, 140))
    rates = [steps.learning_rate(epoch * 7 + 3, 7) for epoch in (0, 59, 60, 99, 100, 139, 140, 159)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 1e-3, 1e-3, 1e-4, 1e-4])
    wave = np.array([Recipe(epochs=10, rate=0.1).learning_rate(step, 20) for step in range(200)])
    assert wave.argmax() in (39, 40) and wave.max() == pytest.approx(0.1, rel=1e-3)
    assert wave[0] < 0.004 and wave[-1] < 1e-4
    assert (np.diff(wave[:40]) > 0).all() and (np.diff(wave[41:]) < 0).all()
