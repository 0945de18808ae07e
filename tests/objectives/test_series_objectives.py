"""The evidence bound and the likelihood of series: their parts, and which models they train."""

import math

import pytest
import torch

from flowbench.errors import ConfigurationError
from flowbench.models.continuous.flow import ContinuousFlow, ContinuousOptions
from flowbench.models.series.batch import SeriesBatch
from flowbench.models.series.latent_ode import LatentOde
from flowbench.models.series.noise import BatchNoise
from flowbench.models.series.series_model import SeriesModel
from flowbench.models.trainable import Trainable
from flowbench.objectives.evidence_bound import EvidenceBound, EvidenceBoundOptions
from flowbench.objectives.objective import LossTerms
from flowbench.objectives.series_likelihood import SeriesLikelihood, SeriesLikelihoodOptions
from flowbench.registry import SERIES_MODELS
from flowbench.training.plan import TrainingPlan
from flowbench.training.trainer import make_objectives

LENGTHS = (1, 4, 7, 12)


def batch() -> SeriesBatch:
    generator = torch.Generator().manual_seed(1)
    series = []
    for m in LENGTHS:
        values = torch.randn(m, 2, generator=generator, dtype=torch.float64)
        values[torch.rand(m, generator=generator) < 0.4, 1] = math.nan
        series.append((torch.rand(m, generator=generator, dtype=torch.float64).sort()[0], values))
    return SeriesBatch.of(series)


def made(name: str) -> SeriesModel:
    model_class = SERIES_MODELS.get(name)
    model: SeriesModel = model_class(2, model_class.Options(), torch.Generator().manual_seed(0)).double()
    return model


def latent() -> LatentOde:
    model = made("latent-ode")
    assert isinstance(model, LatentOde)
    return model


def bound(spent: float = 1.0, seed: int = 3, **values: object) -> LossTerms:
    objective = EvidenceBound(EvidenceBoundOptions(**values))
    with torch.no_grad():
        return objective(latent(), batch(), torch.Generator().manual_seed(seed), spent)


def test_the_evidence_bound_is_a_mean_over_cells() -> None:
    found = bound(draws=3, cut=0.0)
    generator = torch.Generator().manual_seed(3)
    torch.rand(len(LENGTHS) + 1, generator=generator)
    model = latent()
    terms = model.evidence(batch(), BatchNoise(len(LENGTHS), generator, model.like), 3)
    total = (terms.log_prob.mean(0) - terms.divergence).sum()
    assert found.total.item() == pytest.approx(-total.item() / int(batch().cells.sum()))
    assert found.terms["log_prob"].item() == pytest.approx(terms.log_prob.mean().item())
    assert found.terms["divergence"].item() == pytest.approx(terms.divergence.mean().item())


def test_the_weight_of_the_divergence_rises_evenly_to_one() -> None:
    full = bound(cut=0.0, warm_up=0.0)
    cost = full.terms["divergence"].item() * len(LENGTHS) / int(batch().cells.sum())
    assert cost > 0
    for spent, weight in ((0.0, 0.0), (0.1, 0.25), (0.3, 0.75), (0.4, 1.0), (0.9, 1.0)):
        found = bound(spent, cut=0.0, warm_up=0.4)
        assert found.total.item() == pytest.approx(full.total.item() - (1 - weight) * cost)
        assert found.terms["divergence"].item() == full.terms["divergence"].item()


def test_importance_weights_tighten_the_bound_once_the_warm_up_is_over() -> None:
    model = latent()
    found = bound(draws=5, cut=0.0, importance=True)
    generator = torch.Generator().manual_seed(3)
    torch.rand(len(LENGTHS) + 1, generator=generator)
    scores = model.score(batch(), BatchNoise(len(LENGTHS), generator, model.like), 5)
    assert found.total.item() == pytest.approx(-scores.log_prob.sum().item() / int(batch().cells.sum()))
    one = bound(draws=5, cut=0.0)
    single = scores.looser[1].sum().item() / int(batch().cells.sum())
    assert found.total.item() < -single
    # Until then it is the evidence bound.
    assert bound(0.1, draws=5, cut=0.0, importance=True).total == bound(0.1, draws=5, cut=0.0).total
    assert one.total != found.total


def test_series_are_cut_off_at_any_observation() -> None:
    """The loss of a cut batch is that of the series which are left, and every length occurs."""
    model, seen = latent(), [set[int]() for _ in LENGTHS]
    for seed in range(60):
        generator = torch.Generator().manual_seed(seed)
        place = torch.rand(len(LENGTHS) + 1, generator=generator)
        lengths = [1 + math.floor(p * m) for p, m in zip(place.tolist(), LENGTHS, strict=False)]
        for own, length in zip(seen, lengths, strict=True):
            own.add(length)
        if seed < 5:
            left = batch().up_to(torch.tensor(lengths))
            terms = model.evidence(left, BatchNoise(len(LENGTHS), generator, model.like))
            total = (terms.log_prob.mean(0) - terms.divergence).sum().item()
            found = bound(cut=1.0, seed=seed)
            assert found.total.item() == pytest.approx(-total / int(left.cells.sum()))
    assert seen[0] == {1} and seen[1] == {1, 2, 3, 4}


def test_a_share_of_the_batches_is_cut() -> None:
    whole = [bound(cut=0.0, seed=seed).total.item() for seed in range(40)]
    some = [bound(cut=0.3, seed=seed).total.item() for seed in range(40)]
    same = sum(a == b for a, b in zip(whole, some, strict=True))
    assert 18 <= same <= 36


@pytest.mark.parametrize(("seen", "within"), [(0.5, 1.0), (1.0, 0.5)])
def test_the_posterior_can_be_that_given_a_part(seen: float, within: float) -> None:
    found = bound(cut=0.0, seen=seen, within=within)
    generator = torch.Generator().manual_seed(3)
    torch.rand(len(LENGTHS) + 1, generator=generator)
    model = latent()
    part = batch().part(seen, within, generator)
    mean, scale = model.recognition(part)
    epsilon = BatchNoise(len(LENGTHS), generator, model.like).normal(1, model.latent).transpose(0, 1)
    z = mean + scale * epsilon
    divergence = torch.distributions.kl_divergence(
        torch.distributions.Normal(mean, scale), torch.distributions.Normal(0, 1)
    ).sum()
    # The whole of the series counts.
    decoded = model._decode(z, batch().times, batch().present)[0]
    normal = torch.distributions.Normal(decoded, model.noise_scale)
    terms = normal.log_prob(batch().values)  # type: ignore[no-untyped-call]
    total = (terms * batch().observed).sum() - divergence
    assert found.total.item() == pytest.approx(-total.item() / int(batch().cells.sum()))
    assert found.total != bound(cut=0.0).total


def test_the_likelihood_is_a_mean_over_cells() -> None:
    model = made("rnn-dt")
    objective = SeriesLikelihood(SeriesLikelihoodOptions())
    generator = torch.Generator().manual_seed(3)
    state = generator.get_state()
    found = objective(model, batch(), generator)
    assert torch.equal(generator.get_state(), state)
    scores = model.score(batch(), BatchNoise(len(LENGTHS), generator, model.like))
    assert found.total.item() == pytest.approx(-scores.log_prob.sum().item() / int(batch().cells.sum()))


def flow() -> Trainable:
    return ContinuousFlow(2, ContinuousOptions(), torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("model", "objective", "complaint"),
    [
        (
            "latent-ode",
            "series-likelihood",
            "needs an exact likelihood; train `latent-ode` with `evidence-bound`",
        ),
        ("rnn", "evidence-bound", "objective `evidence-bound` cannot train `rnn`; leave `plan.phases` out"),
        ("gp", "evidence-bound", "objective `evidence-bound` cannot train `gp`"),
        ("latent-ode", "likelihood", "objective `likelihood` cannot train `latent-ode`"),
        ("ode-rnn", "flow-matching", "objective `flow-matching` cannot train `ode-rnn`"),
        ("cnf", "evidence-bound", "objective `evidence-bound` cannot train `cnf`"),
        ("cnf", "series-likelihood", "objective `series-likelihood` cannot train `cnf`"),
    ],
)
def test_an_objective_refuses_what_it_cannot_train(model: str, objective: str, complaint: str) -> None:
    plan = TrainingPlan(phases=[{"objective": objective}], steps=1)
    with pytest.raises(ConfigurationError) as caught:
        make_objectives(plan, flow() if model == "cnf" else made(model))
    assert complaint in str(caught.value)


@pytest.mark.parametrize("name", SERIES_MODELS.names())
def test_the_default_objective_can_train_its_model(name: str) -> None:
    model = made(name)
    plan = TrainingPlan(**model.default_plan("toy"), steps=1)
    assert len(make_objectives(plan, model)) == len(plan.phases)
