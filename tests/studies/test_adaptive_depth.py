"""The study of tolerances: its models solve what they say, and its verdict follows from the figures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from scipy.integrate import solve_ivp

from flowbench.studies import adaptive_depth
from flowbench.studies.adaptive_depth import LADDER, AdaptiveDepth
from flowbench.studies.ode_models import SUBJECTS, DigitsClassifier, Subject, ToyFlow
from flowbench.studies.reproduction import reproduce
from flowbench.studies.study import Measurement, Trial
from flowbench.workflows.home import Home


def trained(kind: type[Subject], steps: int) -> Subject:
    subject = kind(0)
    for step in range(steps):
        subject.train_step(step / steps)
    return subject


def test_the_classifier_solves_its_equation() -> None:
    """Its logits against scipy's solver of the same equation."""
    subject = trained(DigitsClassifier, 3)
    assert isinstance(subject, DigitsClassifier)
    logits = subject.solve(1e-9).outputs[:5]
    with torch.no_grad():
        start = subject.module.stem(subject.held_out[:5])

        def velocity(t: float, y: np.ndarray) -> np.ndarray:
            state = torch.from_numpy(y).view(start.shape)
            (slope,) = subject.module._velocity(torch.tensor(t, dtype=torch.float64), (state,))
            return slope.flatten().numpy()

        end = solve_ivp(velocity, (0, 1), start.flatten().numpy(), rtol=1e-10, atol=1e-10, method="LSODA")
        expected = subject.module.head(torch.from_numpy(end.y[:, -1]).view(start.shape)).numpy()
    np.testing.assert_allclose(logits, expected, atol=1e-6)


@pytest.mark.parametrize("kind", SUBJECTS.values())
def test_training_makes_the_held_out_rows_likelier(kind: type[Subject]) -> None:
    before, after = kind(0).solve(1e-3).score, trained(kind, 30).solve(1e-3).score
    assert after < before - 0.1


@pytest.mark.parametrize("kind", SUBJECTS.values())
def test_evaluations_are_counted_in_both_directions(kind: type[Subject]) -> None:
    subject = trained(kind, 2)
    without, with_gradient = (subject.solve(1e-3, backward=backward) for backward in (False, True))
    assert without.forward == with_gradient.forward >= 7
    assert without.backward == 0 < with_gradient.backward
    assert subject.solve(1e-7, backward=True).backward > with_gradient.backward
    np.testing.assert_array_equal(without.outputs, with_gradient.outputs)


def test_the_flow_is_scored_by_its_density() -> None:
    """The NLL of the rows, and a density that integrates to one by the sum over a grid."""
    subject = trained(ToyFlow, 10)
    assert isinstance(subject, ToyFlow)
    solved = subject.solve(1e-6)
    assert solved.score == pytest.approx(-solved.outputs.mean())
    axis = torch.linspace(-8, 8, 81, dtype=torch.float64)
    subject.held_out = torch.cartesian_prod(axis, axis)
    assert np.exp(subject.solve(1e-6).outputs).sum() * 0.2**2 == pytest.approx(1, abs=1e-3)


def test_the_quick_study_runs_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(adaptive_depth.EXTENT, "quick", (5, 2))
    monkeypatch.setattr(adaptive_depth, "LADDER", (1e-2, 1e-5, 1e-9))
    found = reproduce("adaptive-depth", "quick", home=Home(tmp_path))
    assert found.findings is not None and found.page is not None
    summary, *ladders = found.findings.tables
    assert [row[0][:3] for row in summary.rows] == ["(a)", "(b)", "(c)", "(d)"]
    for table in ladders:
        errors = [float(row[5]) for row in table.rows]
        assert errors[2] < 0.5 * errors[0]
    assert [chart.title for chart in found.findings.charts][:2] == ["classifier (a)", "classifier (b)"]
    assert len(found.findings.charts) == 8


@pytest.mark.parametrize(
    ("power", "share", "growth", "failing"),
    [(1.0, 0.5, 20.0, ""), (0.5, 1.0, 20.0, "(b)(c)"), (1.0, 0.5, -1.0, "(d)")],
)
def test_the_verdict_follows_the_figures(power: float, share: float, growth: float, failing: str) -> None:
    study, noise = AdaptiveDepth(), np.random.default_rng(0)

    def measured(trial: Trial) -> Measurement:
        tolerance = np.array(LADDER)
        forward = np.round(20 * tolerance**-0.2)
        time = forward**power * np.exp(1e-3 * noise.normal(size=len(tolerance)))
        score = np.full(len(tolerance), 0.1)
        ladder = np.stack([tolerance, forward, share * forward, time, time, tolerance / 3, score], axis=1)
        counts = np.stack([np.arange(3.0), 20 + growth * np.arange(3.0)], axis=1)
        return Measurement({"score": 0.1, "parameters": 5.0}, {"ladder": ladder, "counts": counts})

    found = study.conclude([(trial, measured(trial)) for trial in study.trials("default")], "default")
    assert found.verdict == ("not reproduced" if failing else "reproduced")
    holds = {row[0][:3]: row[-1] for row in found.tables[0].rows}
    assert "".join(part for part, models in holds.items() if models == "neither") == failing
    # The error was made to follow the tolerance itself.
    assert "power: classifier 1.00 [1.00, 1.00], flow 1.00" in found.reason
