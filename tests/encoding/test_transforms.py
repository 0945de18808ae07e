"""The contract of every transform in the registry."""

import re

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from flowbench.encoding.transform import Transform
from flowbench.errors import DataError
from flowbench.registry import TRANSFORMS

COLUMNS = ("a", "b", "c")
every_transform = pytest.mark.parametrize("name", TRANSFORMS.names())


def fitted(name: str, x: torch.Tensor) -> Transform:
    transform_class = TRANSFORMS.get(name)
    transform: Transform = transform_class(COLUMNS, transform_class.Options())
    transform.fit(x)
    return transform


def table(seed: int, scale: float = 1.0, shift: float = 0.0) -> torch.Tensor:
    generator = np.random.default_rng(seed)
    rows = np.stack(
        [generator.normal(size=300), generator.exponential(size=300), generator.uniform(size=300)], 1
    )
    return torch.tensor(shift + scale * rows)


@every_transform
@given(seed=st.integers(0, 1000), exponent=st.integers(-8, 8), shift=st.floats(-1e3, 1e3))
def test_round_trip_and_log_dets(name: str, seed: int, exponent: int, shift: float) -> None:
    scale = 10.0**exponent
    x = table(seed, scale, shift * scale)
    transform = fitted(name, x)
    z, log_slope = transform.to_model(x)
    back, back_log_slope = transform.to_data(z)
    assert (back - x).abs().max() < 1e-9 * x.abs().max()
    assert (log_slope + back_log_slope).abs().max() < 1e-9


@every_transform
def test_log_det_against_autodiff(name: str) -> None:
    x = table(0)
    transform = fitted(name, x)
    jacobian = torch.func.jacrev(lambda row: transform.to_model(row[None])[0][0])
    # Rows within the train rows, at their ends, and far beyond them.
    x = torch.cat([x[:50], x.amin(0)[None], x.amax(0)[None], 10 * x[:5]])
    expected = torch.stack([torch.linalg.slogdet(jacobian(row)).logabsdet for row in x])
    assert (transform.to_model(x)[1].sum(1) - expected).abs().max() < 1e-9


@every_transform
def test_train_rows_become_standard(name: str) -> None:
    x = table(1, 50.0, 7.0)
    z, _ = fitted(name, x).to_model(x)
    assert z.mean(0).abs().max() < 0.05
    assert (z.std(0) - 1).abs().max() < 0.05


@every_transform
def test_saved_and_loaded_alike(name: str) -> None:
    transform = fitted(name, table(2))
    other = fitted(name, table(3))
    other.load_state_dict(transform.state_dict())
    x = table(4)
    assert torch.equal(other.to_model(x)[0], transform.to_model(x)[0])
    numbers = [tensor for tensor in transform.state_dict().values() if tensor.is_floating_point()]
    assert all(tensor.dtype == torch.float64 for tensor in numbers)
    assert not list(transform.parameters())


@every_transform
@pytest.mark.parametrize("value", [0.0, 3.0, 1e9])
def test_a_column_without_spread_is_refused_by_name(name: str, value: float) -> None:
    x = table(5)
    x[:, 1] = value
    says = re.escape(f"column `b` has one value, {value:.6g}, in the 300 train rows")
    with pytest.raises(DataError, match=says):
        fitted(name, x)


@every_transform
@pytest.mark.parametrize(
    ("centre", "spread", "says"),
    [
        (1e15, 100.0, "too small beside it for float64 .* above 1e-12 of the mean; subtract a constant"),
        (-1e15, 100.0, "too small beside it .* subtract a constant"),
        (1e300, 1e287, "too small beside it .* subtract a constant"),
        (0.0, 1e200, "too large for float64, .* look for outliers, or divide the column"),
        (1e300, 1e299, "too large for float64, .* look for outliers, or divide the column"),
        (0.0, 1e-200, "too small for float64, .* multiply the column"),
    ],
)
def test_a_spread_that_cannot_be_trusted_is_told_as_it_is(
    name: str, centre: float, spread: float, says: str
) -> None:
    x = table(5)
    unit = (x[:, 0] - x[:, 0].mean()) / x[:, 0].std(unbiased=False)
    x[:, 1] = centre + spread * unit
    with pytest.raises(
        DataError, match=f"column `b` has a spread of .* in the 300 train rows, {says}"
    ) as told:
        fitted(name, x)
    figures = re.findall(r"of ([-+.e\d]+)", str(told.value))
    assert float(figures[0]) == pytest.approx(spread, rel=1e-3)
    assert float(figures[1]) == pytest.approx(centre, abs=spread)


def test_a_column_from_the_whole_range_of_float64_is_told_as_it_is() -> None:
    x = table(5)
    x[:, 1] = torch.tensor(np.where(x[:, 0] > 0, 1.7e308, -1.7e308))
    with pytest.raises(
        DataError, match=r"spread of 1\.[67]\d*e\+308 about a mean of .* too large for float64"
    ):
        fitted("standardise", x)


@every_transform
def test_numbers_far_from_zero_get_the_density_of_their_distances(name: str) -> None:
    """As identifiers do, whose spread is barely enough beside their mean."""
    whole = torch.tensor(np.round(np.random.default_rng(0).exponential(2000.0, (5000, 3))))
    near, far = fitted(name, whole), fitted(name, whole + 1e15)
    gaps = []
    for transform, x in ((near, whole), (far, whole + 1e15)):
        z, log_slope = transform.to_model(x)
        assert torch.equal(transform.to_data(z)[0].round(), x)
        gaps.append(log_slope.sum(1) - 0.5 * z.square().sum(1))
    assert (gaps[0] - gaps[1]).mean().abs() < 1e-3


@given(rows=arrays(np.float64, (5, 3), elements=st.floats(-1e100, 1e100)))
def test_standardise_is_exact_or_refuses(rows: np.ndarray) -> None:
    try:
        transform = fitted("standardise", torch.tensor(rows))
    except DataError:
        return
    z, log_slope = transform.to_model(torch.tensor(rows))
    assert torch.isfinite(z).all()
    assert torch.isfinite(log_slope).all()
