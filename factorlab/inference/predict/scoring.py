"""Scoring: how good predictive distributions were, once the scores are known."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import binom, norm

from factorlab.inference.predict.calibration import TINY, conformal_factor

PIT_BINS = 10


class Scored(NamedTuple):
    """Predictions of cells beside what was there; every array is (cell,).

    Attributes
    ----------
    median, low, high : ndarray
        Equal-tailed interval.
    log_density : ndarray
        Log predictive density of the score.
    crps : ndarray
    pit : ndarray
        Predictive probability of a lower score, half of that of the same.
    """

    median: np.ndarray
    low: np.ndarray
    high: np.ndarray
    log_density: np.ndarray
    crps: np.ndarray
    pit: np.ndarray


def crps_of_samples(samples: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score from samples, E|X - y| - E|X - X'| / 2, (cell,); lower is better.

    The estimator is fair: its mean does not depend on the number of samples.

    Parameters
    ----------
    samples : ndarray, (sample, cell)
        At least two.
    y : ndarray, (cell,)

    References
    ----------
    Zamo & Naveau 2018, Mathematical Geosciences 50, 209-234, equation (PWM).
    """
    n = len(samples)
    x = np.sort(samples, axis=0)
    order = np.arange(n)[:, None]
    # Sum over pairs of |x_i - x_j| from order statistics: (2 i - n + 1) x_(i), i from 0.
    spread = ((2 * order - n + 1) * x).sum(axis=0) / (n * (n - 1))
    return np.asarray(np.abs(samples - y).mean(axis=0) - spread)


def crps_of_normal(mean: np.ndarray, sd: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Continuous ranked probability score of a normal, in closed form, (cell,).

    References
    ----------
    Gneiting & Raftery 2007, JASA 102(477), equation (5) of section 4.2.
    """
    z = (y - mean) / sd
    return np.asarray(sd * (z * (2 * norm.cdf(z) - 1) + 2 * norm.pdf(z) - 1 / np.sqrt(np.pi)))


def score_samples(samples: np.ndarray, log_density: np.ndarray, y: np.ndarray, level: float) -> Scored:
    """Scores of predictions that are samples, (sample, cell)."""
    tail = (1 - level) / 2
    low, median, high = np.quantile(samples, [tail, 0.5, 1 - tail], axis=0)
    pit = (samples < y).mean(axis=0) + 0.5 * (samples == y).mean(axis=0)
    return Scored(median, low, high, log_density, crps_of_samples(samples, y), pit)


def score_normal(mean: np.ndarray, sd: np.ndarray, y: np.ndarray, level: float) -> Scored:
    """Scores of predictions that are normal."""
    half = norm.ppf(0.5 + level / 2) * sd
    return Scored(
        mean, mean - half, mean + half, norm.logpdf(y, mean, sd), crps_of_normal(mean, sd, y),
        norm.cdf((y - mean) / sd),
    )  # fmt: skip


def cross_fit_factors(
    y: np.ndarray, median: np.ndarray, low: np.ndarray, high: np.ndarray, fold: np.ndarray, level: float
) -> np.ndarray:
    """Conformal factor of each cell's fold from the cells of all other folds, (cell,); NaN with one fold.

    As in `factorlab.inference.predict.calibration`: each side of an interval is multiplied by it.
    """
    half = np.where(y > median, high - median, median - low)
    r = np.abs(y - median) / np.maximum(half, TINY)
    out = np.full(len(y), np.nan)
    for f in np.unique(fold):
        others = r[fold != f]
        out[fold == f] = conformal_factor(others, level) if len(others) else np.nan
    return out


def summarise(cells: pd.DataFrame) -> dict[str, Any]:
    """Scores of one method on one scheme.

    Parameters
    ----------
    cells : pandas.DataFrame
        Columns as in `factorlab.inference.predict.validation.Validation`, in units of each benchmark.

    Returns
    -------
    dict
        ``n``, ``models``, errors, ``r2`` (1 less the squared error over that of the training means of the
        benchmarks), ``elpd`` (mean log density a cell) with its standard error clustered by model, ``crps``,
        coverage and median width of raw and recalibrated intervals.
    """
    error = np.abs(cells["score"] - cells["median"]) / cells["unit"]
    plain = (cells["score"] - cells["training_mean"]) / cells["unit"]
    by_model = cells.groupby("model", sort=False)["log_density"].sum()
    n = len(cells)
    spread = float(
        by_model.sub(cells["log_density"].mean() * cells.groupby("model", sort=False).size()).std()
    )
    known = cells["low"].notna()
    inside = (cells["score"] >= cells["low"]) & (cells["score"] <= cells["high"])
    raw = (cells["score"] >= cells["raw_low"]) & (cells["score"] <= cells["raw_high"])
    return {
        "n": n,
        "models": len(by_model),
        "median_error": float(error.median()),
        "mean_error": float(error.mean()),
        "rmse": float(np.sqrt((error**2).mean())),
        "r2": float(1 - (error**2).sum() / (plain**2).sum()),
        "elpd": float(cells["log_density"].mean()),
        "elpd_se": float(np.sqrt(len(by_model)) * spread / n),
        "crps": float(cells["crps"].mean()),
        "raw_coverage": float(raw.mean()),
        "coverage": float(inside[known].mean()) if known.any() else float("nan"),
        "raw_width": float(((cells["raw_high"] - cells["raw_low"]) / cells["unit"]).median()),
        "width": float(((cells["high"] - cells["low"]) / cells["unit"])[known].median()),
    }


def pit_histogram(pit: np.ndarray, bins: int = PIT_BINS) -> dict[str, list[float]]:
    """Counts of probability integral transforms in equal bins; even where predictions are calibrated.

    Returns
    -------
    dict
        ``edges`` (bins + 1), ``count`` (bins), and the central 95 % of a binomial count, ``low``, ``high``.
    """
    edges = np.linspace(0, 1, bins + 1)
    count, _ = np.histogram(np.clip(pit, 0, 1), edges)
    low, high = binom.interval(0.95, len(pit), 1 / bins)
    return {
        "edges": edges.tolist(),
        "count": count.astype(float).tolist(),
        "low": [float(low)] * bins,
        "high": [float(high)] * bins,
    }
