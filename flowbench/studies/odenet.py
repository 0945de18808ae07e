"""Networks with an ODE against a residual network, on MNIST (Chen et al. 2018, table 1)."""

import os
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn
from torch.nn.functional import cross_entropy

from flowbench.data.mnist import read_mnist
from flowbench.errors import DataError
from flowbench.statistics.paired import CONFIDENCE, PairedDifference, compare_paired
from flowbench.store.findings import Chart, Findings, Series, Verdict
from flowbench.store.text_table import TextTable
from flowbench.studies.digit_networks import (
    NETWORKS,
    RUNGE_KUTTA_STEPS,
    TOLERANCE,
    NetworkName,
    build_network,
)
from flowbench.studies.digit_training import (
    CPU_SECONDS,
    EPOCH,
    NFE_BACKWARD,
    NFE_FORWARD,
    VALIDATION_ERROR,
    Images,
    Recipe,
    mistakes,
    train,
)
from flowbench.studies.step_cost import cpu_seconds, peak_saved_bytes
from flowbench.studies.study import Budget, Claim, Floats, Measurement, Study, Tell, Trial, compared
from flowbench.workflows.machine import cpu_threads

#: Test error in percent, and millions of parameters, that the paper gives.
PUBLISHED: dict[NetworkName, tuple[float, float]] = {
    "MLP": (1.60, 0.24),
    "ResNet": (0.41, 0.60),
    "RK-Net": (0.47, 0.22),
    "ODE-Net": (0.42, 0.22),
}
#: The networks with an ODE, and the one that they are compared with.
CONTINUOUS: tuple[NetworkName, ...] = ("RK-Net", "ODE-Net")
BASELINE: NetworkName = "ResNet"
#: What is asked: points of test error above the ResNet, and test error, in percent.
MOST_ABOVE, MOST_WRONG = 0.3, 1.5
#: How many of MNIST's 60,000 train images choose the epoch. How many of scikit-learn's 1,797 images train,
#: choose the epoch, and measure the error.
MNIST_VALIDATION, DIGITS = 5000, (1000, 300, 497)
#: Steps, batches and images that are timed at the end.
TIMED, TIMED_IMAGES = 5, 128
SEED = 0
Found = Mapping[NetworkName, Measurement]
Above = Mapping[NetworkName, PairedDifference | None]
QUICK = Recipe(epochs=4, batch=20)
#: Of each budget on MNIST: the recipe of the networks with convolutions, and that of the MLP.
RECIPES: dict[Budget, tuple[Recipe, Recipe]] = {
    "quick": (QUICK, QUICK),
    "default": (Recipe(epochs=3, shift=2), Recipe(epochs=15, shift=2)),
    "full": (Recipe(epochs=160, milestones=(60, 100, 140), shift=4),) * 2,
}


class OdeNet(Study):
    """Trains the paper's four networks, and sets their errors beside what they cost."""

    claim: ClassVar[Claim] = Claim(
        "odenet",
        "An ODE in place of residual blocks reaches their test error with a third of the parameters",
        "On MNIST, RK-Net and ODE-Net reach a test error of 0.47% and 0.42% with 0.22 million parameters, a "
        "residual network 0.41% with 0.60 million. Asked for here: at most 0.3 points above the residual "
        "network at 0.36 of its parameters, and less than 1.5% each.",
        "Chen et al. 2018, section 3 and table 1",
    )

    @classmethod
    def reads(cls, budget: Budget) -> str | None:
        """MNIST, but for the quick budget."""
        return None if budget == "quick" else "mnist"

    def trials(self, budget: Budget) -> Sequence[Trial]:
        """One for each network."""
        return [Trial(name, {"network": name}) for name in NETWORKS]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """Train one network, choose the epoch on validation images, and find its mistakes on test images."""
        name: NetworkName = trial.values["network"]
        known, validation, test = self._images(budget)
        network = build_network(name, known.values.shape[-1], torch.Generator().manual_seed(SEED))
        recipe = RECIPES[budget][name == "MLP"]
        scraps = self.workspace.scraps
        scrap = scraps / f"{trial.name}.safetensors" if scraps else None
        with cpu_threads(1 if budget == "quick" else min(2, os.cpu_count() or 1)):
            curve = train(network, (known, validation), recipe, SEED, tell, scrap)
            tell("testing")
            wrong = mistakes(network, test)
        return Measurement(
            {"parameters": float(sum(each.numel() for each in network.parameters()))} | _cost(network, test),
            {"curve": curve, "wrong": wrong},
        )

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """Reproduced, if both networks with an ODE are as near to the residual network as is asked."""
        found = {trial.values["network"]: measurement for trial, measurement in measured}
        above = {
            name: compare_paired(
                100 * found[name].arrays["wrong"], 100 * found[BASELINE].arrays["wrong"], resample=False
            )
            for name in CONTINUOUS
        }
        faults = [
            f"{name} is not below {MOST_WRONG}%."
            for name in (BASELINE, *CONTINUOUS)
            if _error(found[name]) >= MOST_WRONG
        ]
        faults += [fault for name in CONTINUOUS if (fault := _distance(name, above[name]))]
        reason = _headline(found, above)
        verdict: Verdict = "not reproduced" if faults else "reproduced"
        if budget == "quick":
            verdict, faults = "not comparable", []
            reason = f"The paper is about MNIST, and this is scikit-learn's digits. {reason}"
        return Findings(
            verdict,
            " ".join([reason, *faults]),
            (_error_table(found, above, budget), _cost_table(found)),
            tuple(_charts(found)),
        )

    def _images(self, budget: Budget) -> tuple[Images, Images, Images]:
        """Images that train, that choose the epoch, and that measure the error."""
        if budget == "quick":
            from sklearn.datasets import load_digits

            values, labels = load_digits(return_X_y=True)
            order = np.random.default_rng(SEED).permutation(len(labels))
            shuffled = values.reshape(-1, 8, 8)[order] / 16, labels[order]
            one, two, three, _ = zip(*(np.split(each, np.cumsum(DIGITS)) for each in shuffled), strict=True)
            return _as_images(*one), _as_images(*two), _as_images(*three)
        if self.workspace.data is None:
            raise DataError("the study is not told where MNIST lies; give its workspace the folder")
        mnist = read_mnist(self.workspace.data)
        known = mnist.train_images / np.float32(255), mnist.train_labels
        one, two = zip(*(np.split(each, [len(each) - MNIST_VALIDATION]) for each in known), strict=True)
        return (
            _as_images(*one),
            _as_images(*two),
            _as_images(mnist.test_images / np.float32(255), mnist.test_labels),
        )


def _as_images(values: NDArray[Any], labels: NDArray[Any]) -> Images:
    return Images(
        torch.from_numpy(values.astype(np.float32))[:, None], torch.from_numpy(labels.astype(np.int64))
    )


def _cost(network: nn.Module, test: Images) -> dict[str, float]:
    """CPU seconds and saved bytes of one step, and CPU seconds of one classification, on one thread."""
    x, labels = test.values[:TIMED_IMAGES], test.labels[:TIMED_IMAGES]

    def step() -> None:
        network.zero_grad()
        cross_entropy(network(x), labels).backward()  # type: ignore[no-untyped-call]

    with cpu_threads(1):
        step_seconds = cpu_seconds(step, TIMED)
        with torch.no_grad():
            seconds = cpu_seconds(lambda: network(x), TIMED)
        saved = peak_saved_bytes(step, besides=(x, labels, *network.parameters()))
    return {"step_seconds": step_seconds, "image_seconds": seconds / len(x), "saved_bytes": float(saved)}


def _error(measurement: Measurement) -> float:
    return 100 * float(measurement.arrays["wrong"].mean())


def _interval(wrong: Floats) -> tuple[float, float]:
    """The interval of a share of mistakes, in percent (Wilson 1927)."""
    from scipy.stats import binomtest

    found = binomtest(int(wrong.sum()), len(wrong)).proportion_ci(CONFIDENCE, method="wilson")
    return 100 * float(found.low), 100 * float(found.high)


def _headline(found: Found, above: Above) -> str:
    base = found[BASELINE]
    told = [f"Test error of the {BASELINE}: {_error(base):.2f}%."]
    for name in CONTINUOUS:
        share = found[name].figures["parameters"] / base.figures["parameters"]
        time = found[name].figures["step_seconds"] / base.figures["step_seconds"]
        told.append(
            f"{name}: {_error(found[name]):.2f}%, above it by {compared(above[name], 2)} points, with "
            f"{share:.2f} of its parameters and {time:.1f} times its CPU time of a step."
        )
    return " ".join(told)


def _distance(name: NetworkName, above: PairedDifference | None) -> str:
    """What is wrong with a network's distance from the residual network; empty if nothing is."""
    if above is None or above.mean > MOST_ABOVE:
        return f"{name} is more than {MOST_ABOVE} points above."
    if above.high > MOST_ABOVE:
        return f"{name} may be more than {MOST_ABOVE} points above: its interval reaches further."
    return ""


def _error_table(found: Found, above: Above, budget: Budget) -> TextTable:
    rows = []
    for name in NETWORKS:
        one = found[name]
        low, high = _interval(one.arrays["wrong"])
        error, millions = PUBLISHED[name]
        rows.append(
            (
                name,
                f"{one.figures['parameters']:,.0f}",
                f"{one.figures['parameters'] / found[BASELINE].figures['parameters']:.2f}",
                f"{_error(one):.2f} [{low:.2f}, {high:.2f}]",
                compared(above[name], 2) if name in above else "",
                f"{error:.2f}",
                f"{millions:.2f} million",
                f"{_best_epoch(one):.0f} of {len(one.arrays['curve'])}",
            )
        )
    images = len(found[BASELINE].arrays["wrong"])
    return TextTable(
        "Test error and parameters",
        (
            "network",
            "parameters",
            f"of {BASELINE}'s",
            "test error, % [95%]",
            f"above {BASELINE}, points [95%]",
            "published on MNIST, %",
            "published parameters",
            "epoch chosen",
        ),
        tuple(rows),
        (False, *[True] * 7),
        (
            f"One seed, {images:,} test images. The interval of an error is Wilson's. That of a difference "
            "is Student's t over the images, paired. Neither holds the spread over seeds.",
            "The epoch is the one with the lowest error on validation images, which were kept from training. "
            "The authors' code reports the epoch that is best on the test images.",
            "The MLP's published error is LeCun et al.'s (1998), whose network saw images with the slant "
            "removed. Here it sees the same images as the others.",
            *_recipe_notes(budget),
        ),
    )


def _recipe_notes(budget: Budget) -> list[str]:
    others, mlp = RECIPES[budget]
    rate = (
        "falls to a tenth at epochs " + ", ".join(map(str, others.milestones))
        if others.milestones
        else "rises for a fifth of the steps and falls to zero along a cosine"
    )
    told = (
        f"Stochastic gradient descent with momentum 0.9 in batches of {others.batch}, {others.epochs} epochs"
    )
    told += f" ({mlp.epochs} for the MLP)" if mlp != others else ""
    told += f". The learning rate of {others.rate:g} {rate}."
    told += f" Images are moved by up to {others.shift} pixels at random." if others.shift else ""
    notes = [told]
    if budget == "quick":
        notes.append(
            "The images have 8 x 8 pixels, so the two convolutions that halve an image are left out."
        )
    if budget == "default":
        notes.append("The published errors are those of 160 epochs, as `--full` trains.")
    return notes


def _cost_table(found: Found) -> TextTable:
    rows = []
    for name in NETWORKS:
        figures, curve = found[name].figures, found[name].arrays["curve"]
        rows.append(
            (
                name,
                f"{figures['parameters']:,.0f}",
                f"{1e3 * figures['step_seconds']:,.1f}",
                f"{figures['step_seconds'] / found[BASELINE].figures['step_seconds']:.2f}",
                f"{1e3 * figures['image_seconds']:.3f}",
                f"{figures['saved_bytes'] / 1e6:,.2f}",
                *(f"{each:.1f}" if each else "" for each in curve[-1, [NFE_FORWARD, NFE_BACKWARD]]),
                f"{curve[-1, CPU_SECONDS]:,.0f}",
            )
        )
    return TextTable(
        "What the parameters do not count",
        (
            "network",
            "parameters",
            "a step, CPU ms",
            f"of {BASELINE}'s",
            "an image, CPU ms",
            "saved for gradients, MB",
            "nfe forward",
            "nfe backward",
            "training, CPU s",
        ),
        tuple(rows),
        (False, *[True] * 8),
        (
            "Fewer parameters are a count, not efficiency: the ODE uses its parameters once for each "
            "evaluation.",
            f"A step is forward and backward on {TIMED_IMAGES} images, an image is classified among as many; "
            f"medians of {TIMED} on one thread. Saved are the tensors that autograd keeps at once, without "
            "parameters. Nfe are the means a step in the last epoch. Training is without validation.",
            f"The ODE-Net solves by dopri5 at {TOLERANCE:g} with torchdiffeq's adjoint, whose step control "
            "leaves out the parameters' gradients. One step size holds for the whole batch.",
            f"The RK-Net backpropagates through {RUNGE_KUTTA_STEPS} equal steps of the classical Runge-Kutta "
            "method, which makes its evaluations once. The paper does not say how many steps it takes.",
        ),
    )


def _charts(found: Found) -> list[Chart]:
    charts = []
    for figure, scale, title, label in (
        ("parameters", 1e-3, "Test error against size", "thousands of parameters"),
        ("step_seconds", 1e3, "Test error against time", "CPU ms of a step"),
    ):
        points = []
        for name in NETWORKS:
            at = np.array([scale * found[name].figures[figure]])
            low, high = (np.array([end]) for end in _interval(found[name].arrays["wrong"]))
            points.append(Series(name, at, np.array([_error(found[name])]), low, high))
        logarithmic = ("x",) if figure == "step_seconds" else ()
        charts.append(Chart(title, label, "test error, %", tuple(points), logarithmic))
    for column, label in ((EPOCH, "epoch"), (CPU_SECONDS, "CPU seconds")):
        curves = []
        for name in NETWORKS:
            curve = found[name].arrays["curve"]
            curves.append(Series(name, curve[:, column], 100 * curve[:, VALIDATION_ERROR]))
        charts.append(
            Chart(
                f"Validation error against {label}", label, "validation error, %", tuple(curves), ("x", "y")
            )
        )
    return charts


def _best_epoch(measurement: Measurement) -> float:
    curve = measurement.arrays["curve"]
    return float(curve[np.argmin(curve[:, VALIDATION_ERROR]), EPOCH])
