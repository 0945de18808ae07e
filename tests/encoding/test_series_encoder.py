"""The encoder of series: round trips, derivatives, missing cells."""

import math

import pytest
import torch
from torch import Tensor

from flowbench.encoding.gaussianise import Gaussianise, GaussianiseOptions
from flowbench.encoding.series_encoder import SeriesEncoder
from flowbench.encoding.standardise import Standardise, StandardiseOptions
from flowbench.encoding.table_encoder import TableEncoder
from flowbench.errors import DataError


def data() -> tuple[Tensor, Tensor]:
    """Observations of columns of very different scales; a third of the cells are missing."""
    generator = torch.Generator().manual_seed(0)
    times = 1e9 + 1e6 * torch.rand(400, generator=generator, dtype=torch.float64)
    values = torch.randn(400, 3, generator=generator, dtype=torch.float64)
    values = torch.stack([5 + values[:, 0].exp(), 1e6 * values[:, 1], 1e-3 * values[:, 2] - 1], 1)
    values[torch.rand(400, 3, generator=generator) < 1 / 3] = math.nan
    return times, values


def made() -> SeriesEncoder:
    names = ["a", "b", "c"]
    encoder = SeriesEncoder(
        [
            TableEncoder([name], [Standardise((name,), StandardiseOptions())])
            if name == "b"
            else TableEncoder([name], [Gaussianise((name,), GaussianiseOptions())])
            for name in names
        ]
    )
    assert encoder.columns == ("a", "b", "c")
    return encoder


@pytest.fixture
def fitted() -> SeriesEncoder:
    encoder = made()
    encoder.fit(*data())
    return encoder


def test_train_series_are_standard_in_model_space(fitted: SeriesEncoder) -> None:
    times, values = data()
    t = fitted.times_to_model(times)
    assert (float(t.min()), float(t.max())) == (0, 1)
    assert (t.argsort() == times.argsort()).all()
    z, _ = fitted.to_model(values)
    for column in z.T:
        held = column[~column.isnan()]
        assert abs(held.mean()) < 0.1 and abs(held.std() - 1) < 0.1


def test_values_come_back(fitted: SeriesEncoder) -> None:
    _, values = data()
    z, _ = fitted.to_model(values)
    back = fitted.to_data(z)
    held = ~values.isnan()
    torch.testing.assert_close(back[held], values[held], rtol=1e-9, atol=0)
    # In any shape, such as draws of series.
    shaped = fitted.to_data(z[:12].view(2, 3, 2, 3))
    assert torch.equal(shaped.view(12, 3)[held[:12]], back[:12][held[:12]])
    # Maps increase, so quantiles stay quantiles.
    line = torch.linspace(-3, 3, 50, dtype=torch.float64)[:, None].expand(-1, 3)
    assert (fitted.to_data(line).diff(dim=0) > 0).all()


def test_the_logarithm_of_the_derivative_is_that_of_autodiff(fitted: SeriesEncoder) -> None:
    _, values = data()
    x = values[:50].clone().requires_grad_()
    z, slope = fitted.to_model(x)
    held = ~values[:50].isnan()
    (gradient,) = torch.autograd.grad(z[held].sum(), x)
    torch.testing.assert_close(slope[held].exp(), gradient[held], rtol=1e-8, atol=0)


def test_missing_cells_stay_missing_and_count_for_nothing(fitted: SeriesEncoder) -> None:
    _, values = data()
    before = values.clone()
    z, slope = fitted.to_model(values)
    gone = values.isnan()
    assert torch.equal(z.isnan(), gone)
    assert not slope[gone].any() and slope[~gone].isfinite().all()
    assert torch.equal(values.nan_to_num(7.0), before.nan_to_num(7.0))
    filled = values.clone()
    filled[:, 1] = math.nan
    again, slopes = fitted.to_model(filled)
    assert torch.equal(again[:, [0, 2]].nan_to_num(7.0), z[:, [0, 2]].nan_to_num(7.0))
    assert again[:, 1].isnan().all() and not slopes[:, 1].any()


def test_missing_cells_have_no_part_in_a_fit(fitted: SeriesEncoder) -> None:
    """Each column is fitted as if it were alone."""
    _, values = data()
    alone = TableEncoder(["b"], [Standardise(("b",), StandardiseOptions())])
    own = values[:, 1][~values[:, 1].isnan()][:, None]
    alone.fit(own)
    z, slope = fitted.to_model(values)
    expected, log_det = alone.to_model(own)
    held = ~values[:, 1].isnan()
    assert torch.equal(z[held, 1], expected[:, 0])
    assert torch.equal(slope[held, 1], log_det)


def test_its_state_dict_holds_all_of_it(fitted: SeriesEncoder) -> None:
    times, values = data()
    other = made()
    other.load_state_dict(fitted.state_dict())
    assert torch.equal(other.times_to_model(times), fitted.times_to_model(times))
    for one, two in zip(other.to_model(values), fitted.to_model(values), strict=True):
        assert torch.equal(one.nan_to_num(7.0), two.nan_to_num(7.0))


def test_what_cannot_be_fitted_is_refused() -> None:
    times, values = data()
    with pytest.raises(DataError, match="every observation of the train series is at one time, 3"):
        made().fit(torch.full_like(times, 3.0), values)
    empty = values.clone()
    empty[:, 2] = math.nan
    with pytest.raises(DataError, match="column `c` has no value in the train series"):
        made().fit(times, empty)
    constant = values.clone()
    constant[:, 1] = torch.where(constant[:, 1].isnan(), math.nan, 4.0)
    with pytest.raises(DataError, match="`b`"):
        made().fit(times, constant)
