"""Scores of exactly 0 that the model's other scores make improbable: failed evaluations, not failures.

Each zero cell is predicted from the model's scores on the other benchmarks by a regression that has not
seen it; a zero is suspect when a failed evaluation explains it better than a real zero.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import stats

FAILURE_RATE = 0.01  # of cells, before any is seen
FAILURE_RATE_AGAIN = 0.2  # of the other zeros of a model that has one failed evaluation already
FEWEST_MODELS = 8  # a benchmark scored on fewer gives no prediction
FEWEST_BENCHMARKS = 3
COMPONENTS = 4
QUANTILES = (np.arange(100) + 0.5) / 100


class ZeroCells(NamedTuple):
    """What the other scores say of each zero cell; every array is (model, benchmark).

    Attributes
    ----------
    suspect : ndarray of bool
    probability : ndarray
        Of a score of exactly 0 from a working evaluation; NaN where the cell is not 0 or not predictable.
    predicted : ndarray
        The score the other benchmarks predict, as a fraction of the range; NaN likewise.
    """

    suspect: np.ndarray
    probability: np.ndarray
    predicted: np.ndarray


def suspect_zeros(fraction: np.ndarray, n_instances: np.ndarray) -> ZeroCells:
    """Zeros that are more probably failed evaluations than real.

    With y = arcsin(sqrt(fraction)), principal components of the model's other (non-zero) benchmarks predict
    y by least squares on the other models, with Student t error; P(0) is the mean of (1 - p)^n over the
    predictive p. A zero is suspect when P(0) < r / (1 - r) for the failure rate r. Other zeros of
    a model with a suspect one no longer teach the regression what a real zero is, and are judged by the
    higher rate; this repeats until nothing changes.

    Parameters
    ----------
    fraction : ndarray, (model, benchmark)
        Score over its range, 0 to 1; NaN where missing. Columns with a value below 0 are not judged
        (their zero is no floor).
    n_instances : ndarray, (model, benchmark)
        NaN when unknown: then the smallest positive score of the benchmark counts as one instance.
    """
    zero = fraction == 0
    observed = np.isfinite(fraction)
    low = np.where(observed, fraction, np.inf).min(axis=0)
    high = np.where(observed, fraction, -np.inf).max(axis=0)
    judged = (low >= 0) & (high > 0)
    smallest = np.where(fraction > 0, fraction, np.inf).min(axis=0)
    n = np.where(np.isnan(n_instances), 1 / np.clip(smallest, 1e-3, 1), n_instances)
    y = np.where(judged, np.arcsin(np.sqrt(np.clip(fraction, 0, 1))), np.nan)
    suspect = np.zeros_like(zero)
    probability = np.full(zero.shape, np.nan)
    predicted = np.full(zero.shape, np.nan)
    while True:
        doubtful = suspect.any(axis=1, keepdims=True)
        teaching = np.where(zero & doubtful, np.nan, y)
        for i in np.flatnonzero((zero & judged).any(axis=1)):
            targets = np.flatnonzero(zero[i] & judged)
            sources = np.flatnonzero(judged & ~zero[i] & observed[i])
            guesses = _predict(teaching, int(i), targets, sources, n)
            for j, (p_zero, score) in zip(targets, guesses, strict=True):
                probability[i, j], predicted[i, j] = p_zero, score
        rate = np.where(doubtful, FAILURE_RATE_AGAIN, FAILURE_RATE)
        found = suspect | (np.nan_to_num(probability, nan=1.0) < rate / (1 - rate))
        if (found == suspect).all():
            return ZeroCells(suspect, probability, predicted)
        suspect = found


def _predict(
    y: np.ndarray, i: int, targets: np.ndarray, sources: np.ndarray, n: np.ndarray
) -> list[tuple[float, float]]:
    """(P(0), predicted fraction) of model ``i`` on each target, from its scores on the sources."""
    nothing = [(np.nan, np.nan)] * len(targets)
    others = np.delete(y[:, sources], i, axis=0)
    observed = np.isfinite(others)
    count = observed.sum(axis=0)
    centre = np.where(observed, others, 0).sum(axis=0) / np.maximum(count, 1)
    spread = np.sqrt((np.where(observed, others - centre, 0) ** 2).sum(axis=0) / np.maximum(count, 1))
    usable = (spread > 1e-12) & (count >= FEWEST_BENCHMARKS)
    if usable.sum() < FEWEST_BENCHMARKS:
        return nothing
    z = np.where(observed, others - centre, 0)[:, usable] / spread[usable]  # missing: the mean
    own = ((y[i, sources] - centre) / np.where(usable, spread, 1))[usable]
    _, axes = np.linalg.eigh(z.T @ z)
    axes = axes[:, ::-1]
    results = []
    for j in targets:
        target = np.delete(y[:, j], i)
        rows = np.isfinite(target)
        k = min(COMPONENTS, int(rows.sum() // 6), int(usable.sum()))
        if rows.sum() < FEWEST_MODELS:
            results.append((np.nan, np.nan))
            continue
        design = np.column_stack([np.ones(rows.sum()), z[rows] @ axes[:, :k]])
        new = np.concatenate([[1.0], own @ axes[:, :k]])
        draws = _student_quantiles(design, target[rows], new)
        p = np.sin(np.clip(draws, 0, np.pi / 2)) ** 2
        results.append((float(np.mean((1 - p) ** n[i, j])), float(np.median(p))))
    return results


def _student_quantiles(design: np.ndarray, target: np.ndarray, new: np.ndarray) -> np.ndarray:
    """Quantiles of the least-squares predictive distribution at one new row: (100,)."""
    inverse = np.linalg.pinv(design.T @ design)
    beta = inverse @ design.T @ target
    freedom = len(target) - design.shape[1]
    variance = ((target - design @ beta) ** 2).sum() / freedom * (1 + new @ inverse @ new)
    return new @ beta + np.sqrt(variance) * stats.t.ppf(QUANTILES, freedom)
