"""Trials choose among untrained flows by validation rows, and leave the choice untrained."""

import copy
import math
import re
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from flowbench.models.continuous.fields.time_mlp import MANY_ROWS
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import Flow
from flowbench.models.discrete.planar import PlanarFlow, PlanarOptions
from flowbench.models.rows import Rows
from flowbench.statistics.gaussian_mixtures import silent
from flowbench.training import trials
from flowbench.training.criterion import RowCriterion
from flowbench.training.plan import TrainingPlan
from flowbench.training.training_rows import TrainingRows
from flowbench.training.trials import choose_by_trials


def bent(n: int, seed: int) -> Tensor:
    z = torch.randn(n, 2, generator=torch.Generator().manual_seed(seed))
    return torch.stack([z[:, 0], 0.2 * z[:, 1] + z[:, 0] ** 2 - 1], 1)


def planar(layers: int) -> PlanarFlow:
    return PlanarFlow(2, PlanarOptions(layers=layers), torch.Generator().manual_seed(0))


def choose(flows: Mapping[str, Flow], criterion: RowCriterion | None = None, **plan: Any) -> tuple[Flow, str]:
    values = {"phases": PlanarFlow.default_phases, "steps": 1200, **plan}
    rows = TrainingRows(Rows(bent(1000, 0)), Rows(bent(500, 1)))
    generator = torch.Generator().manual_seed(0)
    return choose_by_trials(
        flows, TrainingPlan(**values), rows, lambda: criterion or RowCriterion(), generator, silent
    )


def test_the_better_flow_is_chosen_untrained() -> None:
    flows: dict[str, Flow] = {"1 layer": planar(1), "16 layers": planar(16)}
    before = copy.deepcopy(flows["16 layers"].state_dict())
    for order, verb in ((list(flows), "chosen"), (list(flows)[::-1], "kept")):
        chosen, told = choose({name: flows[name] for name in order})
        assert chosen is flows["16 layers"]
        assert told.startswith(f"16 layers {verb} by short trials; their validation NLL: ")
    assert all(torch.equal(before[name], value) for name, value in chosen.state_dict().items())


def test_equal_flows_are_tried_alike() -> None:
    flows: dict[str, Flow] = {"a": planar(4), "b": planar(4)}
    chosen, told = choose(flows)
    assert chosen is flows["a"]
    first, second = told.partition("NLL: ")[2].split(", ")
    assert first.split()[1] == second.split()[1]


def test_trials_are_judged_by_the_criterion() -> None:
    class Shifted(RowCriterion):
        def nll(self, rows: Rows, log_prob: Tensor) -> Tensor:
            return super().nll(rows, log_prob) + 1000

    _, told = choose({"a": planar(1), "b": planar(2)}, Shifted())
    assert re.search(r"a 100\d\.\d+, b 100\d\.\d+", told)


@pytest.mark.parametrize(
    "plan",
    [
        {"steps": 1199},
        {"steps": 11},
        {"steps": 1},
        {"steps": None, "seconds": 35.9},
        {"steps": 11, "seconds": 600.0},
        {"steps": 6000, "seconds": 10.0},
        {"phases": ()},
    ],
)
def test_small_budgets_try_nothing(plan: dict[str, Any]) -> None:
    flows: dict[str, Flow] = {"a": planar(1), "b": planar(16)}
    assert choose(flows, **plan) == (flows["a"], "")


def test_one_flow_is_no_choice() -> None:
    flow = planar(1)
    assert choose({"a": flow}) == (flow, "")


def test_failed_trials_do_not_count() -> None:
    broken = planar(16)
    with torch.no_grad():
        broken.w.fill_(math.nan)
    sound: dict[str, Flow] = {"a": planar(1), "c": planar(16)}
    chosen, told = choose({"a": sound["a"], "b": broken, "c": sound["c"]})
    assert chosen is sound["c"] and told.endswith("; failed: b")
    chosen, told = choose({"b": broken, "a": sound["a"]})
    assert chosen is sound["a"] and told.startswith("a chosen")
    assert choose({"b": broken, "d": broken}) == (broken, "b kept, since every trial failed")


def test_trials_of_few_steps_tell_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trials, "LEAST_SECONDS", 0.0)
    flows: dict[str, Flow] = {"a": planar(1), "b": planar(16)}
    chosen, told = choose(flows, steps=None, seconds=1e-3)
    assert chosen is flows["a"] and told.endswith("steps of a trial tell too little")


def continuous(rows: int, givens: int, **field: object) -> ContinuousFlow:
    options = ContinuousOptions(field={"name": "time-mlp", "width": 8, "mixture_rows": 0, **field})
    flow = ContinuousFlow(1, options, torch.Generator().manual_seed(0), givens)
    flow.initialise(torch.randn(rows, 1), context=torch.randn(rows, givens) if givens else None)
    return flow


def test_conditional_flows_are_tried_with_fewer_scales() -> None:
    flow = continuous(1000, 1)
    variants = flow.variants()
    assert list(variants) == ["5 scales", "2 scales", "1 scale"]
    widths = [flow.field.context_first.in_features for flow in variants.values()]
    assert widths == [1 + 2 * 5, 1 + 2 * 2, 1 + 2 * 1]
    t, x, context = torch.tensor(0.5), torch.randn(4, 1), torch.randn(4, 1)
    for variant in variants.values():
        velocity, divergence = variant.field.velocity_and_divergence(t, x, context)
        assert torch.isfinite(velocity).all() and torch.isfinite(divergence).all()
    assert flow.field.context_first.in_features == 11


def test_others_are_not_tried() -> None:
    assert continuous(1000, 0).variants() == {}
    assert continuous(1000, 12).variants() == {}
    assert continuous(MANY_ROWS, 1).variants() == {}
    assert continuous(1000, 1, scales=3).variants() == {}
    assert continuous(1000, 1, context_scales=3).variants() == {}


def test_a_name_says_the_scales_of_both() -> None:
    flow = ContinuousFlow(
        20,
        ContinuousOptions(field={"name": "time-mlp", "width": 8, "mixture_rows": 0}),
        torch.Generator().manual_seed(0),
        1,
    )
    flow.initialise(torch.randn(5000, 20), context=torch.randn(5000, 1))
    assert list(flow.variants()) == ["4 scales of the columns and 6 of the givens", "3 scales", "1 scale"]
