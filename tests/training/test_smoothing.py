"""The smoothed bootstrap, by the moments that it keeps and by what it tends to."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.datasets import load_iris
from sklearn.mixture import GaussianMixture
from torch import Tensor

from flowbench.models.continuous.flow import ContinuousFlow
from flowbench.models.mixture import FEW_ROWS, Mixture
from flowbench.models.rows import Rows
from flowbench.training.smoothing import SmoothedBootstrap
from flowbench.workflows.config import resolve
from flowbench.workflows.preparation import Watch, build_encoder, make_trainer, prepare

DRAWS = 200_000


def iris() -> Tensor:
    x = load_iris().data
    return torch.tensor((x - x.mean(0)) / x.std(0))


def fitted(rows: Tensor) -> Mixture:
    mixture = Mixture(rows.shape[1])
    mixture.fit(rows)
    return mixture


def draw(width: float, mixture: Mixture | None = None) -> Tensor:
    rows, generator = iris(), torch.Generator().manual_seed(0)
    chosen = torch.randint(len(rows), (DRAWS,), generator=generator)
    return SmoothedBootstrap(Rows(rows), mixture or fitted(rows)).draw(chosen, width, generator).x


def test_without_width_the_rows_are_drawn_themselves() -> None:
    rows = iris()
    chosen = torch.arange(len(rows))
    drawn = SmoothedBootstrap(Rows(rows), fitted(rows)).draw(chosen, 0.0, torch.Generator())
    torch.testing.assert_close(drawn.x, rows)


@pytest.mark.parametrize("width", [0.3, 1.0, 5.0])
def test_means_and_covariances_stay_at_any_width(width: float) -> None:
    """At a maximum of the likelihood a mixture has the mean and the covariance of its rows (Redner 1984)."""
    drawn, rows = draw(width).numpy(), iris().numpy()
    assert drawn.mean(0) == pytest.approx(rows.mean(0), abs=0.02)
    assert np.cov(drawn.T) == pytest.approx(np.cov(rows.T, ddof=0), abs=0.02)


def test_wide_draws_are_those_of_the_mixture() -> None:
    mixture = fitted(iris())
    assert len(mixture.means) > 1
    wide, own = draw(100.0, mixture), mixture.sample(DRAWS, torch.Generator().manual_seed(1))
    for component in (0, 1):
        shares = [mixture.shares(x)[:, component].mean().item() for x in (wide, own)]
        assert shares[0] == pytest.approx(shares[1], abs=0.01)
    assert mixture.log_prob(wide).mean().item() == pytest.approx(
        mixture.log_prob(own).mean().item(), abs=0.02
    )


def test_shares_of_components_against_scikit_learn(as_sklearn: Callable[[Mixture], GaussianMixture]) -> None:
    mixture = fitted(iris())
    assert len(mixture.means) > 1
    expected = as_sklearn(mixture).predict_proba(iris().numpy())
    assert mixture.shares(iris()).numpy() == pytest.approx(expected, abs=1e-9)


def test_noise_follows_a_ridge() -> None:
    """Of two columns that nearly determine one another, the difference stays as narrow as it was."""
    z = torch.randn(300, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    rows = torch.stack([z[:, 0], z[:, 0] + 0.05 * z[:, 1]], 1)
    chosen = torch.randint(300, (10_000,), generator=torch.Generator().manual_seed(1))
    drawn = SmoothedBootstrap(Rows(rows), fitted(rows)).draw(chosen, 0.5, torch.Generator().manual_seed(2)).x
    assert (drawn[:, 1] - drawn[:, 0]).std().item() == pytest.approx(0.05, rel=0.1)


def test_noise_given_a_context_keeps_to_what_depends_on_it() -> None:
    """Around a line, noise has the size of the distances from it; contexts stay as they are."""
    generator = torch.Generator().manual_seed(0)
    context = torch.randn(500, 1, generator=generator, dtype=torch.float64)
    rows = Rows(2 * context + 0.1 * torch.randn(context.shape, generator=generator).double(), context)
    mixture = Mixture(1, 1)
    mixture.fit(rows.x, context=context)
    chosen = torch.randint(500, (DRAWS,), generator=generator)
    drawn = SmoothedBootstrap(rows, mixture).draw(chosen, 0.5, generator)
    assert drawn.context is not None and torch.equal(drawn.context, context[chosen])
    assert not torch.equal(drawn.x, rows.x[chosen])
    left = (drawn.x - 2 * drawn.context).squeeze(1)
    expected = (rows.x - 2 * context).squeeze(1)
    assert left.std().item() == pytest.approx(expected.std(correction=0).item(), rel=0.02)


@pytest.mark.parametrize("background", [True, False])
def test_the_width_falls_to_zero_over_a_phase(background: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    config = resolve("iris", "cnf", overrides={"plan.steps": 10, "background": background})
    rows = torch.tensor(load_iris().data)
    prepared = prepare(config, build_encoder(config, "abcd"), Rows(rows[::2]), Rows(rows[1::2]))
    widths: list[float] = []
    whole = SmoothedBootstrap.draw

    def spy(self: SmoothedBootstrap, chosen: Tensor, width: float, generator: torch.Generator) -> Rows:
        widths.append(width)
        return whole(self, chosen, width, generator)

    monkeypatch.setattr(SmoothedBootstrap, "draw", spy)
    make_trainer(prepared, Watch()).run()
    assert widths == pytest.approx([0.5 * (1 - step / 10) for step in range(10)])


def test_many_rows_are_taken_as_they_are() -> None:
    config = resolve("iris", "cnf", overrides={"plan.steps": 1, "plan.patience": 0})
    rows = torch.tensor(np.random.default_rng(0).normal(size=(FEW_ROWS + 11, 2)))
    prepared = prepare(config, build_encoder(config, "ab"), Rows(rows[:-10]), Rows(rows[-10:]))
    assert prepared.smoother is None
    assert make_trainer(prepared, Watch()).run() == "finished"


def test_models_that_do_not_ask_learn_from_the_rows() -> None:
    config = resolve("iris", "planar", overrides={"plan.steps": 1})
    rows = torch.tensor(load_iris().data)
    prepared = prepare(config, build_encoder(config, "abcd"), Rows(rows[::2]), Rows(rows[1::2]))
    assert prepared.smoother is None


def test_start_background_and_smoother_share_one_mixture(monkeypatch: pytest.MonkeyPatch) -> None:
    fits: list[int] = []
    whole = Mixture.fit

    def spy(self: Mixture, x: Tensor, *limits: Any, **given: Any) -> None:
        fits.append(len(x))
        whole(self, x, *limits, **given)

    monkeypatch.setattr(Mixture, "fit", spy)
    config = resolve("iris", "cnf", overrides={"plan.steps": 1})
    rows = torch.tensor(load_iris().data)
    model = prepare(config, build_encoder(config, "abcd"), Rows(rows[::2]), Rows(rows[1::2])).model
    assert fits == [75]
    assert isinstance(model.flow, ContinuousFlow) and model.background is not None
    assert model.flow.start is not None
    for name in model.flow.start.growing:
        assert torch.equal(getattr(model.flow.start, name), getattr(model.background.mixture, name))
