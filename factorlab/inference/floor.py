"""Scores of exactly 0: how probable they are from an evaluation that worked.

The normal model knows no floor: of a score whose prediction is 0.1 give or take 0.08 it expects one in ten below 0,
and calls none of these surprising. But a true share t of instances solved is never below 0, and to see none of n
solved has probability (1 - t)^n. So with the prediction of t cut to the range,

    P(0) = integral over [0, 1] of Normal(t | m, v) (1 - t)^n / P(0 < t < 1).

Zeros of benchmarks that are left out together are taken one after the other, the prediction of each given that
those before it are 0 (their t at 1 / (n + 1), the mean of t given 0 of n under a flat prior).
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from factorlab.health import fraction_of_range
from factorlab.scores import ScoreTable

_NODES, _NODE_WEIGHTS = np.polynomial.laguerre.laggauss(24)


def zero_cells(table: ScoreTable) -> tuple[np.ndarray, np.ndarray]:
    """Which scores are exactly 0 at the floor of their range, and instances behind each.

    Returns
    -------
    zero : ndarray of bool, (model, benchmark)
        Only of benchmarks where higher is better, no score is below the floor and not all are 0.
    n : ndarray, (model, benchmark)
        Where unknown, one over the smallest positive share on the benchmark.
    """
    fraction = np.where(
        table.benchmarks["higher_is_better"].to_numpy(dtype=bool), fraction_of_range(table), np.nan
    )
    low = np.where(np.isfinite(fraction), fraction, np.inf).min(axis=0)
    smallest = np.where(fraction > 0, fraction, np.inf).min(axis=0)
    zero = (fraction == 0) & (table.scores == 0) & (low >= 0) & np.isfinite(smallest)
    known = table.data["n_instances"].values
    return zero, np.where(np.isnan(known), 1 / np.clip(smallest, 1e-3, 1), known)


def share_of_range(table: ScoreTable) -> tuple[np.ndarray, np.ndarray]:
    """Shift and factor that turn standardised scores into shares of the range, (benchmark,) each."""
    standard = table.standardised()
    fraction, z = fraction_of_range(table), standard.z
    spread = np.nanstd(fraction, axis=0) * standard.sign
    return np.nanmean(fraction - spread * z, axis=0), spread


def zero_probability(mean: np.ndarray, covariance: np.ndarray, n: np.ndarray) -> np.ndarray:
    """P(all scores are 0) for each prediction.

    Parameters
    ----------
    mean : ndarray, (case, cell)
        Of the shares of the range.
    covariance : ndarray, (case, cell, cell)
        Without the sampling error of the scores, which is in (1 - t)^n.
    n : ndarray, (cell,)
        Instances.

    Returns
    -------
    ndarray, (case,)
    """
    total = np.ones(len(mean))
    for j, instances in enumerate(n):
        m, v = mean[:, j], covariance[:, j, j]
        if j:
            before = np.linalg.solve(
                covariance[:, :j, :j],
                np.stack([1 / (n[:j] + 1) - mean[:, :j], covariance[:, :j, j]], axis=-1),
            )
            link = covariance[:, j, :j]
            m = m + (link * before[..., 0]).sum(axis=-1)
            v = v - (link * before[..., 1]).sum(axis=-1)
        total *= _one(m, np.sqrt(np.maximum(v, 1e-12)), float(instances))
    return total


def _one(mean: np.ndarray, sd: np.ndarray, n: float) -> np.ndarray:
    """P(0) of one score by Gauss-Laguerre quadrature in x = (n + 1) t."""
    t = _NODES / (n + 1)
    inside = t < 1
    t, weights = t[inside], _NODE_WEIGHTS[inside] * np.exp(_NODES[inside])
    density = np.exp(-0.5 * ((t[:, None] - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))
    seen = ndtr((1 - mean) / sd) - ndtr(-mean / sd)
    value = ((weights * (1 - t) ** n)[:, None] * density).sum(axis=0) / (n + 1)
    return np.minimum(value / np.maximum(seen, 1e-12), 1.0)
