"""Outliers: scores, and models, that do not fit what everything else says of them.

A cell is predicted from the model's other scores, from its budgets and from its family, averaged over the draws
of a posterior; benchmarks that share items are left out together, for a failed evaluation often fails on both and
one of the two would vouch for the other. A model is predicted from its budgets and its family alone. The draws
have seen the score in question, so they are weighted by the inverse of its density (leaving it out of the
likelihood), smoothed by the Pareto method; where the weights are too uneven (k-hat above 0.7) they are not used,
and the p-value is then too large rather than too small: an outlier widens the noise that it is judged by.

The normal prediction has no floor, so a score of exactly 0 is judged by the probability that a working evaluation
gives exactly that (`factorlab.inference.floor`), and flagged where a failed evaluation, at the rate that
`factorlab.suspects` assumes, explains it better.

References
----------
Gelfand, Dey & Chang 1992, Bayesian Statistics 4 (cross-validation predictive densities by importance sampling);
Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25(72) (Pareto smoothed importance sampling);
Benjamini & Hochberg 1995, JRSS B 57 (false discovery rate).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import chi2

from factorlab.errors import InputError
from factorlab.inference.design import design_budgets
from factorlab.inference.floor import share_of_range, zero_cells, zero_probability
from factorlab.inference.inputs import table_cells
from factorlab.inference.left_out import kin
from factorlab.inference.left_out_cells import (
    LeftOutCells,
    leave_cells_out,
    mixture_quantile,
    mixture_tail,
)
from factorlab.inference.priors import Priors
from factorlab.inference.sampling import smooth_weights
from factorlab.inference.solution import FactorSolution
from factorlab.scores import ScoreTable
from factorlab.suspects import FAILURE_RATE

Leave = Literal["group", "cell"]

KHAT_GOAL = 0.7
"""Shape of the weights' tail above which they are not used."""

MOST_NUMBERS = 30_000_000
"""Cells times draws at most; of more draws evenly spaced ones are taken."""


@dataclass(frozen=True)
class Outliers:
    """What does not fit.

    Attributes
    ----------
    cells : pandas.DataFrame
        A row a score, the least probable first: ``model, benchmark, observed, predicted, lower, upper, level``
        (score units; mean and equal-tailed interval of the prediction), ``residual`` (observed less
        predicted, in standard deviations of the prediction, above 0 is better), ``direction`` ("above", "below"), ``p``
        (two-sided; of a score of exactly 0: that all zeros of its unit are 0, from a working
        evaluation), ``p_adjusted`` (Benjamini-Hochberg over all cells), ``flagged``, ``reason`` ("improbable":
        adjusted p-value below `fdr`; "zero": a failed evaluation explains it better; else empty), ``left_out``
        (the unit: benchmarks that were left out together, joined by "+"), ``khat``, ``weighted`` (whether the draws
        were).
    models : pandas.DataFrame
        A row a model, the least probable first: ``model, n`` (scores), ``distance`` (squared
        Mahalanobis distance of all its scores from what budgets and family say, posterior mean), ``p`` (chi-square
        with n degrees), ``p_adjusted``, ``flagged``, ``level`` (mean residual of its scores, standard
        deviations of a benchmark), ``p_level`` (two-sided, of that mean alone), ``direction``, ``khat``, ``weighted``.
    leave : {"group", "cell"}
    fdr : float
        Share of false ones among the flagged that is allowed.
    n_draws : int
        Draws that were used.
    notes : tuple of str
    """

    cells: pd.DataFrame
    models: pd.DataFrame
    leave: Leave
    fdr: float
    n_draws: int
    notes: tuple[str, ...]

    @property
    def flagged(self) -> pd.DataFrame:
        """The flagged cells."""
        return self.cells[self.cells["flagged"]]

    def to_dataframe(self) -> pd.DataFrame:
        """`cells`."""
        return self.cells

    def to_dict(self) -> dict[str, Any]:
        """Cells, models and notes, JSON-able but for NaN."""
        return {
            "leave": self.leave,
            "fdr": self.fdr,
            "n_draws": self.n_draws,
            "cells": self.cells.to_dict("records"),
            "models": self.models.to_dict("records"),
            "notes": list(self.notes),
        }


def find_outliers(
    table: ScoreTable,
    solution: FactorSolution,
    *,
    leave: Leave = "group",
    level: float = 0.94,
    fdr: float = 0.05,
    draws: int = 2000,
) -> Outliers:
    """Leave-one-out predictive p-values of every score and every model.

    Parameters
    ----------
    table : ScoreTable
        The table that was fitted.
    solution : FactorSolution
        Its posterior.
    leave : {"group", "cell"}
        Whether benchmarks that share items are left out together, or each score alone.
    level : float
        Probability of the intervals.
    fdr : float
        A score or model is flagged where its adjusted p-value is below this.
    draws : int
        Draws that are used at most, evenly spaced over all chains.

    Returns
    -------
    Outliers

    Raises
    ------
    InputError
        No posterior, a posterior of another table, an option out of range.
    """
    _check(table, solution, leave, level, fdr, draws)
    cells, groups = table_cells(table, pairs="pair_sd" in solution.draws)
    if "pair_sd" in solution.draws and len(groups) != solution.draws.sizes["pair"]:
        raise InputError(
            f"the posterior has {solution.draws.sizes['pair']} pair factors, table '{table.name}' declares "
            f"{len(groups)} groups that share items; give the table that was fitted"
        )
    design = design_budgets(table, Priors())
    families = kin(design.node, design.parent) if "root_sd" in solution.draws else None
    keep = np.unique(
        np.linspace(0, solution.n_draws - 1, min(draws, solution.n_draws, _most(table))).astype(int)
    )
    units = _units(table, leave)
    found = leave_cells_out(cells, raw_draws(solution, keep), families, units)
    names = tuple("+".join(table.benchmark_names[j] for j in unit) for unit in units)
    shared = cells.shared @ cells.member.T
    standing = _Standing(
        table, cells.observed.astype(bool), units, names, found, level, fdr, cells.variance, shared
    )
    cell_rows, model_rows = _cell_rows(standing), _model_rows(standing)
    notes = _notes(cell_rows, model_rows, len(keep))
    return Outliers(cell_rows, model_rows, leave, fdr, len(keep), notes)


def raw_draws(solution: FactorSolution, keep: np.ndarray) -> dict[str, np.ndarray]:
    """Draws on the sampler's axes, where abilities have unit variance given budgets and family.

    ``ability = (raw ability - center) @ turn``, so ``raw loading = loading @ turn'``, ``raw mean = mean - raw
    loading @ center`` and ``B' x = predictors @ slope @ turn^-1``.

    Parameters
    ----------
    solution : FactorSolution
    keep : ndarray of int
        Which draws, counted over all chains.

    Returns
    -------
    dict of str to ndarray, (draw, ...)
        The names of `factorlab.inference.left_out.NEEDED` that the posterior has.
    """
    turn, center = solution.stacked("turn")[keep], solution.stacked("center")[keep]
    loading = np.einsum("djk,drk->djr", solution.stacked("loading")[keep], turn)
    out = {
        "loading": loading,
        "mean": solution.stacked("mean")[keep] - np.einsum("djr,dr->dj", loading, center),
        "noise_sd": solution.stacked("noise_sd")[keep],
    }
    for name in ("pair_sd", "root_sd", "step_sd"):
        if name in solution.draws:
            out[name] = solution.stacked(name)[keep]
    if "slope" in solution.draws:
        oriented = solution.stacked("predictor_log10")[keep] @ solution.stacked("slope")[keep]
        out["ability_mean"] = oriented @ np.linalg.inv(turn)
    return out


def _check(
    table: ScoreTable, solution: FactorSolution, leave: str, level: float, fdr: float, draws: int
) -> None:
    if solution.kind != "posterior" or "turn" not in solution.draws:
        raise InputError(
            f"outliers need a posterior, this solution is {solution.method} ({solution.kind}); "
            "fit with --method bayes or all"
        )
    if solution.models != table.model_names or solution.benchmarks != table.benchmark_names:
        raise InputError(
            f"the posterior's models and benchmarks are not those of table '{table.name}'; give the table "
            "that was fitted"
        )
    if leave not in ("group", "cell"):
        raise InputError(f"leave is '{leave}'; give 'group' or 'cell'")
    for name, value in (("level", level), ("fdr", fdr)):
        if not 0 < value < 1:
            raise InputError(f"{name} is {value}; give a number between 0 and 1, such as 0.05")
    if draws < 1:
        raise InputError(f"draws is {draws}; give 1 or more")


def _most(table: ScoreTable) -> int:
    return max(100, MOST_NUMBERS // table.scores.size)


def _units(table: ScoreTable, leave: Leave) -> list[list[int]]:
    """Benchmarks that are left out together; the groups are the declared ones, with or without pair factors."""
    declared = table.benchmarks["shared_items_group"]
    keys = [
        f"group {g}" if leave == "group" and isinstance(g, str) else f"benchmark {j}"
        for j, g in enumerate(declared)
    ]
    return [[j for j, key in enumerate(keys) if key == name] for name in dict.fromkeys(keys)]


class _Standing(NamedTuple):
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


def _weights(log_density: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Weights (draw, case) for leaving each case out, even ones where they fail, and k-hat (case,)."""
    n_draws, n_cases = log_density.shape
    weights, khat = np.full((n_draws, n_cases), 1 / n_draws), np.full(n_cases, np.nan)
    for case in range(n_cases):
        smoothed, khat[case] = smooth_weights(-log_density[:, case])
        if khat[case] <= KHAT_GOAL:
            weights[:, case] = smoothed
    return weights, khat


def _cell_rows(standing: _Standing) -> pd.DataFrame:
    table, found, level = standing.table, standing.found, standing.level
    unit_of = np.empty(len(table.benchmark_names), dtype=int)
    for u, unit in enumerate(standing.units):
        unit_of[list(unit)] = u
    has_unit = np.isfinite(found.log_density[0])
    place = np.full(has_unit.shape, -1)
    place[has_unit] = np.arange(has_unit.sum())
    weights, khat = _weights(found.log_density[:, has_unit])
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
            "weighted": khat <= KHAT_GOAL,
        }
    )
    odds = FAILURE_RATE / (1 - FAILURE_RATE)
    return _flagged(rows, standing.fdr, np.nan_to_num(zero, nan=1.0) < odds)


def _zeros(standing: _Standing, weights: np.ndarray, place: np.ndarray) -> np.ndarray:
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


def _model_rows(standing: _Standing) -> pd.DataFrame:
    found = standing.found
    n = standing.observed.sum(axis=1)
    has = n > 0
    weights, khat = _weights(found.model_log_density[:, has])
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
            "weighted": khat <= KHAT_GOAL,
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


def _notes(cells: pd.DataFrame, models: pd.DataFrame, n_draws: int) -> tuple[str, ...]:
    notes = []
    for rows, noun in ((cells, "scores"), (models, "models")):
        bad = int((~rows["weighted"]).sum())
        if bad:
            notes.append(
                f"{bad} of {len(rows)} {noun} have k-hat above {KHAT_GOAL}: their p-values are of draws that have "
                "seen them, which makes them too large"
            )
    if n_draws < 400:
        notes.append(f"only {n_draws} draws: p-values are rough")
    return tuple(notes)
