"""Abilities of models that a solution was not fitted to, from its parameters and their scores."""

from __future__ import annotations

import numpy as np

from factorlab.inference.solution import FactorSolution
from factorlab.scores import ScoreTable


def project(table: ScoreTable, solution: FactorSolution, counts: np.ndarray) -> np.ndarray:
    """Abilities of every model of a table on the axes of a solution.

    Parameters
    ----------
    table : ScoreTable
        With the benchmarks of the solution.
    solution : FactorSolution
        Fitted to some of the models; means over its draws are used.
    counts : ndarray of int, (model,)
        How often each model of the table entered the fit; those that did keep their abilities.

    Returns
    -------
    ndarray, (model, factor)
        In the solution's unit, whose standard deviation over the fitted models is 1. Other models: of
        PCA the scores times the eigenvectors, missing cells replaced by what the components and the
        model's other scores say; of a factor model the regression scores (Thomson 1951) of the
        observed cells, ``Phi^-1 = I + Lambda' Psi^-1 Lambda``, with the known standard errors in Psi
        for a posterior. NaN for a model without a score.
    """
    loading = solution.stacked("loading").mean(axis=0)
    noise = solution.stacked("noise_sd").mean(axis=0)
    centre = solution.stacked("mean").mean(axis=0)
    location, scale = (solution.constants[name].values for name in ("location", "scale"))
    z = table.standardised().sign * (table.scores - location) / scale - centre
    variance = np.broadcast_to(np.maximum(noise**2, 1e-6), z.shape)
    if solution.method == "bayes":
        se = np.where(np.isfinite(table.se), table.se, 0.0) / scale
        variance = variance + se**2
    score = regression_scores(z, loading, variance)
    if solution.method == "pca":
        filled = np.where(np.isfinite(z), z, score @ loading.T)
        score = filled @ loading
    rows = np.flatnonzero(counts)
    known = solution.ability_mean().loc[[table.model_names[i] for i in rows]].to_numpy()
    if solution.method != "bayes":  # the fitted models' scores were given mean 0 and sd 1
        whole = np.isfinite(known).all(axis=1)
        among, weight = score[rows][whole], counts[rows][whole, None] / counts[rows][whole].sum()
        mean = (weight * among).sum(axis=0)
        score = (score - mean) / np.sqrt((weight * (among - mean) ** 2).sum(axis=0))
    score[rows] = known
    return score


def regression_scores(z: np.ndarray, loading: np.ndarray, variance: np.ndarray) -> np.ndarray:
    """``(I + Lambda' Psi_i^-1 Lambda)^-1 Lambda' Psi_i^-1 z_i`` over the observed cells of each row.

    Parameters
    ----------
    z : ndarray, (model, benchmark)
        NaN where missing.
    loading : ndarray, (benchmark, factor)
    variance : ndarray, (model, benchmark)
        Of what the factors leave.

    Returns
    -------
    ndarray, (model, factor)
        NaN for a row without an observed cell.
    """
    observed = np.isfinite(z)
    weight = observed / variance
    precision = np.eye(loading.shape[1]) + np.einsum("mj,jk,jl->mkl", weight, loading, loading)
    right = np.einsum("mj,jk->mk", weight * np.where(observed, z, 0.0), loading)
    out = np.linalg.solve(precision, right[..., None])[..., 0]
    out[~observed.any(axis=1)] = np.nan
    return out
