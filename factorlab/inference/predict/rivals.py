"""Rivals: plain predictions that a new method has to be better than, each with a normal around it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from factorlab.errors import InputError
from factorlab.inference.choose import table_cells
from factorlab.inference.mode import fit_mode, predict_cells
from factorlab.inference.moments import moments, usable_cells
from factorlab.inference.predict.calibration import draw_splits
from factorlab.inference.predict.predictors import read_predictors
from factorlab.inference.predict.schemes import masked
from factorlab.score_table import ScoreTable

MEANS, PCA, GAUSSIAN = "benchmark mean + model mean", "PCA + log-linear", "Gaussian factors"


class Guess(NamedTuple):
    """Mean and standard deviation of every cell, (model, benchmark), in the benchmarks' own units."""

    mean: np.ndarray
    sd: np.ndarray


def gaussian(table: ScoreTable, factors: int) -> Guess:
    """The Gaussian factor model without budgets at its posterior mode (`factorlab.inference.mode`).

    A model without scores gets the means of the benchmarks, and their spread.
    """
    standard = table.standardised()
    cells = table_cells(table)
    mode = fit_mode(cells, _bounded(factors, table))
    variance = np.where(np.isfinite(standard.z_se), standard.z_se, np.nan)
    usual = np.nan_to_num(np.nanmedian(_at_least_one(variance), axis=0))
    own = np.where(np.isfinite(variance), variance, usual) ** 2
    mean, spread = predict_cells(cells, mode, own)
    return Guess(standard.sign * mean * standard.scale + standard.location, np.sqrt(spread) * standard.scale)


def pca(table: ScoreTable, factors: int) -> Guess:
    """Cells completed by principal components (EM); of models without scores by a regression on budgets.

    Components of the completed rows are regressed on log size and log tokens (ordinary least squares), as
    observational scaling laws do. Spreads: of completed cells, the error of a fifth of the cells, hidden once
    more; of the regression, that of its residuals.

    References
    ----------
    Ruan, Maddison & Hashimoto 2024, Observational scaling laws, section 3; Tipping & Bishop 1999 (EM).
    """
    done = _complete(table, factors)
    design = _design(table)
    used = np.isfinite(table.scores).any(axis=1)
    slope, *_ = np.linalg.lstsq(design[used], done.score[used], rcond=None)
    by_budget = design @ slope @ done.vector.T
    sign = table.standardised().sign
    seen = np.isfinite(table.scores)
    observed = (sign * table.scores - done.mean) / done.sd
    freedom = np.sqrt(used.sum() / max(used.sum() - design.shape[1], 1))
    far = freedom * _residual_sd(observed - by_budget, seen)
    guess = np.where(used[:, None], done.filled, by_budget)
    spread = np.where(used[:, None], _completion_error(table, factors), far)
    return Guess(sign * (guess * done.sd + done.mean), spread * done.sd)


class _Completed(NamedTuple):
    mean: np.ndarray  # (benchmark,), of scores turned so that higher is better
    sd: np.ndarray  # (benchmark,)
    filled: np.ndarray  # (model, benchmark), standardised
    vector: np.ndarray  # (benchmark, factor)
    score: np.ndarray  # (model, factor)


def _complete(table: ScoreTable, factors: int) -> _Completed:
    k = _bounded(factors, table)
    cells = usable_cells(table, "em", "pearson")
    parts = moments(cells, np.ones((1, len(cells.used))), "em", k)
    vector = np.linalg.eigh(parts.correlation[0])[1][:, ::-1][:, :k]
    filled = parts.filled[0]
    return _Completed(parts.mean[0], parts.sd[0], filled, vector, filled @ vector)


def _completion_error(table: ScoreTable, factors: int) -> float:
    """Root mean square error of seen cells that are hidden once more, in standard deviations."""
    hidden = draw_splits(np.isfinite(table.scores), 1, seed=0)[0].hidden
    done = _complete(masked(table, hidden), factors)
    truth = (table.standardised().sign * table.scores - done.mean) / done.sd
    return float(np.sqrt(np.mean((truth - done.filled)[hidden] ** 2)))


def means(table: ScoreTable) -> Guess:
    """The mean of the benchmark plus that of the model on standardised scores."""
    standard = table.standardised()
    seen = np.isfinite(standard.z)
    z = np.nan_to_num(standard.z)
    level = z.sum(axis=1) / np.maximum(seen.sum(axis=1), 1)
    guess = np.broadcast_to(level[:, None], z.shape)
    scored = seen.any(axis=1)
    spread = np.where(scored[:, None], _residual_sd(z - guess, seen), 1.0)
    return Guess(standard.sign * guess * standard.scale + standard.location, spread * standard.scale)


def rivals(factors: int) -> dict[str, Callable[[ScoreTable], Guess]]:
    """The rivals by name."""
    return {
        GAUSSIAN: lambda table: gaussian(table, factors),
        PCA: lambda table: pca(table, factors),
        MEANS: means,
    }


def guess_cells(table: ScoreTable, name: str, factors: int) -> Guess | None:
    """What a rival says of every cell; None where the table is too small for it."""
    try:
        return rivals(factors)[name](table)
    except InputError:
        return None


def _bounded(factors: int, table: ScoreTable) -> int:
    seen = np.isfinite(table.scores)
    return max(1, min(factors, int(seen.any(axis=1).sum()) - 2, int(seen.any(axis=0).sum()) - 1))


def _at_least_one(values: np.ndarray) -> np.ndarray:
    """Values with columns that have none set to 0, so that their median is defined."""
    return np.where(np.isfinite(values).any(axis=0), values, 0.0)


def _design(table: ScoreTable) -> np.ndarray:
    """Intercept and standardised predictors; an unknown one is at its mean."""
    x = read_predictors(table)
    return np.column_stack([np.ones(len(x.x)), np.where(x.known, x.x, 0.0)])


def _residual_sd(residual: np.ndarray, seen: np.ndarray) -> np.ndarray:
    """Root mean square of what is seen, (benchmark,)."""
    square = np.where(seen, np.nan_to_num(residual), 0.0) ** 2
    return np.sqrt(np.maximum(square.sum(axis=0) / np.maximum(seen.sum(axis=0), 1), 1e-6))
