"""Scores of exactly 0: how probable they are from an evaluation that worked.

The normal model knows no floor: of a score whose prediction is 0.1 give or take 0.08 it expects one in ten below 0,
and calls none of these surprising. But a true share t of instances solved is never below 0, and to see none of n
solved has probability (1 - t)^n. So with the prediction of t cut to the range,

    P(0) = integral over [0, 1] of Normal(t | m, v) (1 - t)^n / P(0 < t < 1),

and for two benchmarks that are left out together the same integral over the square. Of more than two zeros the first
two are taken, which makes the probability too large rather than too small.
"""

from __future__ import annotations

import numpy as np
from scipy.special import ndtr

from factorlab.health import fraction_of_range
from factorlab.scores import ScoreTable

_NODES, _NODE_WEIGHTS = np.polynomial.laguerre.laggauss(24)
_EVEN, _EVEN_WEIGHTS = np.polynomial.legendre.leggauss(64)


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
    sd = np.sqrt(np.maximum(np.einsum("caa->ca", covariance), 1e-12))
    if len(n) == 1:
        return _ratio(_zeros(mean[:, 0], sd[:, 0], n[0]), _seen(mean[:, 0], sd[:, 0]))
    slope = covariance[:, 0, 1] / sd[:, 0] ** 2
    rest = np.sqrt(np.maximum(covariance[:, 1, 1] - slope * covariance[:, 0, 1], 1e-12))

    def second(t: np.ndarray) -> np.ndarray:
        return mean[:, 1] + slope * (t[:, None] - mean[:, 0])

    t, weights = _zero_nodes(n[0])
    both = _density(t, mean[:, 0], sd[:, 0]) * _zeros(second(t), rest, n[1])
    at, within = (_EVEN + 1) / 2, _EVEN_WEIGHTS / 2
    seen = _density(at, mean[:, 0], sd[:, 0]) * _seen(second(at), rest)
    return _ratio(weights @ both, within @ seen)


def _ratio(value: np.ndarray, seen: np.ndarray) -> np.ndarray:
    return np.minimum(value / np.maximum(seen, 1e-12), 1.0)


def _density(t: np.ndarray, mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """Normal density at every node, (node, case)."""
    return np.exp(-0.5 * ((t[:, None] - mean) / sd) ** 2) / (sd * np.sqrt(2 * np.pi))


def _seen(mean: np.ndarray, sd: np.ndarray) -> np.ndarray:
    """P(0 < t < 1)."""
    return ndtr((1 - mean) / sd) - ndtr(-mean / sd)


def _zero_nodes(n: float) -> tuple[np.ndarray, np.ndarray]:
    """Nodes and weights of integrals of f(t) (1 - t)^n: Gauss-Laguerre in x = (n + 1) t."""
    t = _NODES / (n + 1)
    inside = t < 1
    t = t[inside]
    return t, _NODE_WEIGHTS[inside] * np.exp(_NODES[inside]) * (1 - t) ** n / (n + 1)


def _zeros(mean: np.ndarray, sd: np.ndarray, n: float) -> np.ndarray:
    """Integral of Normal(t | mean, sd) (1 - t)^n over [0, 1], of the shape of `mean`."""
    t, weights = _zero_nodes(n)
    total = np.zeros(mean.shape)
    for node, weight in zip(t, weights, strict=True):
        total += weight * np.exp(-0.5 * ((node - mean) / sd) ** 2)
    return total / (sd * np.sqrt(2 * np.pi))
