"""The study of ODE networks runs to its page, and its verdict follows the figures."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pytest

from flowbench.cli.app import run_app
from flowbench.data.mnist import FILES, Mnist
from flowbench.errors import ConfigurationError
from flowbench.store.study_folder import StudyFolder
from flowbench.studies import odenet
from flowbench.studies.digit_networks import NETWORKS
from flowbench.studies.digit_training import Recipe
from flowbench.studies.odenet import OdeNet
from flowbench.studies.reproduction import reproduce
from flowbench.studies.study import Measurement, Trial, Workspace
from flowbench.workflows.home import Home

PARAMETERS = {"MLP": 238_510, "ResNet": 576_778, "RK-Net": 208_266, "ODE-Net": 208_266}


def test_the_quick_study_runs_to_its_page_and_goes_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(odenet, "DIGITS", (150, 50, 50))
    monkeypatch.setitem(odenet.RECIPES, "quick", (Recipe(2, batch=50), Recipe(40, batch=10)))
    monkeypatch.setattr(odenet, "TIMED", 1)
    monkeypatch.setattr(odenet, "TIMED_IMAGES", 16)
    found = reproduce("odenet", "quick", home=Home(tmp_path))
    assert found.findings is not None and found.page is not None
    assert found.findings.verdict == "not comparable" and "scikit-learn's digits" in found.findings.reason
    errors, costs = found.findings.tables
    assert [row[0] for row in errors.rows] == [row[0] for row in costs.rows] == list(NETWORKS)
    mlp = errors.rows[0]
    assert float(mlp[3].split()[0]) < 40 and mlp[7].endswith("of 40")
    by_network = {row[0]: dict(zip(costs.header, row, strict=True)) for row in costs.rows}
    # Each step of the classical method has four evaluations, and backpropagation makes no others.
    assert by_network["RK-Net"]["nfe forward"] == "8.0" and by_network["RK-Net"]["nfe backward"] == ""
    assert min(float(by_network["ODE-Net"][f"nfe {way}"]) for way in ("forward", "backward")) >= 8
    saved = {name: float(row["saved for gradients, MB"]) for name, row in by_network.items()}
    assert saved["MLP"] < saved["ODE-Net"] < saved["ResNet"] < saved["RK-Net"]
    assert [chart.xlabel for chart in found.findings.charts] == [
        "thousands of parameters",
        "CPU ms of a step",
        "epoch",
        "CPU seconds",
    ]
    folder = StudyFolder(found.folder)
    assert not folder.scraps.exists()
    # The same trial gives the same mistakes.
    before = folder.read_trial("ResNet")
    (folder.path / "trials" / "ResNet.safetensors").unlink()
    reproduce("odenet", "quick", home=Home(tmp_path))
    np.testing.assert_array_equal(folder.read_trial("ResNet")[1]["wrong"], before[1]["wrong"])


def test_the_last_train_images_of_mnist_choose_the_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    images = rng.integers(256, size=(5100, 28, 28), dtype=np.uint8)
    labels = rng.integers(10, size=5100, dtype=np.uint8)
    made = Mnist(images[:5050], labels[:5050], images[5050:], labels[5050:])
    monkeypatch.setattr(odenet, "read_mnist", lambda folder: made)
    parts = OdeNet(Workspace(data=Path()))._images("default")
    for part, ends in zip(parts, ((0, 50), (50, 5050), (5050, 5100)), strict=True):
        expected = images[slice(*ends), None].astype(np.float32) / 255
        np.testing.assert_allclose(part.values.numpy(), expected, rtol=1e-6)
        np.testing.assert_array_equal(part.labels.numpy(), labels[slice(*ends)])


def test_the_quick_parts_do_not_overlap() -> None:
    parts = OdeNet()._images("quick")
    assert [len(part.labels) for part in parts] == [1000, 300, 497]
    assert all(part.values.shape[1:] == (1, 8, 8) and part.values.max() == 1 for part in parts)
    seen = [{(image.tobytes()) for image in part.values.numpy()} for part in parts]
    assert not (seen[0] & seen[1] or seen[0] & seen[2] or seen[1] & seen[2])


def measured(mistakes: Mapping[str, int]) -> list[tuple[Trial, Measurement]]:
    """Each network gets the first of 10,000 images wrong, as many as are given."""
    return [
        (
            Trial(name, {"network": name}),
            Measurement(
                {
                    "parameters": float(PARAMETERS[name]),
                    "step_seconds": 3.0 if name == "ODE-Net" else 1.0,
                    "image_seconds": 1e-3,
                    "saved_bytes": 1e6,
                },
                {
                    "wrong": (np.arange(10_000) < mistakes[name]).astype(float),
                    "curve": np.array([[1, 10, 0.2, 0.02, 20, 21], [2, 20, 0.1, 0.01, 20, 21]]),
                },
            ),
        )
        for name in NETWORKS
    ]


@pytest.mark.parametrize(
    ("resnet", "ode_net", "verdict", "fault"),
    [
        (80, 90, "reproduced", ""),
        (80, 70, "reproduced", ""),
        (80, 115, "not reproduced", "ODE-Net is more than 0.3 points above."),
        (80, 105, "not reproduced", "ODE-Net may be more than 0.3 points above: its interval reaches"),
        (140, 150, "not reproduced", "ODE-Net is not below 1.5%."),
        (160, 90, "not reproduced", "ResNet is not below 1.5%."),
    ],
)
def test_the_verdict_follows_the_figures(resnet: int, ode_net: int, verdict: str, fault: str) -> None:
    figures = measured({"MLP": 200, "ResNet": resnet, "RK-Net": 70, "ODE-Net": ode_net})
    found = OdeNet().conclude(figures, "default")
    assert found.verdict == verdict and fault in found.reason
    assert "0.36 of its parameters and 3.0 times its CPU time of a step" in found.reason
    quick = OdeNet().conclude(figures, "quick")
    assert quick.verdict == "not comparable" and (not fault or fault not in quick.reason)


def test_the_tables_hold_the_figures() -> None:
    found = OdeNet().conclude(measured({"MLP": 200, "ResNet": 80, "RK-Net": 70, "ODE-Net": 90}), "default")
    rows = {row[0]: row for row in found.tables[0].rows}
    share, z = 0.009, 1.959964
    # Wilson's interval, as it is usually written.
    centre = (share + z**2 / 2e4) / (1 + z**2 / 1e4)
    reach = z / (1 + z**2 / 1e4) * np.sqrt(share * (1 - share) / 1e4 + z**2 / 4e8)
    assert rows["ODE-Net"][3] == f"0.90 [{100 * (centre - reach):.2f}, {100 * (centre + reach):.2f}]"
    # Ten more mistakes, on images that the other gets right.
    error = 100 * np.sqrt(1e-3 * (1 - 1e-3) / 9999)
    assert rows["ODE-Net"][4] == f"+0.10 [{0.1 - 1.9602 * error:+.2f}, {0.1 + 1.9602 * error:+.2f}]"
    assert rows["ODE-Net"][1:3] == ("208,266", "0.36") and rows["ODE-Net"][7] == "2 of 2"
    chart = found.charts[0]
    assert [series.label for series in chart.series] == list(NETWORKS)
    assert [series.x.tolist() for series in chart.series] == [
        [pytest.approx(PARAMETERS[name] / 1000)] for name in NETWORKS
    ]


def test_mnist_is_asked_for_where_it_is_needed(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    home = ["--home", str(tmp_path)]
    assert run_app(["reproduce", "odenet", *home]) == 3
    said = capfd.readouterr().err
    assert str(tmp_path / "datasets" / "mnist") in said and all(name in said for name in FILES)
    other = tmp_path / "other"
    other.mkdir()
    assert run_app(["reproduce", "odenet", *home, "--data", str(other)]) == 3
    assert f"{other} lacks" in capfd.readouterr().err
    assert run_app(["reproduce", "odenet", "--quick", *home, "--data", str(other)]) == 2
    assert "leave out `--data`" in capfd.readouterr().err
    with pytest.raises(ConfigurationError, match="`density-matching` reads no files"):
        reproduce("density-matching", home=Home(tmp_path), data=other)
