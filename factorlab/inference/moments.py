"""Means, standard deviations and correlations of a score table, with missing cells told aloud.

PCA and maximum-likelihood factor analysis start here. Everything is weighted by model and done
for many weightings at once: a full fit is one row of ones, leave-one-out has a zero in each row,
a bootstrap has counts.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.stats import rankdata
from threadpoolctl import threadpool_limits

from factorlab.errors import InputError
from factorlab.scores import ScoreTable

Missing = Literal["complete", "em"]
Correlation = Literal["pearson", "spearman"]


class Cells(NamedTuple):
    """The numbers a correlation is taken of.

    Attributes
    ----------
    value : ndarray, (model, benchmark)
        Scores, turned so that higher is better; for Spearman their ranks. NaN where missing.
    used : ndarray of bool, (model,)
        Models that enter.
    location, scale : ndarray, (benchmark,)
        Mean and ddof 0 standard deviation of the scores of the models that enter, score units.
    notes : tuple of str
        Which models were left out, or that cells were estimated.
    """

    value: np.ndarray
    used: np.ndarray
    location: np.ndarray
    scale: np.ndarray
    notes: tuple[str, ...]


class Moments(NamedTuple):
    """Weighted moments, one row a weighting.

    Attributes
    ----------
    mean, sd : ndarray, (draw, benchmark)
        In the units of `Cells.value`; ddof 0.
    correlation : ndarray, (draw, benchmark, benchmark)
    filled : ndarray, (draw, model, benchmark)
        Values standardised by mean and sd; missing cells by their expectation, or NaN for the
        models of a complete-case fit that are not complete.
    converged : bool
        False when EM stopped at its limit of steps.
    """

    mean: np.ndarray
    sd: np.ndarray
    correlation: np.ndarray
    filled: np.ndarray
    converged: bool


def usable_cells(table: ScoreTable, missing: Missing, correlation: Correlation) -> Cells:
    """Choose the models that enter, and turn scores to one direction.

    Parameters
    ----------
    table : ScoreTable
    missing : {"complete", "em"}
        Leave models with a missing cell out, or keep every model that has a score.
    correlation : {"pearson", "spearman"}

    Raises
    ------
    InputError
        When an option is unknown, fewer than three models remain, or a benchmark does not vary.
    """
    if missing not in ("complete", "em"):
        raise InputError(f"missing '{missing}' is unknown; give 'complete' or 'em'")
    if correlation not in ("pearson", "spearman"):
        raise InputError(f"correlation '{correlation}' is unknown; give 'pearson' or 'spearman'")
    scores = table.scores
    observed = np.isfinite(scores)
    used = observed.all(axis=1) if missing == "complete" else observed.any(axis=1)
    if used.sum() < 3:
        cure = " or choose missing='em'" if missing == "complete" and observed.any(axis=1).sum() >= 3 else ""
        raise InputError(
            f"table '{table.name}' has {int(used.sum())} models with "
            f"{'every' if missing == 'complete' else 'any'} benchmark scored; at least 3 are needed: "
            f"drop the benchmarks with missing cells{cure}"
        )
    location, scale = np.nanmean(scores[used], axis=0), np.nanstd(scores[used], axis=0)
    _refuse_flat(table, scale, used)
    value = scores * table.standardised().sign
    if correlation == "spearman":
        value = np.where(used[:, None], value, np.nan)
        value = rankdata(value, axis=0, nan_policy="omit")
    return Cells(value, used, location, scale, _missing_notes(table, observed, used, missing))


def moments(
    cells: Cells, weights: np.ndarray, missing: Missing, factors: int, tolerance: float = 1e-5
) -> Moments:
    """Weighted mean, standard deviation, correlation; missing cells by EM where asked.

    Parameters
    ----------
    cells : Cells
    weights : ndarray, (draw, model)
        Not negative; those of models that do not enter are ignored.
    missing : {"complete", "em"}
    factors : int
        Components of the model that EM fills cells from.
    tolerance : float
        EM ends when no standardised covariance moves by more.
    """
    weights = weights * cells.used
    weights = weights / weights.sum(axis=1, keepdims=True)
    if missing == "complete" or np.isfinite(cells.value[cells.used]).all():
        value = np.where(cells.used[:, None], cells.value, 0.0)
        mean = weights @ value
        centred = value - mean[:, None, :]
        covariance = np.swapaxes(centred * weights[:, :, None], 1, 2) @ centred
        observed_value, converged = cells.value[None] - mean[:, None, :], True
    else:
        # Matrices this small are much slower on several threads when the machine is busy.
        with threadpool_limits(limits=1, user_api="blas"):
            mean, covariance, observed_value, converged = _em(cells.value, weights, factors, tolerance)
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    safe = np.where(sd > 0, sd, 1.0)
    correlation = covariance / (safe[:, :, None] * safe[:, None, :])
    return Moments(mean, sd, correlation, observed_value / safe[:, None, :], converged)


def _em(
    value: np.ndarray, weights: np.ndarray, factors: int, tolerance: float, max_steps: int = 1000
) -> tuple[np.ndarray, np.ndarray, np.ndarray, bool]:
    """EM of probabilistic PCA with cells missing at random (Tipping & Bishop 1999, section 3).

    ``z_i ~ Normal(mu, W W' + s2 I)`` on columns scaled by their observed standard deviation. The
    expected covariance S of the completed rows gives W and s2 in closed form, so with no missing
    cell the first step is the answer of PCA.

    Returns
    -------
    mean : ndarray, (draw, benchmark)
    covariance : ndarray, (draw, benchmark, benchmark)
    centred : ndarray, (draw, model, benchmark)
        Completed values less the mean.
    converged : bool
    """
    seen = np.isfinite(value)
    unit = np.where(np.nanstd(value, axis=0) > 0, np.nanstd(value, axis=0), 1.0)
    start = np.nanmean(value, axis=0)
    z = np.where(seen, (value - start) / unit, 0.0)
    gone = (~seen).astype(float)
    n_draws, n_benchmarks = len(weights), value.shape[1]
    rank = min(factors, n_benchmarks - 1)
    mean = np.zeros((n_draws, n_benchmarks))
    extra = np.einsum("bi,ij->bj", weights, gone)
    covariance = np.swapaxes(z * weights[:, :, None], 1, 2) @ z + extra[:, :, None] * np.eye(n_benchmarks)
    filled = np.broadcast_to(z, (n_draws, *z.shape)).copy()
    active = np.arange(n_draws)  # draws that have not settled yet
    for _ in range(max_steps):
        loading, noise = _ppca(covariance[active], rank)
        rows, posterior = _expect(z, seen, mean[active], loading, noise)
        filled[active] = rows
        mean[active] = np.einsum("bi,bij->bj", weights[active], rows)
        centred = rows - mean[active][:, None, :]
        updated = np.swapaxes(centred * weights[active][:, :, None], 1, 2) @ centred
        updated += _unseen_covariance(gone, weights[active], loading, noise, posterior)
        step = np.max(np.abs(updated - covariance[active]), axis=(1, 2))
        covariance[active] = updated
        active = active[step >= tolerance]
        if not len(active):
            break
    centred = (filled - mean[:, None, :]) * unit
    return mean * unit + start, covariance * np.outer(unit, unit), centred, not len(active)


def _ppca(covariance: np.ndarray, rank: int) -> tuple[np.ndarray, np.ndarray]:
    """W (draw, benchmark, factor) and s2 (draw,) of probabilistic PCA from a covariance."""
    values, vectors = np.linalg.eigh(covariance)
    noise = np.maximum(values[:, :-rank].mean(axis=1), 1e-6)
    return vectors[:, :, -rank:] * np.sqrt(
        np.maximum(values[:, None, -rank:] - noise[:, None, None], 0)
    ), noise


def _expect(
    z: np.ndarray, seen: np.ndarray, mean: np.ndarray, loading: np.ndarray, noise: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Expected complete rows (draw, model, benchmark) and s2 (W_o' W_o + s2 I)^-1 (draw, model, K, K)."""
    rank = loading.shape[-1]
    product = loading[:, :, :, None] * loading[:, :, None, :]
    gram = np.einsum("ij,bjkl->bikl", seen.astype(float), product)
    inner = np.linalg.inv(gram + noise[:, None, None, None] * np.eye(rank))
    residual = np.where(seen, z - mean[:, None, :], 0.0)
    score = np.einsum("bikl,bil->bik", inner, residual @ loading)
    fitted = mean[:, None, :] + score @ np.swapaxes(loading, 1, 2)
    return np.where(seen, z, fitted), inner * noise[:, None, None, None]


def _unseen_covariance(
    gone: np.ndarray, weights: np.ndarray, loading: np.ndarray, noise: np.ndarray, posterior: np.ndarray
) -> np.ndarray:
    """Weighted conditional covariance of the missing cells, (draw, benchmark, benchmark)."""
    rank = loading.shape[-1]
    total = np.einsum("bi,ij->bj", weights, gone)[:, :, None] * np.eye(gone.shape[1]) * noise[:, None, None]
    for k in range(rank):
        for m in range(rank):
            share = (weights * posterior[:, :, k, m])[:, :, None] * gone
            total += (np.swapaxes(share, 1, 2) @ gone) * (loading[:, :, k, None] * loading[:, None, :, m])
    return total


def _refuse_flat(table: ScoreTable, scale: np.ndarray, used: np.ndarray) -> None:
    flat = [name for name, sd in zip(table.benchmark_names, scale, strict=True) if not sd > 0]
    if flat:
        raise InputError(
            f"benchmark '{flat[0]}' has one and the same score for all {int(used.sum())} models that enter; "
            f"a correlation needs spread: leave it out with drop=['{flat[0]}'] (--drop '{flat[0]}')"
        )


def _missing_notes(
    table: ScoreTable, observed: np.ndarray, used: np.ndarray, missing: Missing
) -> tuple[str, ...]:
    """What was done about missing cells, in a sentence; nothing when there are none."""
    if observed.all():
        return ()
    share = 100 * (1 - observed.mean())
    out = [name for name, keep in zip(table.model_names, used, strict=True) if not keep]
    left = f" Left out: {', '.join(out)}." if out else ""
    if missing == "complete":
        return (
            f"Complete cases: {int(used.sum())} of {len(used)} models have every benchmark "
            f"({share:.1f} % of cells are missing).{left}",
        )
    return (
        f"{int((~observed).sum())} missing cells ({share:.1f} %) were estimated by EM from the "
        f"components themselves; nothing was written into the table.{left}",
    )
