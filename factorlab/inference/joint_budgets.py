"""Associations of abilities with training budgets, read off the joint posterior.

Abilities and token counts that carry error are the draws' own, so every correlation has its
posterior. Three forms answer three questions:

* ``at_hand``: correlation over the models whose budget is published;
* ``population``: correlation among models of new families with budgets spread like those;
* ``partial``: correlation within families, given the number of parameters.
"""

from __future__ import annotations

from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import rankdata

from factorlab.errors import InputError
from factorlab.inference.budgets import (
    SLOPE_UNIT,
    BudgetRegression,
    Predictors,
    left_out,
    published_budgets,
    two_step,
)
from factorlab.inference.convergence import ESS_GOAL, RHAT_GOAL
from factorlab.inference.mixing import convergence
from factorlab.inference.solution import FactorSolution
from factorlab.lineage import build_lineage
from factorlab.scores import ScoreTable

FORMS = ("at_hand", "spearman", "all_models", "population", "partial")

BILLIONS = 18.0
"""log10 of a billion parameters times a billion tokens."""


def fit_budgets(
    table: ScoreTable, solution: FactorSolution, *, level: float = 0.94, x: Predictors = "product"
) -> BudgetRegression:
    """Associations of abilities with budgets: joint where the solution is a posterior that regressed
    on budgets, in two steps otherwise.

    Parameters
    ----------
    table : ScoreTable
    solution : FactorSolution
    level : float
    x : {"product", "separate"}
        Predictors of the two-step slopes; a posterior has the ones it was fitted with.

    Returns
    -------
    BudgetRegression

    Raises
    ------
    InputError
        No budget in the models table, unknown option, a solution of other models.
    """
    if solution.kind == "posterior" and "slope" in solution.draws:
        return joint(table, solution, level=level)
    return two_step(table, solution, level=level, x=x)


class Spread(NamedTuple):
    """Draws that the correlations are computed from; draws first.

    Attributes
    ----------
    ability : ndarray, (draw, model, factor)
    budget : ndarray, (draw, model)
        log10(N D_l), -inf where a model has no tokens of the language.
    floored : ndarray, (draw, model)
        log10(N (D_l + d0)).
    published : ndarray of bool, (model,)
    """

    ability: np.ndarray
    budget: np.ndarray
    floored: np.ndarray
    published: np.ndarray


def joint(table: ScoreTable, solution: FactorSolution, *, level: float = 0.94) -> BudgetRegression:
    """Correlations, slopes and within-lineage contrasts of a joint posterior.

    Parameters
    ----------
    table : ScoreTable
        The table that was fitted.
    solution : FactorSolution
        A posterior of `factorlab.inference.bayes.fit_bayes` with budgets.
    level : float
        Probability of the equal-tailed intervals.

    Returns
    -------
    BudgetRegression
        ``table`` has a row per factor, budget and form: ``at_hand`` (Pearson, models with a published
        budget), ``spearman``, ``all_models`` (unknown counts latent, zero counts as d0),
        ``population``, ``partial``, and ``difference`` (at hand, budget "ja - en"); its further
        columns ``prob_positive, rhat, ess_bulk, ess_tail``. ``contrasts`` has a row per continually
        pre-trained model, base and factor.

    Raises
    ------
    InputError
        A solution without slopes, or of other models.
    """
    if "slope" not in solution.draws:
        raise InputError("this solution has no slopes; fit it with budgets (--budget separate)")
    if list(solution.models) != list(table.model_names):
        raise InputError(
            f"the solution's models are not those of table '{table.name}'; give the table that was fitted"
        )
    shape = (solution.draws.sizes["chain"], solution.draws.sizes["draw"])
    spreads = budget_spreads(table, solution)
    rho = {(budget, form): values for budget, form, values in _all_rho(table, solution, spreads)}
    for a, b in combinations([name for name in spreads if name != "total" and (name, "at_hand") in rho], 2):
        rho[f"{b} - {a}", "difference"] = rho[b, "at_hand"] - rho[a, "at_hand"]
    count = {budget: int(spread.published.sum()) for budget, spread in spreads.items()}
    keys = pd.DataFrame(
        [
            {"factor": factor, "budget": budget, "form": form, "n": _n(budget, form, count, table)}
            for budget, form in rho
            for factor in solution.factors
        ]
    )
    result = _described(keys, np.concatenate(list(rho.values()), axis=1), shape, level)
    return BudgetRegression(
        method="joint",
        table=result,
        slopes=_slopes(solution, level),
        left_out=left_out(table, solution),
        draws=_labelled(rho, shape, solution),
        notes=tuple(_notes(result, solution, spreads)),
        contrasts=contrasts(table, solution, level),
    )


def budget_spreads(table: ScoreTable, solution: FactorSolution) -> dict[str, Spread]:
    """Draws of abilities and log budgets, by budget (a language or "total")."""
    ability = solution.stacked("ability")
    size = solution.stacked("log10_params")
    tokens = solution.stacked("log10_tokens")
    published = published_budgets(table)
    out = {}
    for l, language in enumerate(map(str, solution.draws["language"].values)):
        budget = size + tokens[:, :, l] + BILLIONS
        floored = budget
        if f"token_floor_b_{language}" in solution.draws:
            floor = solution.stacked(f"token_floor_b_{language}")[:, None]
            floored = size + np.log10(10 ** tokens[:, :, l] + floor) + BILLIONS
        known = np.isfinite(published[language].to_numpy())  # size and count both published
        out[language] = Spread(ability, budget, floored, known)
    if "total" in published and np.isfinite(published["total"]).sum() > 2:
        total = np.broadcast_to(published["total"].to_numpy(), size.shape)
        out["total"] = Spread(ability, total, total, np.isfinite(published["total"].to_numpy()))
    return out


def _all_rho(table: ScoreTable, solution: FactorSolution, spreads: dict[str, Spread]):
    """Yield (budget, form, (draw, factor)) of every form that the budget has."""
    family = build_lineage(table.models).family_of(table.model_names)
    size = solution.stacked("log10_params")
    for budget, spread in spreads.items():
        known = spread.published
        if known.sum() < 3:
            continue
        ability, x = spread.ability[:, known], spread.budget[:, known]
        yield budget, "at_hand", correlate(ability, x)
        yield budget, "spearman", correlate(ranks(ability), ranks(x))
        if budget == "total":
            continue
        if np.isfinite(spread.floored).all():
            yield budget, "all_models", correlate(spread.ability, spread.floored)
        yield budget, "population", population_rho(solution, budget, known)
        within = within_families(ability, x, size[:, known], family[known])
        if within is not None:
            yield budget, "partial", within


def correlate(ability: np.ndarray, x: np.ndarray) -> np.ndarray:
    """Pearson correlation over models: (draw, model, factor) with (draw, model) -> (draw, factor)."""
    a = ability - ability.mean(axis=1, keepdims=True)
    b = x - x.mean(axis=1, keepdims=True)
    cov = np.einsum("dmk,dm->dk", a, b)
    with np.errstate(invalid="ignore", divide="ignore"):
        return cov / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1)[:, None])


def ranks(values: np.ndarray) -> np.ndarray:
    """Ranks over models, (draw, model, ...) -> the same; ties share their mean rank."""
    order = np.argsort(values, axis=1)
    ordered = np.take_along_axis(values, order, axis=1)
    if not (ordered[:, 1:] > ordered[:, :-1]).all():
        return rankdata(values, axis=1)
    out = np.empty(values.shape)
    place = np.arange(1.0, values.shape[1] + 1).reshape(1, -1, *[1] * (values.ndim - 2))
    np.put_along_axis(out, order, place, axis=1)
    return out


def population_rho(solution: FactorSolution, language: str, published: np.ndarray) -> np.ndarray:
    """Correlation that the regression implies for models of new families, (draw, factor).

    With Sigma the covariance of the predictors over the published models, c the predictors that add
    up to log10(N D_l), B the slopes and V = turn' turn (1 + root_sd^2) the covariance of what
    budgets leave unexplained,

        rho_k = (B' Sigma c)_k / sqrt( (B' Sigma B + V)_kk  c' Sigma c ).

    A budget is taken as it enters the model, with d0 added where the language has one.
    """
    names = [str(p) for p in solution.draws["predictor"].values]
    slope = solution.stacked("slope")
    x = solution.stacked("predictor_log10")[:, published]
    pick = np.array(
        [float(name in ("log10 N", f"log10 D_{language}", f"log10 N*D_{language}")) for name in names]
    )
    centred = x - x.mean(axis=1, keepdims=True)
    sigma = np.einsum("dmp,dmq->dpq", centred, centred) / x.shape[1]
    turn = solution.stacked("turn")
    unexplained = (turn**2).sum(axis=1)
    if "root_sd" in solution.draws:
        unexplained = unexplained * (1 + solution.stacked("root_sd")[:, None] ** 2)
    cov = np.einsum("dpk,dpq,q->dk", slope, sigma, pick)
    explained = np.einsum("dpk,dpq,dqk->dk", slope, sigma, slope)
    spread = np.einsum("p,dpq,q->d", pick, sigma, pick)
    return cov / np.sqrt((explained + unexplained) * spread[:, None])


def within_families(
    ability: np.ndarray, x: np.ndarray, size: np.ndarray, family: np.ndarray
) -> np.ndarray | None:
    """Partial correlation given log10 N and the family, (draw, factor); None where nothing is left.

    Parameters
    ----------
    ability : ndarray, (draw, model, factor)
    x : ndarray, (draw, model)
        log10(N D_l); given log10 N it varies with log10 D_l only.
    size : ndarray, (draw, model)
        log10 N, its mean over draws is used.
    family : ndarray of str, (model,)
    """
    codes, names = pd.factorize(family)
    given = np.column_stack([np.eye(len(names))[codes], size.mean(axis=0)])
    if len(codes) - np.linalg.matrix_rank(given) < 3:
        return None
    left = np.eye(len(codes)) - given @ np.linalg.pinv(given)
    return correlate(np.einsum("mn,dnk->dmk", left, ability), x @ left)


def contrasts(table: ScoreTable, solution: FactorSolution, level: float) -> pd.DataFrame:
    """Ability of each continually pre-trained model less that of its nearest scored base.

    Returns
    -------
    pandas.DataFrame
        Columns ``model, base_model, factor, mean, median, lower, upper, level, prob_positive``, then
        ``log10_tokens_<language>`` with the mean change of log10 D.
    """
    lineage = build_lineage(table.models)
    ability = solution.stacked("ability")
    tokens = solution.stacked("log10_tokens").mean(axis=0)
    languages = [str(l) for l in solution.draws["language"].values]
    tail = (1 - level) / 2
    rows = []
    for i, name in enumerate(table.model_names):
        base = next((n for n in lineage.ancestors(i) if n < len(table.model_names)), None)
        if base is None:
            continue
        with np.errstate(invalid="ignore"):
            change = dict(
                zip((f"log10_tokens_{l}" for l in languages), tokens[i] - tokens[base], strict=True)
            )
        for k, factor in enumerate(solution.factors):
            d = ability[:, i, k] - ability[:, base, k]
            lower, median, upper = np.quantile(d, [tail, 0.5, 1 - tail])
            rows.append(
                {
                    "model": name, "base_model": table.model_names[base], "factor": factor, "mean": d.mean(),
                    "median": median, "lower": lower, "upper": upper, "level": level,
                    "prob_positive": (d > 0).mean(), **change,
                }
            )  # fmt: skip
    columns = ["model", "base_model", "factor", "mean", "median", "lower", "upper", "level", "prob_positive"]
    return pd.DataFrame(rows, columns=[*columns, *(f"log10_tokens_{l}" for l in languages)])


def _n(budget: str, form: str, count: dict[str, int], table: ScoreTable) -> int:
    if form == "all_models":
        return len(table.model_names)
    if form == "difference":
        return min(count[name] for name in budget.split(" - "))
    return count[budget]


def _described(keys: pd.DataFrame, values: np.ndarray, shape: tuple[int, int], level: float) -> pd.DataFrame:
    """What the draws (draw, quantity) say of each correlation, a row a quantity as in `keys`."""
    tail = (1 - level) / 2
    lower, median, upper = np.quantile(values, [tail, 0.5, 1 - tail], axis=0)
    measured = convergence(values.reshape(*shape, -1))
    columns = ["factor", "budget", "form", "mean", "median", "lower", "upper", "level", "n", "prob_positive"]
    return keys.assign(
        mean=np.ascontiguousarray(values.T).mean(axis=1), median=median, lower=lower, upper=upper,
        level=level, prob_positive=(values > 0).mean(axis=0),
        rhat=measured.rhat, ess_bulk=measured.ess_bulk, ess_tail=measured.ess_tail,
    )[[*columns, "rhat", "ess_bulk", "ess_tail"]]  # fmt: skip


def _slopes(solution: FactorSolution, level: float) -> pd.DataFrame:
    part = solution.summary("slope", level).rename(columns={"mean": "estimate"})
    positive = (solution.stacked("slope") > 0).mean(axis=0)
    return part.assign(prob_positive=positive.ravel(), unit=SLOPE_UNIT)[
        [
            "factor",
            "predictor",
            "estimate",
            "median",
            "sd",
            "lower",
            "upper",
            "level",
            "prob_positive",
            "unit",
        ]
    ]


def _labelled(
    rho: dict[tuple[str, str], np.ndarray], shape: tuple[int, int], solution: FactorSolution
) -> xr.Dataset:
    """Draws of every form as ``rho_<form>`` (chain, draw, factor, budget); ``rho`` is the one at hand."""
    out: dict[str, tuple[tuple[str, ...], np.ndarray]] = {}
    coords: dict[str, object] = {"factor": solution.draws["factor"]}
    for form in (*FORMS, "difference"):
        budgets = [budget for budget, f in rho if f == form]
        if not budgets:
            continue
        values = np.stack([rho[budget, form] for budget in budgets], axis=-1)
        dim = "budget" if form in ("at_hand", "spearman") else f"budget_{form}"
        coords[dim] = np.asarray(budgets, dtype=object)
        name = "rho" if form == "at_hand" else f"rho_{form}"
        out[name] = (("chain", "draw", "factor", dim), values.reshape(*shape, *values.shape[1:]))
    return xr.Dataset(out, coords=coords)


def _notes(table: pd.DataFrame, solution: FactorSolution, spreads: dict[str, Spread]) -> list[str]:
    notes = ["Correlations are observational: they say what goes with what, not what would change what."]
    for name in spreads:
        if f"token_floor_b_{name}" in solution.draws:
            notes.append(_floor_note(name, solution))
    counted = dict(zip(solution.factors, solution.extra.get("identified", []), strict=False))
    bad = table[table["factor"].map(lambda f: counted.get(f, True)) & (table["rhat"] > RHAT_GOAL)]
    few = table[table["factor"].map(lambda f: counted.get(f, True)) & (table["ess_bulk"] < ESS_GOAL)]
    if len(bad):
        notes.append(f"R-hat above {RHAT_GOAL} for {len(bad)} correlations: use more draws")
    if len(few):
        notes.append(
            f"bulk effective sample size below {ESS_GOAL} for {len(few)} correlations: use more draws"
        )
    return notes


def _floor_note(language: str, solution: FactorSolution) -> str:
    """How the slope on a language moves with d0, the tokens that stand for none."""
    floor = solution.stacked(f"token_floor_b_{language}")
    name = next(str(p) for p in solution.draws["predictor"].values if str(p).endswith(f"D_{language}"))
    slope = solution.draws["slope"].sel(predictor=name).transpose("chain", "draw", "factor").values
    slope = slope.reshape(len(floor), -1)
    low, high = np.quantile(floor, [1 / 3, 2 / 3])
    factor = int(np.abs(slope.mean(axis=0)).argmax())
    small, large = slope[floor <= low, factor].mean(), slope[floor >= high, factor].mean()
    return (
        f"Zero '{language}' tokens enter as d0 = {np.median(floor):.2g} B (posterior median). The slope of "
        f"{solution.factors[factor]} on log10 D_{language} is {small:.2f} with d0 in its lowest third "
        f"(below {low:.2g} B) and {large:.2f} in its highest (above {high:.2g} B)."
    )
