"""Rows that are seen with known chances, and the weights that undo it."""

import numpy as np
import pandas as pd


def biased(n: int = 3000, seed: int = 0, least: float = 0.0) -> pd.DataFrame:
    """Rows of a ~ N(0, 1) and b = a^2 / 2 + e / 2, seen the more often the larger a is, and what undoes it.

    `w` is one over the chance to be seen, `least` at least, and 0 for the first three rows. `v` is another
    column of weights.
    """
    rng = np.random.default_rng(seed)
    a, noise = rng.normal(size=(2, n))
    chance = (1 / (1 + np.exp(-1.5 * a))).clip(least)
    seen = rng.uniform(size=n) < chance
    a, noise, w = a[seen], noise[seen], 1 / chance[seen]
    w[:3] = 0
    b = a**2 / 2 + noise / 2
    return pd.DataFrame({"a": a, "b": b, "w": w, "v": rng.exponential(size=len(a))}).round(9)
