"""Couplings and paths of flow matching: permutations by brute force, derivatives and variances of paths."""

from itertools import permutations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from flowbench.errors import ConfigurationError
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.rows import Rows
from flowbench.objectives.coupling import optimal_transport
from flowbench.objectives.flow_matching import FlowMatching, FlowMatchingOptions
from flowbench.objectives.paths import PATHS, PathName

each_path = pytest.mark.parametrize("path", PATHS)


def samples(n: int, features: int, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    base, data = torch.randn(2, n, features, generator=generator, dtype=torch.float64)
    return base, 2 * data + 1


def transport_cost(base: torch.Tensor, data: torch.Tensor) -> float:
    return float((base - data).square().sum())


@given(n=st.integers(1, 40), features=st.integers(1, 4), size=st.integers(2, 50), seed=st.integers(0, 2**32))
def test_coupling_is_a_permutation_inside_sub_batches_and_no_dearer(
    n: int, features: int, size: int, seed: int
) -> None:
    base, data = samples(n, features, seed)
    order = optimal_transport(base, data, size)
    rows = torch.arange(n)
    assert torch.equal(order.sort().values, rows)
    assert torch.equal(order // size, rows // size)
    assert transport_cost(base[order], data) <= transport_cost(base, data) + 1e-9


@pytest.mark.parametrize("seed", range(8))
def test_coupling_is_the_cheapest_of_all_permutations(seed: int) -> None:
    base, data = samples(6, 2, seed)
    cheapest = min(transport_cost(base[list(order)], data) for order in permutations(range(6)))
    assert transport_cost(base[optimal_transport(base, data, 6)], data) == pytest.approx(cheapest)


def test_coupling_in_one_dimension_sorts_each_sub_batch() -> None:
    base, data = samples(24, 1, 0)
    paired = base[optimal_transport(base, data, 8)]
    for ours, theirs in zip(torch.split(paired, 8), torch.split(data, 8), strict=True):
        assert torch.equal(ours[theirs.argsort(0).squeeze(1)], ours.sort(0).values)


@each_path
def test_velocity_is_the_derivative_of_the_path(path: PathName) -> None:
    base, data = samples(20, 3, 1)
    t = torch.linspace(0, 1, 20, dtype=torch.float64).unsqueeze(1)
    _, velocity = PATHS[path](t, base, data)
    derivative = torch.func.jvp(lambda time: PATHS[path](time, base, data)[0], (t,), (torch.ones_like(t),))[1]
    torch.testing.assert_close(velocity, derivative)


@each_path
def test_path_leads_from_the_base_to_the_data(path: PathName) -> None:
    base, data = samples(20, 3, 1)
    for moment, end in ((0.0, base), (1.0, data)):
        x, _ = PATHS[path](base.new_full((20, 1), moment), base, data)
        torch.testing.assert_close(x, end)


def test_variance_preserving_path_keeps_the_variance() -> None:
    """Of the two weights the squares sum to 1: var x_t = 1 for independent ends of variance 1."""
    t = torch.linspace(0, 1, 11, dtype=torch.float64).unsqueeze(1)
    one, zero = torch.ones(11, 1).double(), torch.zeros(11, 1).double()
    weights = [PATHS["variance-preserving"](t, *ends)[0] for ends in ((one, zero), (zero, one))]
    torch.testing.assert_close(weights[0] ** 2 + weights[1] ** 2, one)


def test_loss_of_the_exact_velocity_under_optimal_transport() -> None:
    """With x_1 = x_0 + shift in law, large batches pair x_0 with x_0 + shift: straight paths, no error."""
    options = ContinuousOptions(field={"name": "time-mlp", "width": 4, "scales": 0})
    flow = ContinuousFlow(1, options, torch.Generator().manual_seed(0)).double()
    flow.field.velocity = lambda t, x, context: torch.full_like(x, 3.0)
    data = 3 + torch.randn(1000, 1, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    losses = [
        FlowMatching(FlowMatchingOptions(coupling=coupling, coupling_size=1000))(
            flow, Rows(data), torch.Generator().manual_seed(2)
        ).total.item()
        for coupling in ("independent", "minibatch-ot")
    ]
    assert losses[0] == pytest.approx(2, abs=0.2)
    assert losses[1] < 0.02


def test_mirror_images_cancel_what_is_odd_in_the_base() -> None:
    """Of a constant c: the mean of (c - x_1 + x_0)^2 and (c - x_1 - x_0)^2 is (c - x_1)^2 + x_0^2."""
    flow = ContinuousFlow(3, ContinuousOptions(), torch.Generator().manual_seed(0)).double()
    flow.field.velocity = lambda t, x, context: torch.full_like(x, 3.0)
    _, data = samples(50, 3, 1)
    base = torch.randn(50, 3, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    objective = FlowMatching(FlowMatchingOptions(antithetic=True, late_share=0.0))
    loss = objective(flow, Rows(data), torch.Generator().manual_seed(2)).total
    torch.testing.assert_close(loss, ((3 - data).square() + base.square()).mean())


def test_mirror_images_and_rarer_late_times_leave_the_mean_as_it_is() -> None:
    """Of velocities t^k it is that of (t^k - x_1 + x_0)^2 over the times, by quadrature of either part."""
    flow = ContinuousFlow(1, ContinuousOptions(), torch.Generator().manual_seed(0)).double()
    data = torch.ones(200_000, 1, dtype=torch.float64)
    even = (torch.arange(10_000, dtype=torch.float64) + 0.5) / 10_000
    for power in (1, 200):
        flow.field.velocity = lambda t, x, context, k=power: (t**k).unsqueeze(1)
        # For x_1 = 1 and a standard normal x_0.
        early, late = [1 + (times**power - 1).square().mean() for times in (even, 1 - 1e-3**even)]
        for antithetic in (False, True):
            options = FlowMatchingOptions(antithetic=antithetic, late_share=0.9)
            loss = FlowMatching(options)(flow, Rows(data), torch.Generator().manual_seed(3)).total
            torch.testing.assert_close(loss, 0.9 * late + 0.1 * early, atol=0.03, rtol=0)


@pytest.mark.parametrize(
    "values",
    [
        {"coupling": "sinkhorn"},
        {"coupling_size": 1},
        {"path": "cubic"},
        {"antithetic": True, "coupling": "minibatch-ot"},
    ],
    ids=str,
)
def test_impossible_options_are_refused(values: dict[str, object]) -> None:
    with pytest.raises(ConfigurationError, match=next(iter(values))):
        FlowMatchingOptions(**values)
