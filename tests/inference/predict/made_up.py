"""Tables made by the prediction model's own formulas, with a known truth."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from factorlab.score_table import ScoreTable
from factorlab.scores import table_from_frames


class Made(NamedTuple):
    """A table, and what is hidden in it.

    Attributes
    ----------
    table : ScoreTable
        Every cell has its score.
    observed : ndarray of bool, (model, benchmark)
    """

    table: ScoreTable
    observed: np.ndarray


def make(
    models: int = 30, benchmarks: int = 10, hidden: float = 0.3, noise: float = 0.04, seed: int = 0
) -> Made:
    """Two factors, the first of which goes with size; floors at 0, ceilings at 0.95, Student noise with nu = 6."""
    rng = np.random.default_rng(seed)
    size = rng.normal(size=models)
    theta = np.column_stack([0.8 * size + 0.6 * rng.normal(size=models), rng.normal(size=models)])
    loading = np.column_stack([rng.uniform(0.6, 1.2, benchmarks), 0.4 * rng.normal(size=benchmarks)])
    eta = rng.normal(0, 0.7, benchmarks) + theta @ loading.T
    s = 1 / (1 + np.exp(-eta))
    sd = noise * (4 * s * (1 - s) + 0.01) ** 0.5
    y = np.clip(0.95 * s + sd * rng.standard_t(6, eta.shape), 0, 1)
    names = [f"m{i:02d}" for i in range(models)]
    columns = [f"{chr(97 + j)}-bench" for j in range(benchmarks)]
    table = table_from_frames(
        pd.DataFrame(y, columns=columns).assign(model=names),
        pd.DataFrame({"model": names, "params_b": 10 ** (1 + 0.5 * size)}),
        pd.DataFrame({"benchmark": columns, "min": 0.0, "max": 1.0}),
    )
    return Made(table, rng.random(y.shape) > hidden)
