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

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.design import design_budgets
from factorlab.inference.inputs import table_cells
from factorlab.inference.left_out import kin
from factorlab.inference.left_out_cells import leave_cells_out
from factorlab.inference.outlier_rows import KHAT_GOAL, Standing, cell_rows, model_rows
from factorlab.inference.priors import Priors
from factorlab.inference.solution import FactorSolution
from factorlab.scores import ScoreTable

Leave = Literal["group", "cell"]

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
    standing = Standing(
        table, cells.observed.astype(bool), units, names, found, level, fdr, cells.variance, shared
    )
    rows, models = cell_rows(standing), model_rows(standing)
    return Outliers(rows, models, leave, fdr, len(keep), _notes(rows, models, len(keep)))


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
