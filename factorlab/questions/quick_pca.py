"""PCA of a table changed a little, many times at once: a benchmark less, noise added, models drawn again.

Rows are standardised once. Missing cells are filled once, by the EM of the full fit, so that a table with
missing cells costs no more than a full one; what refilling would change is left out.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from factorlab.inference.identify import match, take_factors
from factorlab.inference.moments import Missing, moments, usable_cells
from factorlab.scores import ScoreTable

_STACK_CELLS = 4_000_000  # numbers of one array held at once


class Rows(NamedTuple):
    """A table ready for quick fits.

    Attributes
    ----------
    z : ndarray, (model, benchmark)
        Standardised scores, higher is better; NaN for models that do not enter.
    z_se : ndarray, (model, benchmark)
        Their standard errors; 0 where unknown or where the cell was filled.
    used : ndarray of bool, (model,)
    """

    z: np.ndarray
    z_se: np.ndarray
    used: np.ndarray


class Components(NamedTuple):
    """Many fits, matched to one reference.

    Attributes
    ----------
    loading : ndarray, (fit, benchmark, factor)
        NaN for a benchmark that is left out.
    ability : ndarray, (fit, model, factor)
        Component scores, in no particular unit; NaN for models that do not enter.
    """

    loading: np.ndarray
    ability: np.ndarray


def standard_rows(table: ScoreTable, factors: int, missing: Missing) -> Rows:
    """Rows of a table, standardised and filled once.

    Raises
    ------
    InputError
        What `factorlab.inference.pca.fit_pca` refuses.
    """
    cells = usable_cells(table, missing, "pearson")
    parts = moments(cells, np.ones((1, len(cells.used))), missing, factors)
    error = table.se / parts.sd[0]
    seen = np.isfinite(table.scores) & np.isfinite(error)
    return Rows(
        np.where(cells.used[:, None], parts.filled[0], np.nan), np.where(seen, error, 0.0), cells.used
    )


def reweighted(rows: Rows, weights: np.ndarray, reference: np.ndarray) -> Components:
    """Components with models weighted, e.g. by how often a bootstrap drew them.

    Parameters
    ----------
    rows : Rows
    weights : ndarray, (fit, model)
        Not negative; every fit has two different models at least.
    reference : ndarray, (benchmark, factor)
        Loadings that order and signs follow.
    """
    z = rows.z[rows.used]
    parts = []
    for part in _parts(len(weights), rows):
        share = weights[part][:, rows.used]
        share = share / share.sum(axis=1, keepdims=True)
        centred = z - (share @ z)[:, None, :]
        covariance = np.swapaxes(centred * share[:, :, None], 1, 2) @ centred
        parts.append(_components(covariance, rows.z, reference))
    return _joined(parts)


def with_noise(rows: Rows, draws: int, reference: np.ndarray, seed: int) -> Components:
    """Components of the table with its own standard errors added to every score once more.

    Parameters
    ----------
    rows : Rows
    draws : int
    reference : ndarray, (benchmark, factor)
    seed : int
    """
    rng = np.random.default_rng(seed)
    parts = []
    for part in _parts(draws, rows):
        z = rows.z + rng.standard_normal((part.stop - part.start, *rows.z.shape)) * rows.z_se
        kept = z[:, rows.used]
        centred = kept - kept.mean(axis=1, keepdims=True)
        parts.append(_components(np.swapaxes(centred, 1, 2) @ centred / kept.shape[1], z, reference))
    return _joined(parts)


def without_each_benchmark(rows: Rows, reference: np.ndarray) -> Components:
    """Components of the other benchmarks, one fit a benchmark left out, in their order.

    Fewer factors than the reference come back when the other benchmarks do not have as many.

    Parameters
    ----------
    rows : Rows
    reference : ndarray, (benchmark, factor)
        Loadings of the full table; those of the benchmarks that stay are what is matched.
    """
    n = rows.z.shape[1]
    others = np.array([[j for j in range(n) if j != gone] for gone in range(n)])
    correlation = np.corrcoef(rows.z[rows.used], rowvar=False)
    parts = [
        _components(
            correlation[np.ix_(kept, kept)][None],
            rows.z[:, kept],
            reference[kept, : min(n - 1, reference.shape[1])],
        )
        for kept in others
    ]
    loading = np.full((n, n, parts[0].loading.shape[-1]), np.nan)
    for gone, kept in enumerate(others):
        loading[gone, kept] = parts[gone].loading[0]
    return Components(loading, np.concatenate([part.ability for part in parts]))


def budget_correlations(
    ability: np.ndarray, budget: np.ndarray, weights: np.ndarray | None = None
) -> np.ndarray:
    """Weighted Pearson correlation over the models whose budget and ability are known.

    Parameters
    ----------
    ability : ndarray, (fit, model, factor)
    budget : ndarray, (model,) or (fit, model)
        log10(N D_l), NaN where not published.
    weights : ndarray, (fit, model), optional
        Ones when not given.

    Returns
    -------
    ndarray, (fit, factor)
        NaN where fewer than 3 models count, or nothing varies.
    """
    fits = max(len(ability), len(budget) if budget.ndim == 2 else 1, 1 if weights is None else len(weights))
    x = np.broadcast_to(budget, (fits, ability.shape[1]))
    known = np.isfinite(x) & np.isfinite(ability).all(axis=2)
    w = known * (1.0 if weights is None else weights)
    few = (w > 0).sum(axis=1) < 3
    w = w / np.maximum(w.sum(axis=1, keepdims=True), 1e-300)
    a, b = np.where(known[..., None], ability, 0.0), np.where(known, x, 0.0)
    a = a - np.einsum("fm,fmk->fk", w, a)[:, None, :]
    b = b - np.einsum("fm,fm->f", w, b)[:, None]
    covariance = np.einsum("fm,fmk,fm->fk", w, a, b)
    spread = np.einsum("fm,fmk->fk", w, a**2) * np.einsum("fm,fm->f", w, b**2)[:, None]
    out = np.divide(covariance, np.sqrt(spread), out=np.full_like(covariance, np.nan), where=spread > 1e-24)
    return np.where(few[:, None], np.nan, out)


def _parts(fits: int, rows: Rows) -> list[slice]:
    """Fits worked through together, so that no array of them is large."""
    step = max(1, _STACK_CELLS // rows.z.size)
    return [slice(start, min(start + step, fits)) for start in range(0, fits, step)]


def _joined(parts: list[Components]) -> Components:
    return Components(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _components(covariance: np.ndarray, z: np.ndarray, reference: np.ndarray) -> Components:
    """Components of the correlation of each covariance (fit, benchmark, benchmark), matched."""
    factors = reference.shape[1]
    sd = np.sqrt(np.diagonal(covariance, axis1=1, axis2=2))
    sd = np.where(sd > 1e-12, sd, 1.0)  # a constant benchmark has no correlation with anything
    value, vector = np.linalg.eigh(covariance / (sd[:, :, None] * sd[:, None, :]))
    vector = vector[..., ::-1][..., :factors]
    loading = vector * np.sqrt(np.maximum(value[:, ::-1][:, None, :factors], 0.0))
    order, sign = match(loading, reference)
    ability = z @ take_factors(vector / sd[:, :, None], order, sign)
    return Components(take_factors(loading, order, sign), ability)
