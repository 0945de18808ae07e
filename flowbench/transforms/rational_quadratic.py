"""Monotone rational-quadratic splines on the whole line (Gregory and Delbourgo 1982), one for each column."""

from typing import NamedTuple

import torch
from torch import Tensor


class Spline(NamedTuple):
    """Increasing `knots` and `images` and positive `slopes` there, each (d, k).

    Between knots the spline is rational-quadratic and its slope continuous; beyond the outer knots it goes
    on in a straight line, so it maps the whole line onto itself.
    """

    knots: Tensor
    images: Tensor
    slopes: Tensor

    def padded(self, size: int) -> "Spline":
        """The same map with `size` knots: the further ones lie on the straight line above the last."""
        missing = size - self.knots.shape[1]
        ahead = torch.arange(1, missing + 1, dtype=self.knots.dtype, device=self.knots.device)
        # A unit of the image between them: far enough apart whatever the scale of the column.
        images = self.images[:, -1:] + ahead
        knots = self.knots[:, -1:] + ahead / self.slopes[:, -1:]
        slopes = self.slopes[:, -1:].expand_as(images)
        return Spline(
            torch.cat([self.knots, knots], 1),
            torch.cat([self.images, images], 1),
            torch.cat([self.slopes, slopes], 1),
        )

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
        value = torch.where(inside, value, begin + straight * (x - start))
        return value.T, torch.where(inside, log_slope, straight.log()).T

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
        # The root in [0, 1], in the form that does not cancel.
        share = (2 * c / (-b - (b.square() - 4 * a * c).clamp(min=0).sqrt())).clamp(0, 1)
        bottom = secant + bent * share * (1 - share)
        value = knot + width * share
        log_slope = -_log_slope(secant, share, slope, next_slope, bottom)
        begin, start, straight = self._tail(self.images, self.knots, low)
        value = torch.where(inside, value, start + (z - begin) / straight)
        return value.T, torch.where(inside, log_slope, -straight.log()).T

    def _interval(self, ends: Tensor, at: Tensor) -> tuple[Tensor, Tensor]:
        """The piece (d, n) that holds each of `at: (d, n)`, and whether it lies between the outer ends."""
        last = ends.shape[1] - 1
        above = torch.searchsorted(ends, at, right=True)
        return (above - 1).clamp(0, last - 1), (above > 0) & (at <= ends[:, -1:])

    def _pieces(self, low: Tensor) -> tuple[Tensor, ...]:
        """Start, width, image, height and both slopes of the pieces `low: (d, n)`."""
        knot, image, slope = (part.gather(1, low) for part in self)
        next_knot, next_image, next_slope = (part.gather(1, low + 1) for part in self)
        return knot, next_knot - knot, image, next_image - image, slope, next_slope

    def _tail(self, ends: Tensor, others: Tensor, low: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The outer end nearest to the pieces `low: (d, n)`: itself, its counterpart and the slope there."""
        nearest = torch.where(low > 0, ends.shape[1] - 1, 0)
        return ends.gather(1, nearest), others.gather(1, nearest), self.slopes.gather(1, nearest)


def _log_slope(secant: Tensor, share: Tensor, slope: Tensor, next_slope: Tensor, bottom: Tensor) -> Tensor:
    rest = 1 - share
    top = next_slope * share.square() + 2 * secant * share * rest + slope * rest.square()
    return 2 * secant.log() + top.log() - 2 * bottom.log()
