"""Principal components of a score table, and how much they move when models are left out.

Columns are standardised and the correlation matrix ``R = U diag(l) U'`` is decomposed. Unit-norm
eigenvectors U are the study's loadings; a `FactorSolution` holds ``U sqrt(l)``, the correlation of
benchmark and component, so that PCA, maximum likelihood and the posterior are on one scale
(`FactorSolution.unit_loadings` gives U back).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr

from factorlab.errors import InputError
from factorlab.inference.identify import fix_signs, match, take_factors
from factorlab.inference.moments import Cells, Correlation, Missing, moments, usable_cells
from factorlab.inference.provenance import describe
from factorlab.inference.resamples import Scheme, draw_resamples
from factorlab.inference.solution import FactorSolution, label_draws
from factorlab.scores import ScoreTable

# Numbers held at once by a stack of resamples; larger stacks are worked through in parts.
_STACK_CELLS = 4_000_000
# EM of a resample may stop earlier than that of the full table: its spread is far larger.
_RESAMPLE_TOLERANCE = 1e-4


def fit_pca(
    table: ScoreTable,
    factors: int = 4,
    *,
    missing: Missing = "complete",
    correlation: Correlation = "pearson",
) -> FactorSolution:
    """Principal components of the standardised scores.

    Parameters
    ----------
    table : ScoreTable
    factors : int
        Components kept.
    missing : {"complete", "em"}
        What to do with missing cells: use only models that have every benchmark (the others get
        no ability), or estimate the cells by EM. Which one, and for whom, stands in ``notes``.
    correlation : {"pearson", "spearman"}
        Of scores, or of their ranks over models; abilities are then components of the ranks.

    Returns
    -------
    FactorSolution
        One draw, ``method="pca"``, ``kind="point"``. ``extra`` has ``explained_variance_ratio``
        and ``eigenvalues`` of all components, ``missing``, ``correlation``, ``n_models``.

    Raises
    ------
    InputError
        More components than the table can give, too few models, a benchmark without spread.

    Notes
    -----
    Signs: PC1 has a positive sum; a component with a declared anchor benchmark has it positive;
    any other has its largest entry positive.
    """
    cells = usable_cells(table, missing, correlation)
    _check_factors(table, cells, factors)
    parts = moments(cells, np.ones((1, len(cells.used))), missing, factors)
    rows = parts.filled[0]
    if np.isfinite(cells.value[cells.used]).all():
        eigenvalue, vector = _components_of_rows(rows[cells.used])
    else:
        eigenvalue, vector = _components_of_correlations(parts.correlation[0])
    vector = vector[:, :factors] * fix_signs(
        vector[:, :factors], table.benchmark_names, declared_anchors(table)
    )
    loading = vector * np.sqrt(eigenvalue[:factors])
    notes = [*table.notes, *cells.notes]
    if not parts.converged:
        notes.append("EM for the missing cells had not settled at its limit of steps.")
    if correlation == "spearman":
        notes.append("Components are those of the ranks of models on each benchmark (Spearman).")
    location, scale = _location_scale(table, cells, parts.mean[0], parts.sd[0], correlation)
    return FactorSolution(
        draws=_draws(loading[None], unit_ability(rows @ vector, cells.used)[None], table),
        constants=constants(table, location, scale),
        method="pca",
        kind="point",
        provenance=describe(
            table, None, {"factors": factors, "missing": missing, "correlation": correlation}
        ),
        notes=tuple(notes),
        extra={
            "explained_variance_ratio": (eigenvalue / len(table.benchmark_names)).tolist(),
            "eigenvalues": eigenvalue.tolist(),
            "missing": missing,
            "correlation": correlation,
            "n_models": int(cells.used.sum()),
        },
    )


def resample_pca(
    table: ScoreTable,
    factors: int = 4,
    *,
    scheme: Scheme = "leave-one-model-out",
    draws: int = 500,
    seed: int = 0,
    missing: Missing = "complete",
) -> FactorSolution:
    """Components of the table with models left out or drawn again, matched to the full fit.

    Parameters
    ----------
    table : ScoreTable
    factors : int
    scheme : {"leave-one-model-out", "leave-one-lineage-out", "bootstrap", "kfold"}
        One draw for each model left out; for each family of base models left out; `draws` samples
        of the models with replacement; or for each of `draws` folds of models left out.
    draws, seed : int
        Of the bootstrap and of the folds.
    missing : {"complete", "em"}

    Returns
    -------
    FactorSolution
        ``kind="resample"``; order and signs of each draw are those nearest to `fit_pca`. Every
        model has an ability in every draw: its scores projected on the draw's components, then
        centred and scaled over all models. ``extra`` has ``scheme``, ``left_out`` (for each draw
        the names of the models left out) and ``left_out_lineage`` (their family, or None).

    Raises
    ------
    InputError
        Unknown scheme, one lineage only, or what `fit_pca` refuses.
    """
    full = fit_pca(table, factors, missing=missing)
    cells = usable_cells(table, missing, "pearson")
    resamples = draw_resamples(table, cells.used, scheme, draws, seed)
    weights = resamples.counts.astype(float)
    parts = _resampled_components(cells, weights, missing, factors, full.stacked("loading")[0])
    notes = [*full.notes, *_resample_notes(parts, len(weights))]
    names = np.asarray(table.model_names, dtype=object)
    out = [names[cells.used & (w == 0)].tolist() for w in weights[parts.kept]]
    return FactorSolution(
        draws=_draws(parts.loading, parts.ability, table),
        constants=full.constants,
        method="pca",
        kind="resample",
        provenance=describe(
            table,
            seed if scheme in ("bootstrap", "kfold") else None,
            {"factors": factors, "missing": missing, "scheme": scheme, "draws": draws},
        ),
        notes=tuple(notes),
        extra={
            **full.extra,
            "scheme": scheme,
            "left_out": out,
            "left_out_lineage": [f for f, keep in zip(resamples.lineages, parts.kept, strict=True) if keep],
        },
    )


def benchmark_correlations(
    table: ScoreTable, method: Correlation = "pearson", min_models: int = 3
) -> pd.DataFrame:
    """Correlation of each pair of benchmarks over the models that have both.

    Scores of a lower-is-better benchmark are turned first.

    Parameters
    ----------
    table : ScoreTable
    method : {"pearson", "spearman"}
    min_models : int
        Pairs with fewer models in common are NaN.

    Returns
    -------
    pandas.DataFrame, (benchmark, benchmark)
    """
    if method not in ("pearson", "spearman"):
        raise InputError(f"correlation '{method}' is unknown; give 'pearson' or 'spearman'")
    frame = pd.DataFrame(
        table.scores * table.standardised().sign, index=table.model_names, columns=table.benchmark_names
    )
    return frame.corr(method=method, min_periods=min_models)


def declared_anchors(table: ScoreTable) -> dict[int, str]:
    """Index of a factor, from 0, to the benchmark whose ``anchor_factor`` names it (from 1)."""
    column = pd.to_numeric(table.benchmarks["anchor_factor"], errors="coerce").dropna()
    return {int(number) - 1: str(name) for name, number in column.items()}


def unit_ability(score: np.ndarray, used: np.ndarray) -> np.ndarray:
    """Component scores with mean 0 and ddof 0 standard deviation 1 over the models that enter.

    Parameters
    ----------
    score : ndarray, (..., model, factor)
    used : ndarray of bool, (model,)
    """
    among = score[..., used, :]
    sd = among.std(axis=-2, keepdims=True)
    return (score - among.mean(axis=-2, keepdims=True)) / np.where(sd > 0, sd, 1.0)


def constants(table: ScoreTable, location: np.ndarray, scale: np.ndarray) -> xr.Dataset:
    """The ``constants`` of a `FactorSolution` on columns centred and scaled this way.

    Parameters
    ----------
    table : ScoreTable
    location, scale : ndarray, (benchmark,)
        In score units.
    """
    z = table.standardised().sign * (table.scores - location) / scale
    return xr.Dataset(
        {
            "location": ("benchmark", location),
            "scale": ("benchmark", scale),
            "z": (("model", "benchmark"), z),
            "z_se": (("model", "benchmark"), table.se / scale),
        },
        coords={
            "benchmark": np.asarray(table.benchmark_names, dtype=object),
            "model": np.asarray(table.model_names, dtype=object),
        },
    )


class _Resampled(NamedTuple):
    loading: np.ndarray  # (draw, benchmark, factor)
    ability: np.ndarray  # (draw, model, factor)
    kept: np.ndarray  # (resample,) of bool: a draw in which some benchmark is constant is not kept
    converged: bool


def _resampled_components(
    cells: Cells, weights: np.ndarray, missing: Missing, factors: int, reference: np.ndarray
) -> _Resampled:
    """Components of every weighting, matched to the reference loading (benchmark, factor)."""
    step = max(1, _STACK_CELLS // cells.value.size)
    loadings, abilities, kept, converged = [], [], [], True
    for start in range(0, len(weights), step):
        parts = moments(cells, weights[start : start + step], missing, factors, _RESAMPLE_TOLERANCE)
        good = (parts.sd > 1e-12 * cells.scale).all(axis=1)
        value, vector = _components_of_correlations(parts.correlation[good])
        vector, value = vector[..., :factors], value[..., None, :factors]
        order, sign = match(vector * np.sqrt(value), reference)
        ability = unit_ability(parts.filled[good] @ vector, cells.used)
        loadings.append(take_factors(vector * np.sqrt(value), order, sign))
        abilities.append(take_factors(ability, order, sign))
        kept.append(good)
        converged &= parts.converged
    return _Resampled(np.concatenate(loadings), np.concatenate(abilities), np.concatenate(kept), converged)


def _resample_notes(parts: _Resampled, n_resamples: int) -> list[str]:
    notes = []
    if not parts.kept.all():
        notes.append(
            f"{int((~parts.kept).sum())} of {n_resamples} resamples were left out: a benchmark had one "
            "and the same score for all models drawn."
        )
    if not parts.converged:
        notes.append("EM for the missing cells had not settled in every resample.")
    return notes


def _components_of_rows(z: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (component,) and eigenvectors (benchmark, component) of standardised rows."""
    _, singular, components = np.linalg.svd(z - z.mean(axis=0), full_matrices=False)
    return singular**2 / len(z), components.T


def _components_of_correlations(correlation: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (..., component) and eigenvectors (..., benchmark, component), largest first."""
    values, vectors = np.linalg.eigh(correlation)
    return np.maximum(values[..., ::-1], 0.0), vectors[..., ::-1]


def _location_scale(
    table: ScoreTable, cells: Cells, mean: np.ndarray, sd: np.ndarray, correlation: Correlation
) -> tuple[np.ndarray, np.ndarray]:
    """Centre and scale of the columns in score units: EM's own where it ran, the scores' for ranks."""
    if correlation == "spearman":
        return cells.location, cells.scale
    return mean * table.standardised().sign, sd


def _check_factors(table: ScoreTable, cells: Cells, factors: int) -> None:
    most = min(int(cells.used.sum()) - 1, len(table.benchmark_names))
    if not 1 <= factors <= most:
        raise InputError(
            f"{factors} factors asked of {int(cells.used.sum())} models and {len(table.benchmark_names)} "
            f"benchmarks; give 1 to {most}"
        )


def _draws(loading: np.ndarray, ability: np.ndarray, table: ScoreTable) -> Any:
    """Labelled draws of one chain; noise is what the components leave of each unit variance."""
    noise_sd = np.sqrt(np.maximum(1 - (loading**2).sum(axis=-1), 0.0))
    return label_draws(
        loading[None],
        ability[None],
        noise_sd[None],
        np.zeros_like(noise_sd)[None],
        table.model_names,
        table.benchmark_names,
    )
