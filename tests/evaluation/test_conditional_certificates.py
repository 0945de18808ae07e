"""Planted faults of conditional models, each of which a certificate has to catch."""

import pytest
import torch
from torch import Tensor

from flowbench.encoding.standardise import Standardise, StandardiseOptions
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.evaluation.certificates import certify
from flowbench.evaluation.evaluation_options import EvaluationOptions
from flowbench.evaluation.reported import reported_likelihoods
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.density import Mapped
from flowbench.models.density_model import DensityModel
from flowbench.models.givens import Givens
from flowbench.models.rows import Rows
from flowbench.ode.integrator import State, Velocity

#: Small, and moved from its start, so that it depends on the context everywhere.
FIELD = {"name": "time-mlp", "width": 16, "scales": 1, "octaves": 1}


def rows(n: int = 300) -> Rows:
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    noise = torch.randn(n, 2, generator=generator, dtype=torch.float64)
    return Rows(torch.sin(context) + 0.5 * noise, 5 + 2 * context)


def model_of(kind: type[ContinuousFlow]) -> DensityModel:
    whole = rows(1000)
    assert whole.context is not None
    encoder = TableEncoder(("y", "z"), [Standardise(("y", "z"), StandardiseOptions())])
    givens = Givens(TableEncoder(("a", "b"), [Standardise(("a", "b"), StandardiseOptions())]))
    encoder.fit(whole.x)
    givens.fit(whole.context)
    generator = torch.Generator().manual_seed(1)
    flow = kind(2, ContinuousOptions(field=FIELD), generator, 2)
    with torch.no_grad():
        for parameter in flow.parameters():
            parameter.add_(0.15 * torch.randn(parameter.shape, generator=generator))
    return DensityModel(encoder, flow, None, givens)


#: Tight enough for a gross fault to be told from.
LOOSER = {"name": "per-row", "atol": 1e-4, "rtol": 1e-4}


def failed(
    kind: type[ContinuousFlow], *, integrator: dict[str, object] | None = None, n: int = 300
) -> set[str]:
    model, held_out = model_of(kind), rows(n)
    options = EvaluationOptions(**({} if integrator is None else {"integrator": integrator}))
    scored = reported_likelihoods(model, held_out.x, options, context=held_out.context)
    found = certify(model, held_out, scored, options, torch.Generator().manual_seed(2))
    return {name for name, each in found.items() if not each.passed}


class Leaking(ContinuousFlow):
    """The context of a row leaks into the rows beside it."""

    def rates(
        self, field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> State:
        assert context is not None
        return super().rates(field, t, x, probes, 0.9 * context + 0.1 * context.mean(0))


class Permuted(ContinuousFlow):
    """The contexts change their rows inside a solve."""

    def rates(
        self, field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> State:
        assert context is not None
        late = t.mean() < 0.5
        return super().rates(field, t, x, probes, context.roll(1, 0) if late else context)


class Doubled(ContinuousFlow):
    """The density is too large where the context is."""

    def rates(
        self, field: Velocity, t: Tensor, x: Tensor, probes: Tensor | None, context: Tensor | None
    ) -> State:
        assert context is not None
        velocity, divergence = super().rates(field, t, x, probes, context)
        return velocity, divergence - 0.3 * (1 + context[:, 0].square())


class OneWay(ContinuousFlow):
    """The way back forgets the context."""

    def _to_data(self, z: Tensor, context: Tensor | None, generator: torch.Generator | None) -> Mapped:
        assert context is not None
        return super()._to_data(z, torch.zeros_like(context), generator)


def test_a_healthy_model_passes() -> None:
    assert failed(ContinuousFlow) == set()
    # Nor does one fail that is judged as those with faults are.
    assert not failed(ContinuousFlow, integrator=LOOSER, n=100)


@pytest.mark.parametrize(
    ("kind", "caught"),
    [
        (Leaking, {"batch_invariance"}),
        (Permuted, {"batch_invariance"}),
        (Doubled, {"normalisation", "jacobian"}),
        (OneWay, {"round_trip"}),
    ],
)
def test_a_planted_fault_is_caught(kind: type[ContinuousFlow], caught: set[str]) -> None:
    assert caught <= failed(kind, integrator=LOOSER, n=100)


def test_rows_that_share_their_steps_are_caught() -> None:
    assert "batch_invariance" in failed(
        ContinuousFlow, integrator={"name": "native", "atol": 1e-6, "rtol": 1e-6}, n=100
    )
