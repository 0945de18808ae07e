"""The contract of every flow in the registry."""

import copy
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
import torch
from torch import Tensor

from flowbench.encoding.standardise import Standardise, StandardiseOptions
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import ConfigurationError
from flowbench.models.density import Density, Flow, Mapped
from flowbench.models.density_model import DensityModel
from flowbench.models.rows import Rows
from flowbench.objectives.likelihood import Likelihood, LikelihoodOptions
from flowbench.registry import INTEGRATORS, MODELS
from flowbench.store.tensors import read_tensors, write_tensors
from flowbench.training.criterion import RowCriterion
from flowbench.training.plan import TrainingPlan
from flowbench.training.state import from_arrays, to_arrays
from flowbench.training.trainer import Trainer
from flowbench.training.training_rows import TrainingRows

#: Smaller than the defaults, so that Jacobians and quadratures take seconds.
OPTIONS = {
    "cnf": {"field": {"name": "time-mlp", "width": 32, "scales": 2}},
    "planar": {"layers": 8},
    "radial": {"layers": 8},
    "sylvester": {"layers": 4},
    "maf": {"transforms": 3, "hidden": [16, 16]},
    "nsf": {"transforms": 2, "hidden": [16, 16]},
    "coupling": {"transforms": 3, "hidden": [16, 16]},
    "made": {"components": 4, "hidden": [16, 16], "scales": 2},
    "mixture": {"max_components": 4},
    "ngboost": {"stages": 30, "learning_rate": 0.1},
    "kde": {"max_rows": 500},
}
VARIANTS = [
    *((name, OPTIONS.get(name, {})) for name in MODELS.names()),
    ("cnf", {"field": {"name": "time-mlp", "width": 32, "scales": 0}}),
    ("cnf", {"field": {"name": "concatsquash", "hidden": [32, 32]}}),
]
FINE = INTEGRATORS.get("per-row").Options(atol=1e-10, rtol=1e-10)
DensityT = TypeVar("DensityT", bound=Density)
every_density = pytest.mark.parametrize(("name", "values"), VARIANTS)
every_flow = pytest.mark.parametrize(
    ("name", "values"), [(name, values) for name, values in VARIANTS if issubclass(MODELS.get(name), Flow)]
)


def build(name: str, values: dict[str, object], features: int, seed: int = 0) -> Density:
    flow_class = MODELS.get(name)
    flow: Density = flow_class(features, flow_class.Options(**values), torch.Generator().manual_seed(seed))
    return flow


def build_flow(name: str, values: dict[str, object], features: int) -> Flow:
    flow = build(name, values, features)
    assert isinstance(flow, Flow)
    return flow


def perturbed(flow: DensityT, seed: int = 1) -> DensityT:
    """The density with every parameter moved: a zero-initialised layer must not hide a mistake.

    One that has no parameters is fitted to a few rows.
    """
    generator = torch.Generator().manual_seed(seed)
    if not list(flow.parameters()):
        flow.initialise(rows(60, flow.features, seed).float())
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape, generator=generator))
    return flow


def rows(n: int, features: int, seed: int = 2) -> Tensor:
    return torch.randn(n, features, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def fitted(name: str, values: dict[str, object]) -> DensityModel:
    """A short fit to a bent, skewed cloud in unequal units."""
    noise = rows(2000, 2).numpy()
    bent = noise[:, 1] + 0.5 * noise[:, 0] ** 2
    x = torch.tensor(np.stack([10 + 3 * noise[:, 0], 0.1 * bent], 1))
    transform = Standardise(("a", "b"), StandardiseOptions())
    transform.fit(x)
    z, _ = transform.to_model(x)
    flow = build(name, values, 2)
    flow.initialise(z.float())
    plan = TrainingPlan(**{**flow.default_plan("toy"), "steps": 150, "patience": 0})
    generator = torch.Generator().manual_seed(3)
    table = TrainingRows(Rows(z[:1800].float()), Rows(z[1800:].float()))
    Trainer(flow, plan, table, generator=generator, criterion=RowCriterion()).run()
    return DensityModel(TableEncoder(("a", "b"), [transform]), flow)


@every_flow
@pytest.mark.parametrize("features", [1, 2, 5])
def test_round_trip(name: str, values: dict[str, object], features: int) -> None:
    flow = perturbed(build_flow(name, values, features)).for_evaluation(FINE)
    x = 2 * rows(50, features)
    there = flow.to_base(x)
    back = flow.to_data(there.value)
    assert (back.value - x).abs().max() < 1e-5
    assert (back.log_det + there.log_det).abs().max() < 1e-5


@every_flow
@pytest.mark.parametrize("features", [1, 2])
def test_log_det_is_that_of_the_jacobian(name: str, values: dict[str, object], features: int) -> None:
    """Central differences of the map itself, Richardson-extrapolated: no autodiff through any solver."""
    flow = perturbed(build_flow(name, values, features)).for_evaluation(FINE)
    x = rows(6, features)
    sign, log_det = torch.linalg.slogdet(numerical_jacobian(flow.to_base, x))
    assert (sign > 0).all()
    assert (flow.to_base(x).log_det - log_det).abs().max() < 1e-6


def numerical_jacobian(to_base: Callable[[Tensor], Mapped], x: Tensor) -> Tensor:
    """d to_base / dx: (n, d, d), error of the order of step^4."""

    def central(step: float) -> Tensor:
        columns = []
        for direction in torch.eye(x.shape[1], dtype=x.dtype):
            up, down = to_base(x + step * direction).value, to_base(x - step * direction).value
            columns.append((up - down) / (2 * step))
        return torch.stack(columns, -1)

    return (4 * central(1e-3) - central(2e-3)) / 3


@every_flow
def test_log_det_against_autodiff(name: str, values: dict[str, object]) -> None:
    """autodiff slogdet of the discrete map, in float64."""
    flow = perturbed(build_flow(name, values, 3)).double()
    if name == "cnf":
        options = INTEGRATORS.get("torchdiffeq").Options(method="rk4", steps=80)
        flow.integrator = INTEGRATORS.get("torchdiffeq")(options)
    x = rows(3, 3)
    jacobian = torch.stack(
        [torch.func.jacrev(lambda row: flow.to_base(row[None]).value[0])(row) for row in x]
    )
    _, expected = torch.linalg.slogdet(jacobian)
    assert (flow.to_base(x).log_det - expected).abs().max() < 1e-6


@every_density
def test_fitted_density_integrates_to_one(name: str, values: dict[str, object]) -> None:
    model = fitted(name, values).for_evaluation(INTEGRATORS.get("per-row").Options(atol=1e-6, rtol=1e-6))
    # The box is fourteen standard deviations wide, and the spacing far below the density's features.
    standardise = model.encoder.transforms[0]
    assert isinstance(standardise, Standardise)
    mean, scale = standardise.mean, standardise.scale
    axis = torch.linspace(-7, 7, 141, dtype=torch.float64)
    grid = torch.cartesian_prod(axis, axis) * scale + mean
    with torch.no_grad():
        mass = model.log_prob(grid).exp().sum() * (0.1 * scale).prod()
    assert mass.item() == pytest.approx(1, abs=1e-3)


@every_density
def test_every_parameter_gets_a_gradient(name: str, values: dict[str, object]) -> None:
    flow = perturbed(build(name, values, 3))
    if not list(flow.parameters()):
        pytest.skip("it is fitted without gradients")
    objective = Likelihood(LikelihoodOptions())
    loss = objective(flow, Rows(rows(20, 3).float()), torch.Generator().manual_seed(0)).total
    loss.backward()  # type: ignore[no-untyped-call]
    for label, parameter in flow.named_parameters():
        assert parameter.grad is not None, label
        assert torch.isfinite(parameter.grad).all(), label
        assert parameter.grad.abs().max() > 0, label


@every_density
def test_same_seed_same_bytes(name: str, values: dict[str, object]) -> None:
    first, second = build(name, values, 2), build(name, values, 2)
    for key, tensor in first.state_dict().items():
        assert torch.equal(tensor, second.state_dict()[key]), key
    draw, again = (
        flow.for_evaluation(FINE).sample_and_log_prob(30, torch.Generator().manual_seed(7))
        for flow in (perturbed(first), perturbed(second))
    )
    assert torch.equal(draw[0], again[0])
    assert torch.equal(draw[1], again[1])


@every_density
def test_global_random_state_is_left_alone(name: str, values: dict[str, object]) -> None:
    before = torch.get_rng_state()
    perturbed(build(name, values, 2)).sample(5, torch.Generator().manual_seed(0))
    assert torch.equal(before, torch.get_rng_state())


@every_density
def test_saved_and_loaded_alike_bit_for_bit(name: str, values: dict[str, object], tmp_path: Path) -> None:
    model = fitted(name, values)
    write_tensors(tmp_path / "model.safetensors", to_arrays(model.state_dict()), {})
    encoder = TableEncoder(("a", "b"), [Standardise(("a", "b"), StandardiseOptions())])
    loaded = DensityModel(encoder, build(name, values, 2, seed=99))
    loaded.load_state_dict(from_arrays(read_tensors(tmp_path / "model.safetensors")[0]))
    x = torch.tensor([[9.0, 0.1], [12.0, 0.5], [10.0, -0.2]])
    with torch.no_grad():
        expected = model.for_evaluation(FINE).log_prob(x)
        assert torch.equal(loaded.for_evaluation(FINE).log_prob(x), expected)


@every_density
def test_samples_carry_their_own_log_prob(name: str, values: dict[str, object]) -> None:
    flow = perturbed(build(name, values, 2)).for_evaluation(FINE)
    x, log_prob = flow.sample_and_log_prob(40, torch.Generator().manual_seed(5))
    assert (flow.log_prob(x) - log_prob).abs().max() < 1e-6


@every_density
def test_a_row_does_not_depend_on_its_batch(name: str, values: dict[str, object]) -> None:
    flow = perturbed(build(name, values, 2)).for_evaluation(INTEGRATORS.get("per-row").Options())
    x = 2 * rows(30, 2)
    together = flow.log_prob(x)
    alone = torch.cat([flow.log_prob(row[None]) for row in x])
    order = torch.randperm(30, generator=torch.Generator().manual_seed(0))
    assert (together - alone).abs().max() < 1e-9
    assert (together[order] - flow.log_prob(x[order])).abs().max() < 1e-9


@every_density
def test_wrong_shapes_are_refused(name: str, values: dict[str, object]) -> None:
    flow = build(name, values, 2)
    for wrong in (torch.zeros(3), torch.zeros(4, 3), torch.zeros(2, 2, 2)):
        with pytest.raises(ConfigurationError, match=r"shape \(n, 2\)"):
            flow.log_prob(wrong)
        if isinstance(flow, Flow):
            with pytest.raises(ConfigurationError, match=r"shape \(n, 2\)"):
                flow.to_data(wrong)


@every_density
def test_evaluation_copy_leaves_the_flow_alone(name: str, values: dict[str, object]) -> None:
    flow = perturbed(build(name, values, 2))
    before = copy.deepcopy(flow.state_dict())
    flow.for_evaluation(FINE).sample(3, torch.Generator().manual_seed(0))
    assert all(tensor.dtype == before[key].dtype for key, tensor in flow.state_dict().items())
    assert all(torch.equal(tensor, before[key]) for key, tensor in flow.state_dict().items())
    assert all(parameter.requires_grad for parameter in flow.parameters())
