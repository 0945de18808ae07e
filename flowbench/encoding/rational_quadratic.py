"""Monotone rational-quadratic splines with logarithmic tails, one for each column."""

from typing import NamedTuple

import torch
from torch import Tensor

#: How soon the tails bend away from the straight line: after two units the slope has halved.
BEND = 0.5


class Spline(NamedTuple):
    """A rational-quadratic spline (Gregory and Delbourgo 1982) with logarithmic tails for each column.

    It has increasing `knots`, their `images` and positive `slopes`, each (d, k), and the index of the `last`
    knot, (d,). Knots after the `last` of a column are not used. Between knots the spline is
    rational-quadratic. Let e be the distance beyond an outer knot times the slope there. The image then lies
    log(1 + BEND e) / BEND beyond the image of that knot. So the spline maps the whole line onto itself with a
    continuous slope. A standard normal behind it has log-normal tails, and values far out stay at a moderate
    distance.
    """

    knots: Tensor
    images: Tensor
    slopes: Tensor
    last: Tensor

    def padded(self, size: int) -> "Spline":
        """The same map, stored with room for `size` knots."""
        missing = size - self.knots.shape[1]
        knots, images, slopes = (
            torch.cat([part, part[:, -1:].expand(-1, missing)], 1)
            for part in (self.knots, self.images, self.slopes)
        )
        return Spline(knots, images, slopes, self.last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The images of `x: (n, d)`, and the logarithms of the slopes, both (n, d)."""
        x = x.T.contiguous()
        low, inside = self._interval(self.knots, x)
        knot, width, image, height, slope, next_slope = self._pieces(low)
        secant = height / width
        share = ((x - knot) / width).clamp(0, 1)
        bend = share * (1 - share)
        bottom = secant + (slope + next_slope - 2 * secant) * bend
        value = image + height * (secant * share.square() + slope * bend) / bottom
        log_slope = _log_slope(secant, share, slope, next_slope, bottom)
        start, begin, straight = self._tail(self.knots, self.images, low)
        beyond = straight * (x - start)
        flattened = torch.log1p(BEND * beyond.abs())
        value = torch.where(inside, value, begin + beyond.sign() * flattened / BEND)
        return value.T, torch.where(inside, log_slope, straight.log() - flattened).T

    def inverse(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """The points with the images `z: (n, d)`, and the logarithms of the inverse's slopes, both (n, d)."""
        z = z.T.contiguous()
        low, inside = self._interval(self.images, z)
        knot, width, image, height, slope, next_slope = self._pieces(low)
        secant = height / width
        rise = (z - image).clamp(min=torch.zeros_like(height), max=height)
        bent = slope + next_slope - 2 * secant
        a = height * (secant - slope) + rise * bent
        b = height * slope - rise * bent
        c = -secant * rise
        # The root in [0, 1], by the formula without cancellation.
        share = (2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        bottom = secant + bent * share * (1 - share)
        value = knot + width * share
        log_slope = -_log_slope(secant, share, slope, next_slope, bottom)
        begin, start, straight = self._tail(self.images, self.knots, low)
        beyond = z - begin
        flattened = BEND * beyond.abs()
        value = torch.where(inside, value, start + beyond.sign() * torch.expm1(flattened) / (BEND * straight))
        return value.T, torch.where(inside, log_slope, flattened - straight.log()).T

    def _interval(self, ends: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """The piece (d, n) for each of `at: (d, n)`, and whether it lies between the outer ends."""
        last = self.last[:, None]
        above = torch.searchsorted(ends, at, right=True)
        low = torch.minimum((above - 1).clamp(min=0), last - 1)
        return low, (above > 0) & (at <= ends.gather(1, last))

    def _pieces(self, low: Tensor) -> tuple[Tensor, ...]:
        """Start, width, image, height and both slopes of the pieces `low: (d, n)`."""
        knot, image, slope = (part.gather(1, low) for part in self[:3])
        next_knot, next_image, next_slope = (part.gather(1, low + 1) for part in self[:3])
        return knot, next_knot - knot, image, next_image - image, slope, next_slope

    def _tail(self, ends: Tensor, others: Tensor, low: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outer end nearest to the pieces `low: (d, n)`, its counterpart and the slope there."""
        nearest = torch.where(low > 0, self.last[:, None], 0)
        return ends.gather(1, nearest), others.gather(1, nearest), self.slopes.gather(1, nearest)


def _log_slope(secant: Tensor, share: Tensor, slope: Tensor, next_slope: Tensor, bottom: Tensor) -> Tensor:
    rest = 1 - share
    top = next_slope * share.square() + 2 * secant * share * rest + slope * rest.square()
    return 2 * secant.log() + top.log() - 2 * bottom.log()
