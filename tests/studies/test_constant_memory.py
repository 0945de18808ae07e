"""The study of memory: what a step keeps, against the number of its evaluations."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import torch

from flowbench.ode.integrator import InitialValueProblem, Solution
from flowbench.statistics.lines import Line
from flowbench.studies import constant_memory
from flowbench.studies.constant_memory import KINDS, ConstantMemory, Step
from flowbench.studies.peak_memory import SavedBytes
from flowbench.studies.reproduction import reproduce
from flowbench.studies.study import Measurement, Trial
from flowbench.workflows.home import Home


def kept(model: str, gradient: str, size: float) -> tuple[float, float, float]:
    """Evaluations forward and backward, and the most bytes that were kept."""
    step = Step(model, gradient, size, seed=0, rows=16)
    saved = SavedBytes(step.module.parameters())
    with saved:
        forward, backward = step()
    assert saved.now == 0
    return forward, backward, saved.peak


@pytest.mark.parametrize("model", ["ODE network", "flow"])
def test_the_adjoint_keeps_the_same_at_any_tolerance(model: str) -> None:
    loose, tight = (kept(model, "adjoint", tolerance) for tolerance in (1e-2, 1e-7))
    assert tight[0] > 2 * loose[0] and tight[1] > 2 * loose[1]
    assert tight[2] == loose[2]


def test_backpropagation_keeps_the_same_for_each_evaluation() -> None:
    found = [kept("ODE network", "backpropagation", tolerance) for tolerance in (1e-2, 1e-4, 1e-6)]
    slopes = [(b[2] - a[2]) / (b[0] - a[0]) for a, b in pairwise(found)]
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-6)
    # An evaluation keeps its inputs and its hidden units at least, in float64.
    assert slopes[0] >= 16 * 2 * constant_memory.WIDTH * 8
    assert all(backward == 0 for _, backward, _ in found)


# The rejected steps of a solve, of which the flow has more, are not computed again.
@pytest.mark.parametrize(("model", "share"), [("ODE network", 0.9), ("flow", 0.75)])
def test_checkpoints_keep_less_and_evaluate_again(model: str, share: float) -> None:
    plain, saving = (kept(model, gradient, 1e-6) for gradient in ("backpropagation", "checkpointing"))
    assert saving[0] == plain[0] and saving[1] > share * plain[0] and saving[2] < 0.3 * plain[2]


@pytest.mark.parametrize("gradient", constant_memory.GRADIENTS)
@pytest.mark.parametrize("model", ["ODE network", "flow"])
def test_every_evaluation_is_counted(model: str, gradient: str) -> None:
    """By the integrator's own count of a forward solve."""
    step = Step(model, gradient, 1e-4, seed=0, rows=16)
    assert step.counter is not None
    own: list[int] = []
    inner = step.counter.inner
    solve = inner._solve

    def noted(problem: InitialValueProblem) -> Solution:
        found = solve(problem)
        own.append(found.nfe)
        return found

    inner._solve = noted  # type: ignore[method-assign]
    forward, _ = step()
    assert forward == sum(own) > 10


@pytest.mark.parametrize("model", ["ODE network", "flow"])
def test_all_gradients_agree(model: str) -> None:
    steps = [Step(model, gradient, 1e-8, seed=0, rows=16) for gradient in constant_memory.GRADIENTS]
    for step in steps:
        step()
    exact, again, adjoint = (step.gradient() for step in steps)
    torch.testing.assert_close(again, exact, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(adjoint, exact, rtol=1e-4, atol=1e-6)


def test_the_quick_study_runs_to_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constant_memory, "KINDS", KINDS[:1] + KINDS[2:3])
    monkeypatch.setitem(constant_memory.EXTENT, "quick", ((1e-2, 1e-4, 1e-6), (), 1))
    found = reproduce("memory", "quick", home=Home(tmp_path))
    assert found.findings is not None and found.page is not None
    slopes, costs = found.findings.tables
    assert slopes.rows[1][2] == "0 [0, 0]"
    # What autograd keeps is most of what the process needs.
    saved, peak = (float(cell.split()[0]) for cell in slopes.rows[0][2:])
    assert saved == pytest.approx(peak, rel=0.2)
    assert float(costs.rows[1][-1]) < 1e-4


@pytest.mark.parametrize(
    ("adjoint", "rest", "verdict"),
    [(0.0, 1.0, "reproduced"), (0.02, 1.0, "not reproduced"), (0.0, 0.0, "not reproduced")],
)
def test_the_verdict_follows_the_figures(adjoint: float, rest: float, verdict: str) -> None:
    study, noise = ConstantMemory(), np.random.default_rng(0)

    def measured(trial: Trial) -> Measurement:
        depth = 100.0 * (1 + int(trial.name.split("-")[-2]))
        slope = adjoint if trial.values["gradient"] == "adjoint" else rest
        memory = dict.fromkeys(constant_memory.MEASURES, 50 + slope * depth + 1e-3 * noise.normal())
        others = dict.fromkeys(("backward", "cpu_seconds", "gradient_error"), 1.0)
        return Measurement({"depth": depth, **memory, **others})

    found = study.conclude([(trial, measured(trial)) for trial in study.trials("default")], "default")
    assert found.verdict == verdict
    assert ("ODE network by adjoint, saved by autograd" in found.reason) == (adjoint > 0)
    assert ("leaves out zero for: ODE network, flow." in found.reason) == (adjoint > 0)
    assert ("residual network, peak of the process" in found.reason) == (rest == 0)


def test_the_peak_has_a_resolution_and_what_is_saved_has_none() -> None:
    backpropagation, small = Line(100.0, 0.0, 99.0, 101.0), Line(0.5, 0.0, 0.3, 0.7)
    for name in constant_memory.MEASURES:
        lines = {KINDS[0]: backpropagation, KINDS[2]: small}
        found = constant_memory._is_constant(
            {(kind, name): line for kind, line in lines.items()}, KINDS[2], name
        )
        assert found == (name == "peak_bytes")
