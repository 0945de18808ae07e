"""Training of a density that is conditional: each row is learnt, and judged, with its own context."""

import copy
from typing import Any, ClassVar

import pytest
import torch
from torch import Tensor, nn

from flowbench.errors import ConfigurationError
from flowbench.models.density import Density, Scores, base_log_prob
from flowbench.models.discrete.planar import PlanarFlow, PlanarOptions
from flowbench.models.rows import Rows
from flowbench.objectives.likelihood import Likelihood, LikelihoodOptions
from flowbench.training.criterion import RowCriterion
from flowbench.training.gradient import Gradient
from flowbench.training.plan import TrainingPlan
from flowbench.training.state import TrainingState
from flowbench.training.trainer import Trainer
from flowbench.training.training_rows import TrainingRows

NOISE = 0.3


class LinearNormal(Density):
    """x given c is normal with mean c W + b and variance s^2: what least squares fits in closed form."""

    Options = PlanarOptions
    is_static: ClassVar[bool] = True

    def __init__(self) -> None:
        super().__init__(2, PlanarOptions(), torch.Generator(), context_features=3)
        self.weight = nn.Parameter(torch.zeros(3, 2))
        self.bias = nn.Parameter(torch.zeros(2))
        self.log_scale = nn.Parameter(torch.zeros(()))

    def _score(self, x: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Scores:
        assert context is not None
        z = (x - context @ self.weight - self.bias) * (-self.log_scale).exp()
        return Scores(base_log_prob(z) - 2 * self.log_scale)

    def _draw(self, n: int, context: Tensor | None, generator: torch.Generator) -> tuple[Tensor, Scores]:
        raise NotImplementedError


def table(n: int, seed: int) -> Rows:
    random = torch.Generator().manual_seed(seed)
    context = torch.randn(n, 3, generator=random)
    mean = context @ torch.tensor([[2.0, 0.0], [-1.0, 1.0], [0.0, 3.0]]) + torch.tensor([0.5, -0.5])
    return Rows(mean + NOISE * torch.randn(n, 2, generator=random), context)


def trainer(steps: int, **hooks: Any) -> Trainer[Density, Rows]:
    phase = {"batch_size": 256, "learning_rate": 0.05, "warmup_steps": 0}
    plan = TrainingPlan(**{"phases": [phase], "steps": steps, "patience": 0, "validation_steps": 50})
    rows = TrainingRows(table(2000, seed=1), table(500, seed=2), table(600, seed=3))
    made = Trainer(
        LinearNormal(),
        plan,
        rows,
        generator=torch.Generator().manual_seed(4),
        **{"criterion": RowCriterion(), **hooks},
    )
    return made


def test_it_learns_what_least_squares_finds() -> None:
    learnt = trainer(steps=400)
    assert learnt.run() == "finished"
    assert isinstance(learnt.examples, TrainingRows)
    train = learnt.examples.train
    assert train.context is not None
    design = torch.cat([train.context, torch.ones(len(train), 1)], 1)
    found = torch.linalg.lstsq(design, train.x).solution
    assert isinstance(learnt.model, LinearNormal)
    torch.testing.assert_close(learnt.model.weight.detach(), found[:3], atol=0.02, rtol=0)
    torch.testing.assert_close(learnt.model.bias.detach(), found[3], atol=0.02, rtol=0)
    residual = (train.x - design @ found).square().mean().sqrt().item()
    assert learnt.model.log_scale.exp().item() == pytest.approx(residual, rel=0.03)
    # The entropy of x given c is 0.43 nats. Without c, or with that of another row, it is 4.8.
    assert learnt.counters.best_nll == pytest.approx(0.43, abs=0.1)


def test_the_criterion_gets_the_context_of_its_rows() -> None:
    seen: dict[int, bool] = {}

    class Watching(RowCriterion):
        def nll(self, rows: Rows, log_prob: Tensor) -> Tensor:
            expected = table(len(rows), seed={500: 2, 600: 3}[len(rows)])
            assert rows.context is not None and expected.context is not None
            seen[len(rows)] = torch.equal(rows.context, expected.context)
            return super().nll(rows, log_prob)

        def settle(self, rows: Rows, log_prob: Tensor) -> None:
            seen[-1] = rows.context is not None and len(rows) == 600

    trainer(steps=50, criterion=Watching()).run()
    assert seen == {500: True, 600: True, -1: True}


def test_it_resumes_bit_for_bit() -> None:
    states: list[TrainingState] = []
    whole = trainer(steps=150)
    whole.on_validation = lambda progress: states.append(whole.state())
    whole.run()
    assert len(states) == 4
    for state in states:
        resumed = trainer(steps=150)
        resumed.load(TrainingState.unpack(*state.pack()))
        resumed.run()
        assert all(
            torch.equal(whole.model.state_dict()[key], tensor)
            for key, tensor in resumed.model.state_dict().items()
        )


def test_a_density_without_context_refuses_one() -> None:
    plan = TrainingPlan(**{"phases": [{"batch_size": 64}], "steps": 5})
    rows = TrainingRows(table(200, seed=1), table(50, seed=2))
    flow = PlanarFlow(2, PlanarOptions(layers=2), torch.Generator().manual_seed(0))
    with pytest.raises(ConfigurationError, match="context"):
        Trainer(flow, plan, rows, criterion=RowCriterion(), generator=torch.Generator().manual_seed(4)).run()


@pytest.mark.gpu
def test_a_recorded_step_reads_the_context_of_its_own_batch() -> None:
    class Launched(Likelihood):
        def is_static_for(self, flow: Density) -> bool:
            return False

    flow = LinearNormal().cuda()
    with torch.no_grad():
        flow.weight.fill_(0.1)
    flows = [flow, copy.deepcopy(flow)]
    gradients = [
        Gradient(each, objective(LikelihoodOptions()), torch.Generator("cuda"), clip_norm=1e9)
        for each, objective in zip(flows, (Likelihood, Launched), strict=True)
    ]
    for step in range(4):
        batch = table(64, seed=step)
        assert batch.context is not None
        x, context = batch.x.cuda(), batch.context.cuda()
        (found, _), (expected, _) = (gradient(Rows(x, context)) for gradient in gradients)
        assert found.total.item() == pytest.approx(expected.total.item(), rel=1e-5)
        for own, other in zip(*(each.parameters() for each in flows), strict=True):
            assert own.grad is not None and other.grad is not None
            torch.testing.assert_close(own.grad, other.grad, rtol=1e-4, atol=1e-5)
