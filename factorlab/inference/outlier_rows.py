"""Rows of outliers: predictions of all draws, weighted for leaving a score out, as p-values and intervals."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2

from factorlab.inference.floor import share_of_range, zero_cells, zero_probability
from factorlab.inference.left_out_cells import LeftOutCells, mixture_quantile, mixture_tail
from factorlab.inference.sampling import smooth_weights
from factorlab.scores import ScoreTable
from factorlab.suspects import FAILURE_RATE

KHAT_GOAL = 0.7
"""Shape of the weights' tail above which they are not used."""


class Standing(NamedTuple):
    """All that the rows are made of; known sampling variances, own and in common with the unit, come last."""

    table: ScoreTable
    observed: np.ndarray
    units: Sequence[Sequence[int]]
    names: tuple[str, ...]
    found: LeftOutCells
    level: float
    fdr: float
    error: np.ndarray
    shared_error: np.ndarray


def weigh(log_density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (draw, case) for leaving each case out, even ones where they fail, and k-hat (case,)."""
    n_draws, n_cases = log_density.shape
    weights, khat = np.full((n_draws, n_cases), 1 / n_draws), np.full(n_cases, np.nan)
    for case in range(n_cases):
        smoothed, khat[case] = smooth_weights(-log_density[:, case])
        if not khat[case] > KHAT_GOAL:  # NaN: all draws weigh the same
            weights[:, case] = smoothed
    return weights, khat


def cell_rows(standing: Standing) -> pd.DataFrame:
    """``cells`` of `factorlab.inference.outliers.Outliers`."""
    table, found, level = standing.table, standing.found, standing.level
    unit_of = np.empty(len(table.benchmark_names), dtype=int)
    for u, unit in enumerate(standing.units):
        unit_of[list(unit)] = u
    has_unit = np.isfinite(found.log_density[0])
    place = np.full(has_unit.shape, -1)
    place[has_unit] = np.arange(has_unit.sum())
    weights, khat = weigh(found.log_density[:, has_unit])
    model, benchmark = np.nonzero(standing.observed)
    case = place[model, unit_of[benchmark]]
    zero = _zeros(standing, weights, place)[model, benchmark]
    weights, khat = weights[:, case], khat[case]
    mean, sd = (array[:, model, benchmark] for array in (found.mean, np.sqrt(found.variance)))
    standard = table.standardised()
    z = standard.z[model, benchmark]
    low, high = mixture_tail(weights, mean, sd, z)
    centre = (weights * mean).sum(axis=0)
    spread = np.sqrt((weights * (sd**2 + (mean - centre) ** 2)).sum(axis=0))
    ends = [mixture_quantile(weights, mean, sd, p) for p in ((1 - level) / 2, (1 + level) / 2)]
    unit = (standard.sign * standard.scale)[benchmark]
    predicted, one, other = (
        _inside(standard.location[benchmark] + unit * at, table, benchmark) for at in (centre, *ends)
    )
    rows = pd.DataFrame(
        {
            "model": np.array(table.model_names, dtype=object)[model],
            "benchmark": np.array(table.benchmark_names, dtype=object)[benchmark],
            "observed": table.scores[model, benchmark],
            "predicted": predicted,
            "lower": np.minimum(one, other),
            "upper": np.maximum(one, other),
            "level": level,
            "residual": (z - centre) / spread,
            "direction": np.where(z >= centre, "above", "below"),
            "p": np.where(np.isnan(zero), np.minimum(1.0, 2 * np.minimum(low, high)), zero),
            "left_out": np.array(standing.names, dtype=object)[unit_of[benchmark]],
            "khat": khat,
            "weighted": ~(khat > KHAT_GOAL),
        }
    )
    odds = FAILURE_RATE / (1 - FAILURE_RATE)
    return _flagged(rows, standing.fdr, np.nan_to_num(zero, nan=1.0) < odds)


def _zeros(standing: Standing, weights: np.ndarray, place: np.ndarray) -> np.ndarray:
    """P(all zeros of a unit are 0) for each of them, (model, benchmark); NaN for other scores."""
    table, found = standing.table, standing.found
    zero, n = zero_cells(table)
    shift, factor = share_of_range(table)
    out = np.full(zero.shape, np.nan)
    for u, unit in enumerate(standing.units):
        for i in np.flatnonzero(zero[:, list(unit)].any(axis=1)):
            at = np.flatnonzero(zero[i, list(unit)])[:2]
            j = np.asarray(unit)[at]
            error = np.diag(standing.error[i, j]) + standing.shared_error[i, j[0]]
            covariance = (found.covariance[u][:, i][:, at][:, :, at] - error) * np.outer(factor[j], factor[j])
            mean = shift[j] + factor[j] * found.mean[:, i, j]
            together = [k for k in unit if zero[i, k]]
            out[i, together] = weights[:, place[i, u]] @ zero_probability(mean, covariance, n[i, j])
    return out


def _inside(score: np.ndarray, table: ScoreTable, benchmark: np.ndarray) -> np.ndarray:
    """Scores moved to the declared range: the normal model does not know it."""
    ends = table.benchmarks[["min", "max"]].to_numpy(dtype=float)[benchmark]
    return np.minimum(np.fmax(score, ends[:, 0]), np.where(np.isfinite(ends[:, 1]), ends[:, 1], np.inf))


def model_rows(standing: Standing) -> pd.DataFrame:
    """``models`` of `factorlab.inference.outliers.Outliers`."""
    found = standing.found
    n = standing.observed.sum(axis=1)
    has = n > 0
    weights, khat = weigh(found.model_log_density[:, has])
    distance, level = found.distance[:, has], found.level[:, has]
    low, high = mixture_tail(weights, level, np.sqrt(found.level_variance[:, has]), np.zeros(has.sum()))
    mean_level = (weights * level).sum(axis=0)
    rows = pd.DataFrame(
        {
            "model": np.array(standing.table.model_names, dtype=object)[has],
            "n": n[has],
            "distance": (weights * distance).sum(axis=0),
            "p": (weights * chi2.sf(distance, n[has])).sum(axis=0),
            "level": mean_level,
            "p_level": np.minimum(1.0, 2 * np.minimum(low, high)),
            "direction": np.where(mean_level >= 0, "above", "below"),
            "khat": khat,
            "weighted": ~(khat > KHAT_GOAL),
        }
    )
    return _flagged(rows, standing.fdr)


def _flagged(rows: pd.DataFrame, fdr: float, zero: np.ndarray | None = None) -> pd.DataFrame:
    """Adjusted p-values and flags beside p, the least probable row first."""
    from statsmodels.stats.multitest import multipletests

    adjusted = multipletests(rows["p"], alpha=fdr, method="fdr_bh")[1] if len(rows) else np.zeros(0)
    place = list(rows.columns).index("p") + 1
    rows.insert(place, "p_adjusted", adjusted)
    rows.insert(place + 1, "flagged", adjusted < fdr)
    if zero is not None:
        rows["flagged"] |= zero
        rows.insert(place + 2, "reason", np.where(zero, "zero", np.where(adjusted < fdr, "improbable", "")))
    return rows.sort_values("p", kind="stable", ignore_index=True)
