"""The gradient of a step: clipped, and on a GPU the same recorded as not."""

import copy

import pytest
import torch
from torch import Tensor

from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import Density
from flowbench.models.rows import Rows
from flowbench.objectives.flow_matching import FlowMatching, FlowMatchingOptions
from flowbench.objectives.likelihood import Likelihood, LikelihoodOptions
from flowbench.objectives.objective import DensityObjective, LossTerms, Objective
from flowbench.registry import FIELDS, MODELS, OBJECTIVES
from flowbench.training.gradient import Gradient
from flowbench.training.precision import matmul_precision


def normal_rows(n: int, seed: int = 1) -> Tensor:
    return torch.randn(n, 3, generator=torch.Generator().manual_seed(seed))


def continuous(field: str = "time-mlp") -> ContinuousFlow:
    options = ContinuousOptions(field={"name": field})
    return ContinuousFlow(3, options, torch.Generator().manual_seed(0))


class Scaled(DensityObjective):
    """Another objective, times a factor; never recorded."""

    def __init__(self, objective: Objective[Density, Rows], factor: float = 1.0) -> None:
        super().__init__(objective.options)
        self.objective = objective
        self.factor = factor

    def __call__(
        self, model: Density, batch: Rows, generator: torch.Generator, spent: float = 1.0
    ) -> LossTerms:
        found = self.objective(model, batch, generator, spent)
        return LossTerms(self.factor * found.total, found.terms)


@pytest.mark.parametrize("factor", [1e-3, 1e3])
def test_a_gradient_longer_than_the_bound_is_brought_down_to_it(factor: float) -> None:
    flow, batch = continuous(), Rows(normal_rows(64))
    objective = Scaled(FlowMatching(FlowMatchingOptions()), factor)
    loss = objective(flow, batch, torch.Generator().manual_seed(2)).total
    expected = torch.cat([each.flatten() for each in torch.autograd.grad(loss, list(flow.parameters()))])
    found, norm = Gradient(flow, objective, torch.Generator().manual_seed(2), clip_norm=1.0)(batch)
    assert torch.equal(found.total, loss.detach())
    assert not found.total.requires_grad
    assert norm.item() == pytest.approx(expected.norm().item())
    parts = []
    for parameter in flow.parameters():
        assert parameter.grad is not None
        parts.append(parameter.grad.flatten())
    own = torch.cat(parts)
    assert own == pytest.approx(expected / max(1.0, norm.item()), rel=1e-4, abs=1e-7)


def test_only_work_that_no_value_decides_is_called_static() -> None:
    planar = MODELS.get("planar")
    discrete = planar(2, planar.Options(), torch.Generator())
    assert FlowMatching(FlowMatchingOptions()).is_static_for(continuous())
    assert not FlowMatching(FlowMatchingOptions(coupling="minibatch-ot")).is_static_for(continuous())
    assert Likelihood(LikelihoodOptions()).is_static_for(discrete)
    assert not Likelihood(LikelihoodOptions()).is_static_for(continuous())
    assert not Likelihood(LikelihoodOptions(random_end=0.5)).is_static_for(continuous())
    for name in set(OBJECTIVES.names()) - {"flow-matching", "likelihood"}:
        objective = OBJECTIVES.get(name)
        if objective.trains is not Density:
            continue
        assert not objective(objective.Options()).is_static_for(continuous())


def static_step(name: str) -> tuple[Density, Objective[Density, Rows]]:
    """The flow and the objective of a step that is static."""
    if name in MODELS.names():
        flow_class = MODELS.get(name)
        flow = flow_class(3, flow_class.Options(), torch.Generator().manual_seed(0))
        return flow, Likelihood(LikelihoodOptions())
    flow = continuous(name if name in FIELDS.names() else "time-mlp")
    if name == "time-mlp from a mixture":
        flow.initialise(normal_rows(100))
    return flow, FlowMatching(FlowMatchingOptions(antithetic=True))


STATIC = [
    *(name for name in MODELS.names() if MODELS.get(name).is_static),
    *(name for name in FIELDS.names() if FIELDS.get(name).is_static),
    "time-mlp from a mixture",
]


@pytest.mark.gpu
@pytest.mark.parametrize("name", STATIC)
@pytest.mark.parametrize("precision", ["ieee", "bf16"])
def test_a_recorded_step_is_the_step_itself(name: str, precision: str) -> None:
    """With other rows, other draws and other weights each time, the parameters' tensors being the same."""
    flow, objective = static_step(name)
    flows = [copy.deepcopy(flow).cuda() for _ in range(2)]
    generators = [torch.Generator("cuda").manual_seed(2) for _ in flows]
    gradients = [
        Gradient(flow, objective, generator, clip_norm=10.0)
        for flow, objective, generator in zip(flows, (objective, Scaled(objective)), generators, strict=True)
    ]
    optimizers = [torch.optim.AdamW(flow.parameters(), lr=1e-2, fused=True) for flow in flows]
    losses = []
    for step in range(5):
        batch = Rows(normal_rows(256, seed=step).cuda())
        with matmul_precision(precision):
            (found, norm), (expected, expected_norm) = (gradient(batch) for gradient in gradients)
        assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-4)
        assert norm.item() == pytest.approx(expected_norm.item(), rel=1e-3)
        for own, other in zip(*(flow.parameters() for flow in flows), strict=True):
            scale = expected_norm.item() * 1e-3
            assert own.grad is None if other.grad is None else (own.grad - other.grad).abs().max() <= scale
        for optimizer in optimizers:
            optimizer.step()
        for own, other in zip(*(flow.parameters() for flow in flows), strict=True):
            own.data.copy_(other.data)
        if step == 2:
            flows[0].load_state_dict(flows[1].state_dict())
            gradients[0].forget()
        losses.append(found.total.item())
    assert len(set(losses)) == len(losses)
    assert torch.equal(*(generator.get_state() for generator in generators))
