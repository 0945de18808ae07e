"""Error, evaluations and time of trained ODE models over a ladder of tolerances (Chen et al. 2018)."""

from collections.abc import Sequence
from itertools import product
from typing import ClassVar

import numpy as np

from flowbench.statistics.lines import fit_line
from flowbench.statistics.paired import PairedDifference, compare_paired
from flowbench.store.findings import Chart, Findings, Series
from flowbench.store.text_table import TextTable
from flowbench.studies.ode_models import HELD_OUT, SUBJECTS, TRAINING_TOLERANCE, UNITS, Subject
from flowbench.studies.study import Budget, Claim, Floats, Measurement, Study, Tell, Trial, compared

LADDER = tuple(10.0**-power for power in range(1, 8))
#: The tolerance of the solve that the others are compared with, and the one of the counts through training.
REFERENCE, COUNTED = 1e-10, 1e-5
#: Counts through training, and repeats of a solve that is timed.
COUNTS, TIMINGS = 20, 3
#: For each budget: steps of training, and seeds.
EXTENT: dict[Budget, tuple[int, int]] = {"quick": (40, 2), "default": (400, 4), "full": (10_000, 5)}
#: A time is in proportion to nfe if its power of nfe is this close to one.
NEARLY = 0.1
#: "Roughly half" of the evaluations.
HALF = (0.4, 0.6)
#: What the columns of a measured ladder hold; `off` is the numerical error, `score` an error rate or the NLL.
COLUMNS = ("tolerance", "forward", "backward", "forward_s", "backward_s", "off", "score")


class AdaptiveDepth(Study):
    """Trains a classifier and a flow at a tight tolerance, and solves them at looser and tighter ones."""

    claim: ClassVar[Claim] = Claim(
        "adaptive-depth",
        "A tolerance trades the error of a trained ODE network for its time",
        "The error of a trained ODE network falls with the tolerance (a). Its time is proportional to the "
        "number of function evaluations, nfe (b). The backward solve takes about half of the evaluations of "
        "the forward one (c). And nfe grows through training (d).",
        "Chen et al. 2018, section 3 and figure 3 (points and curves, without numbers)",
    )

    def trials(self, budget: Budget) -> Sequence[Trial]:
        """One for each model and seed."""
        _, seeds = EXTENT[budget]
        return [
            Trial(f"{model}-{seed}", {"model": model, "seed": seed})
            for model, seed in product(SUBJECTS, range(seeds))
        ]

    def measure(self, trial: Trial, budget: Budget, tell: Tell) -> Measurement:
        """Train one model and count evaluations meanwhile; then solve it at each tolerance."""
        steps, _ = EXTENT[budget]
        subject = SUBJECTS[trial.values["model"]](trial.values["seed"])
        counts = []
        for step in range(steps + 1):
            if step * COUNTS // steps > (step - 1) * COUNTS // steps:
                counts.append((step, subject.solve(COUNTED).forward))
                tell(f"step {step:,} of {steps:,}, nfe {counts[-1][1]}")
            if step < steps:
                subject.train_step(step / steps)
        exact = subject.solve(REFERENCE)
        ladder = []
        for tolerance in LADDER:
            tell(f"tolerance {tolerance:g}")
            ladder.append(_rung(subject, tolerance, exact.outputs))
        figures = {"score": exact.score, "parameters": float(subject.parameter_count)}
        return Measurement(figures, {"counts": np.array(counts, float), "ladder": np.array(ladder)})

    def conclude(self, measured: Sequence[tuple[Trial, Measurement]], budget: Budget) -> Findings:
        """Reproduced, if each of the four parts holds for both models."""
        found = {model: _parts(_of(measured, model)) for model in SUBJECTS}
        wrong = [
            f"{model} ({part})" for model, parts in found.items() for part in parts if not _holds(part, parts)
        ]
        steps, seeds = EXTENT[budget]
        return Findings(
            "not reproduced" if wrong else "reproduced",
            _reason(found, wrong),
            (
                _summary(found, seeds, steps),
                *(_ladder_table(model, _of(measured, model)) for model in SUBJECTS),
            ),
            tuple(chart for model in SUBJECTS for chart in _charts(model, _of(measured, model))),
        )


def _rung(subject: Subject, tolerance: float, exact: Floats) -> tuple[float, ...]:
    """The measured ladder's row at one tolerance; see `COLUMNS`."""
    runs = [subject.solve(tolerance, backward=True) for _ in range(TIMINGS)]
    first = runs[0]
    return (
        tolerance,
        first.forward,
        first.backward,
        float(np.median([run.forward_seconds for run in runs])),
        float(np.median([run.backward_seconds for run in runs])),
        float(np.abs(first.outputs - exact).mean()),
        first.score,
    )


Parts = dict[str, PairedDifference | None]


def _parts(measured: Sequence[Measurement]) -> Parts:
    """For each part of the claim its figure, with the interval over the seeds.

    (a) The power of the tolerance that the numerical error follows. (b) The power of nfe that the time of the
    forward solve follows. (c) Evaluations backward, as a share of those forward. (d) What nfe grew by.
    """
    ladders = [m.arrays["ladder"].T for m in measured]
    counts = [m.arrays["counts"][:, 1] for m in measured]
    values = {
        "a": [_power(of["tolerance"], of["off"]) for of in map(_named, ladders)],
        "b": [_power(of["forward"], of["forward_s"]) for of in map(_named, ladders)],
        "c": [(of["backward"] / of["forward"]).mean() for of in map(_named, ladders)],
        "d": [count[-1] - count[0] for count in counts],
    }
    return {
        part: compare_paired(np.array(each), np.zeros(len(each)), resample=False)
        for part, each in values.items()
    }


def _named(ladder: Floats) -> dict[str, Floats]:
    return dict(zip(COLUMNS, ladder, strict=True))


def _power(x: Floats, y: Floats) -> float:
    """The power of `x` that `y` follows: the slope of their logarithms."""
    return fit_line(np.log10(x), np.log10(y)).slope if len(np.unique(x)) > 1 else float("nan")


def _holds(part: str, parts: Parts) -> bool:
    found = parts[part]
    if found is None:
        return False
    if part == "b":
        return found.low <= 1 <= found.high or abs(found.mean - 1) <= NEARLY
    if part == "c":
        return HALF[0] <= found.mean <= HALF[1]
    return found.low > 0


#: What is said of each part in a table.
QUESTIONS = {
    "a": "error follows the tolerance to the power",
    "b": "forward time follows nfe to the power",
    "c": "nfe backward, as a share of forward",
    "d": "nfe grows through training by",
}
ASKED = {
    "a": "above 0",
    "b": f"1, within {NEARLY:g} or the interval",
    "c": f"{HALF[0]:g} to {HALF[1]:g}",
    "d": "above 0",
}


def _reason(found: dict[str, Parts], wrong: Sequence[str]) -> str:
    told = []
    for part, question in QUESTIONS.items():
        figures = ", ".join(f"{model} {_short(parts[part])}" for model, parts in found.items())
        told.append(f"({part}) {question}: {figures}")
    failed = f" Not so: {', '.join(wrong)}." if wrong else ""
    return f"{'; '.join(told)}.{failed}"


def _short(found: PairedDifference | None) -> str:
    return f"{found.mean:.2f} [{found.low:.2f}, {found.high:.2f}]" if found else "one seed"


def _summary(found: dict[str, Parts], seeds: int, steps: int) -> TextTable:
    return TextTable(
        "The four parts of the claim",
        ("part", "asked", *(f"{model} [95%]" for model in found), "holds for"),
        tuple(
            (
                f"({part}) {question}",
                ASKED[part],
                *(_short(parts[part]) for parts in found.values()),
                ", ".join(model for model, parts in found.items() if _holds(part, parts)) or "neither",
            )
            for part, question in QUESTIONS.items()
        ),
        (False, False, *[True] * len(found), False),
        (
            f"Means over {seeds} seeds with Student's t intervals. Each model was trained for {steps:,} "
            f"steps at a tolerance of {TRAINING_TOLERANCE:g}, in float64. The classifier learns the digits "
            f"of scikit-learn, and the flow has {UNITS} hidden units and learns two moons.",
            "Evaluations are those of torchdiffeq's dopri5 and its adjoint, as the paper has it. The paper "
            "used an implicit Adams method, whose steps are others. flowbench's own engine "
            "backpropagates through its steps: its backward pass evaluates nothing.",
        ),
    )


def _ladder_table(model: str, measured: Sequence[Measurement]) -> TextTable:
    ladders = np.stack([m.arrays["ladder"] for m in measured])
    exact = np.array([m.figures["score"] for m in measured])
    rows = []
    for rung, tolerance in enumerate(LADDER):
        of = _named(ladders[:, rung].T)
        rows.append(
            (
                f"{tolerance:g}",
                *(f"{of[name].mean():.1f}" for name in ("forward", "backward")),
                *(f"{1000 * of[name].mean():.1f}" for name in ("forward_s", "backward_s")),
                f"{of['off'].mean():.1e}",
                f"{of['score'].mean():.4f}",
                compared(compare_paired(of["score"], exact, resample=False)),
            )
        )
    score, output = SUBJECTS[model].score_name, SUBJECTS[model].output_name
    return TextTable(
        f"{model} at a ladder of tolerances",
        (
            "tolerance",
            "nfe forward",
            "nfe backward",
            "CPU ms forward",
            "CPU ms backward",
            f"error of {output}",
            score,
            f"{score}, bias [95%]",
        ),
        tuple(rows),
        (True,) * 8,
        (
            f"The error is the mean distance of {output} from a solve at {REFERENCE:g}, and the bias is the "
            f"difference from its {score}, with the interval over seeds. Times are medians of {TIMINGS} "
            f"solves of {HELD_OUT} held-out rows.",
        ),
    )


def _of(measured: Sequence[tuple[Trial, Measurement]], model: str) -> list[Measurement]:
    return [m for t, m in measured if t.values["model"] == model]


def _charts(model: str, measured: Sequence[Measurement]) -> list[Chart]:
    """The panels (a) to (d) of the figure."""
    of = _named(np.moveaxis(np.stack([m.arrays["ladder"] for m in measured]), 2, 0))
    nfe = of["forward"].mean(0)
    output = SUBJECTS[model].output_name
    ends = np.array([nfe.min(), nfe.max()])
    counts = np.stack([m.arrays["counts"] for m in measured])
    return [
        Chart(
            f"{model} (a)",
            "nfe forward",
            f"error of {output}",
            (_series("dopri5", nfe, of["off"]),),
            ("x", "y"),
        ),
        Chart(
            f"{model} (b)",
            "nfe forward",
            "CPU ms",
            (
                _series("forward", nfe, 1000 * of["forward_s"]),
                _series("backward", nfe, 1000 * of["backward_s"]),
            ),
            ("x", "y"),
        ),
        Chart(
            f"{model} (c)",
            "nfe forward",
            "nfe backward",
            (
                _series("adjoint", nfe, of["backward"]),
                Series("half of forward", ends, ends / 2),
            ),
            ("x", "y"),
        ),
        Chart(
            f"{model} (d)",
            "steps of training",
            f"nfe at {COUNTED:g}",
            (_series("forward", counts[0, :, 0], counts[:, :, 1]),),
            ("y",),
        ),
    ]


def _series(label: str, x: Floats, values: Floats) -> Series:
    """The mean of `values: (seeds, n)`, with the lowest and the highest seed."""
    return Series(label, x, values.mean(0), values.min(0), values.max(0))
