"""Tables of every kind of column whose likelihoods are known: what a model of a table should recover."""

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import stats
from scipy.special import expit

Floats = NDArray[np.float64]

#: The share of the rows that a run learns from, and draws of a run that are compared.
LEARNT, DRAWN_ROWS = 0.88, 4000
#: Of the columns `kind` and `member` of "mixed": the probability of each pair.
SHARES = {("low", False): 0.3, ("low", True): 0.1, ("middle", False): 0.1, ("middle", True): 0.25,
          ("high", False): 0.05, ("high", True): 0.2}  # fmt: skip

#: Of the column `size` of "mixed", by `kind`; it is one more for members.
CENTRES = {"low": -2.0, "middle": 0.0, "high": 2.0}


@dataclass(frozen=True)
class KnownTable:
    """Rows that can be drawn, their log-likelihoods in nats, and what no draw may be.

    `support` holds the ends of columns, both of which a value may be. `atoms` holds values with a probability
    of their own, and those probabilities.
    """

    sample: Callable[[int, np.random.Generator], pd.DataFrame]
    log_prob: Callable[[pd.DataFrame], Floats]
    support: dict[str, tuple[float, float]] = field(default_factory=dict)
    atoms: dict[str, tuple[float, float]] = field(default_factory=dict)


def _zeros(n: int, rng: np.random.Generator) -> pd.DataFrame:
    x = rng.normal(size=n)
    dry = rng.random(n) < expit(x)
    return pd.DataFrame({"x": x, "rain": np.where(dry, 0.0, np.exp(0.5 * x + 0.4 * rng.normal(size=n)))})


def _log_zeros(rows: pd.DataFrame) -> Floats:
    x, rain = rows["x"].to_numpy(), rows["rain"].to_numpy()
    wet = stats.lognorm.logpdf(np.where(rain == 0, 1, rain), 0.4, scale=np.exp(0.5 * x))
    given = np.where(rain == 0, np.log(expit(x)), np.log(expit(-x)) + wet)
    return np.asarray(stats.norm.logpdf(x) + given)


def _censored(n: int, rng: np.random.Generator) -> pd.DataFrame:
    x = rng.normal(size=n)
    return pd.DataFrame({"x": x, "time": np.minimum(60 + 10 * x + 30 * rng.normal(size=n), 100)})


def _log_censored(rows: pd.DataFrame) -> Floats:
    x, time = rows["x"].to_numpy(), rows["time"].to_numpy()
    centre = 60 + 10 * x
    given = np.where(time < 100, stats.norm.logpdf(time, centre, 30), stats.norm.logsf(100, centre, 30))
    return np.asarray(stats.norm.logpdf(x) + given)


def _bounded(n: int, rng: np.random.Generator) -> pd.DataFrame:
    wait = rng.exponential(size=n)
    return pd.DataFrame({"wait": wait, "share": rng.beta(1 + wait, 2)})


def _log_bounded(rows: pd.DataFrame) -> Floats:
    wait = rows["wait"].to_numpy()
    return np.asarray(stats.expon.logpdf(wait) + stats.beta.logpdf(rows["share"], 1 + wait, 2))


def _mixed(n: int, rng: np.random.Generator) -> pd.DataFrame:
    cells = rng.choice(len(SHARES), size=n, p=list(SHARES.values()))
    kinds, members = zip(*SHARES, strict=True)
    rows = pd.DataFrame({"kind": np.array(kinds)[cells], "member": np.array(members)[cells]})
    rows["size"] = _centres(rows) + rng.normal(size=n)
    rows["price"] = np.exp(1 + 0.3 * rows["size"] + 0.5 * rng.normal(size=n))
    return rows


def _log_mixed(rows: pd.DataFrame) -> Floats:
    mass = np.log([SHARES[pair] for pair in zip(rows["kind"], rows["member"], strict=True)])
    size = rows["size"].to_numpy()
    density = stats.norm.logpdf(size, _centres(rows))
    density += stats.lognorm.logpdf(rows["price"], 0.5, scale=np.exp(1 + 0.3 * size))
    return np.asarray(mass + density)


def _centres(rows: pd.DataFrame) -> Floats:
    centres: Floats = np.array([CENTRES[kind] for kind in rows["kind"]])
    return np.asarray(centres + rows["member"].to_numpy(float))


def _periodic(n: int, rng: np.random.Generator) -> pd.DataFrame:
    first = rng.random(n) < 0.6
    angle = np.where(first, rng.vonmises(0, 2, n), rng.vonmises(2.5, 8, n)) % (2 * np.pi)
    return pd.DataFrame({"direction": np.degrees(angle), "speed": np.sin(angle) + 0.3 * rng.normal(size=n)})


def _log_periodic(rows: pd.DataFrame) -> Floats:
    angle = np.radians(rows["direction"].to_numpy())
    density = 0.6 * stats.vonmises.pdf(angle, 2) + 0.4 * stats.vonmises.pdf(angle, 8, loc=2.5)
    return np.asarray(np.log(density) + stats.norm.logpdf(rows["speed"], np.sin(angle), 0.3)
                      + np.log(np.pi / 180))  # fmt: skip


TABLES = {
    "zero-inflated": KnownTable(_zeros, _log_zeros, {"rain": (0, np.inf)}, {"rain": (0, 0.5)}),
    "censored": KnownTable(
        _censored,
        _log_censored,
        {"time": (-np.inf, 100)},
        {"time": (100, float(stats.norm.sf(40 / 1000**0.5)))},
    ),
    "bounded": KnownTable(_bounded, _log_bounded, {"wait": (0, np.inf), "share": (0, 1)}),
    "mixed": KnownTable(_mixed, _log_mixed, {"price": (0, np.inf)}),
    "periodic": KnownTable(_periodic, _log_periodic, {"direction": (0, 360)}),
}
