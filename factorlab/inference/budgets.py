"""Associations of abilities with training budgets: the two-step way, and its result type.

The two-step way takes abilities as if they were known and relates them to the published budgets
``log10(N D_l)``, N active parameters and D_l training tokens in language l (training compute is
about 6 N D). Models whose budget is not published are left out, and named. What it misses, the
error of abilities and of token counts, the joint posterior carries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
import pandas as pd
import xarray as xr
from scipy.stats import norm, pearsonr, spearmanr
from statsmodels.regression.linear_model import OLS

from factorlab.errors import InputError
from factorlab.inference.solution import FactorSolution
from factorlab.lineage import build_lineage, published_log10_budget
from factorlab.scores import ScoreTable

Predictors = Literal["product", "separate"]

SLOPE_UNIT = "sd of ability per factor of ten"

_SLOPE_COLUMNS = ["estimate", "se", "lower", "upper", "level", "p", "n", "n_lineages", "unit"]

# Below this many lineages clustered errors are known to be too small, t quantiles or not.
_FEW_LINEAGES = 10


@dataclass(frozen=True)
class BudgetRegression:
    """How abilities go with training budgets: correlations, slopes, who was left out.

    Attributes
    ----------
    method : str
        "two-step" or "joint".
    table : pandas.DataFrame
        A row per factor, budget and form; columns ``factor, budget`` (a language or "total"),
        ``form`` ("at_hand", "spearman"; the joint posterior has more), ``mean, median, lower,
        upper, level, n``. A two-step correlation is a point: its mean and median are one number.
    slopes : pandas.DataFrame
        Columns ``factor, predictor, estimate, se, lower, upper, level, p, n, n_lineages, unit``;
        the joint posterior has ``sd`` and ``prob_positive`` for ``se`` and ``p``.
    left_out : pandas.DataFrame
        Columns ``budget, model, reason``.
    draws : xarray.Dataset or None
        Joint only: ``rho`` (chain, draw, factor, budget).
    notes : tuple of str
    contrasts : pandas.DataFrame or None
        Joint only: ability of each continually pre-trained model less that of its base.
    """

    method: str
    table: pd.DataFrame
    slopes: pd.DataFrame
    left_out: pd.DataFrame
    draws: xr.Dataset | None = None
    notes: tuple[str, ...] = ()
    contrasts: pd.DataFrame | None = None

    def to_dataframe(self) -> pd.DataFrame:
        """The correlations, a row per factor, budget and form, with a column ``method``."""
        return self.table.assign(method=self.method)


class Slope(NamedTuple):
    """One coefficient of a regression with lineage-clustered errors; NaN where none can be had."""

    estimate: float
    se: float
    lower: float
    upper: float
    p: float


def two_step(
    table: ScoreTable, solution: FactorSolution, *, level: float = 0.94, x: Predictors = "product"
) -> BudgetRegression:
    """Relate estimated abilities to published budgets, one factor and one budget at a time.

    Parameters
    ----------
    table : ScoreTable
        Its models table has ``params_b`` and ``tokens_b_<language>``.
    solution : FactorSolution
        Abilities; the mean over draws where there are several.
    level : float
        Probability of the intervals.
    x : {"product", "separate"}
        Slopes on ``log10(N D_l)``, one budget at a time, or on ``log10 N`` and the ``log10 D_l`` of
        all languages together. Correlations are with the product either way.

    Returns
    -------
    BudgetRegression
        ``method="two-step"``. Pearson's r with Fisher's interval and Spearman's with that of
        Bonett and Wright (2000, Psychometrika 65:23-28), both as if models were independent;
        slopes by ordinary least squares with errors clustered by lineage (t quantiles with as many
        degrees of freedom as lineages less one).

    Raises
    ------
    InputError
        No budget in the models table, unknown option, a solution of other models.
    """
    if x not in ("product", "separate"):
        raise InputError(f"x '{x}' is unknown; give 'product' or 'separate'")
    if not 0 < level < 1:
        raise InputError(f"level {level} is not a probability; give a number between 0 and 1, such as 0.94")
    ability = _abilities(table, solution)
    budgets = published_budgets(table)
    known = np.isfinite(ability.to_numpy()).all(axis=1)
    designs = [budgets[[name]].add_prefix("log10_budget_") for name in budgets]
    if x == "separate":
        designs = [_separate_predictors(table)]
    slopes, few = _slopes(table, ability[known], [design[known] for design in designs], level)
    notes = ["Correlation intervals treat models as independent; slopes are clustered by lineage."]
    if solution.n_draws > 1:
        notes.append(f"Abilities are the mean of {solution.n_draws} draws, taken as known.")
    return BudgetRegression(
        method="two-step",
        table=_correlations(ability[known], budgets[known], level),
        slopes=slopes,
        left_out=left_out(table, solution),
        notes=(*notes, *few),
    )


def published_budgets(table: ScoreTable) -> pd.DataFrame:
    """Published ``log10(N D_l)`` of the scored models, (model, budget), a column per language and "total".

    Raises
    ------
    InputError
        When the models table has no parameters or no tokens at all.
    """
    names = list(table.languages)
    if "tokens_b_total" in table.models and "total" not in names:
        names.append("total")
    if not names or "params_b" not in table.models:
        raise InputError(
            f"table '{table.name}' has no training budgets; give columns params_b and tokens_b_<language> in "
            "the models table"
        )
    return pd.DataFrame({name: published_log10_budget(table.scored_models, name) for name in names})


def correlation_interval(
    a: np.ndarray, b: np.ndarray, level: float = 0.94, spearman: bool = False
) -> tuple[float, float, float]:
    """Correlation of two samples with its interval on Fisher's scale.

    Parameters
    ----------
    a, b : ndarray, (model,)
    level : float
    spearman : bool
        Of ranks; the standard error is then ``sqrt((1 + r^2 / 2) / (n - 3))`` (Bonett & Wright).

    Returns
    -------
    r, lower, upper : float
        NaN with fewer than 3 models, or no spread; no interval with fewer than 4.
    """
    if len(a) < 3 or np.ptp(a) == 0 or np.ptp(b) == 0:
        return np.nan, np.nan, np.nan
    r = float((spearmanr if spearman else pearsonr)(a, b).statistic)
    if len(a) < 4:
        return r, np.nan, np.nan
    half = norm.ppf(0.5 + level / 2) * np.sqrt((1 + r**2 / 2 if spearman else 1) / (len(a) - 3))
    centre = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    return r, float(np.tanh(centre - half)), float(np.tanh(centre + half))


def clustered_slopes(
    ability: np.ndarray, predictors: np.ndarray, lineage: Sequence[str] | np.ndarray, level: float = 0.94
) -> list[Slope]:
    """Least squares of one ability on predictors, errors clustered by lineage.

    Parameters
    ----------
    ability : ndarray, (model,)
    predictors : ndarray, (model, predictor)
    lineage : sequence of str, (model,)
    level : float

    Returns
    -------
    list of Slope
        One a predictor; all NaN when the predictors leave no residual degree of freedom or are
        collinear, no error when there is one lineage.
    """
    n_models, n_predictors = predictors.shape
    nothing = Slope(*[np.nan] * 5)
    if n_models <= n_predictors + 1:
        return [nothing] * n_predictors
    design = np.column_stack([np.ones(n_models), predictors])
    if np.linalg.matrix_rank(design) <= n_predictors:
        return [nothing] * n_predictors
    codes = pd.factorize(np.asarray(lineage, dtype=object))[0]
    model = OLS(ability, design)
    if codes.max() < 1:
        return [nothing._replace(estimate=float(value)) for value in model.fit().params[1:]]
    fit = model.fit(cov_type="cluster", cov_kwds={"groups": codes}, use_t=True)
    interval = fit.conf_int(alpha=1 - level)
    return [
        Slope(
            *(float(v) for v in (fit.params[k], fit.bse[k], interval[k, 0], interval[k, 1], fit.pvalues[k]))
        )
        for k in range(1, n_predictors + 1)
    ]


def _abilities(table: ScoreTable, solution: FactorSolution) -> pd.DataFrame:
    """Mean ability, (model, factor), sd 1 over the models at hand, in the order of the table."""
    missing = [name for name in table.model_names if name not in solution.models]
    if missing:
        raise InputError(
            f"model '{missing[0]}' of table '{table.name}' is not in the solution; "
            "give a solution that was fitted to this table"
        )
    ability = solution.ability_mean().loc[table.model_names]
    return (ability - ability.mean()) / ability.std(ddof=0)


def _correlations(ability: pd.DataFrame, budgets: pd.DataFrame, level: float) -> pd.DataFrame:
    """Pearson's and Spearman's correlation of every factor with every budget."""
    rows = []
    for factor in ability:
        for budget in budgets:
            both = np.isfinite(budgets[budget].to_numpy())
            a, b = ability[factor].to_numpy()[both], budgets[budget].to_numpy()[both]
            for form in ("at_hand", "spearman"):
                r, lower, upper = correlation_interval(a, b, level, form == "spearman")
                rows.append((factor, budget, form, r, r, lower, upper, level, len(a)))
    columns = ["factor", "budget", "form", "mean", "median", "lower", "upper", "level", "n"]
    return pd.DataFrame(rows, columns=columns)


def _separate_predictors(table: ScoreTable) -> pd.DataFrame:
    """log10 N and log10 D_l of each language; NaN where unknown or zero, (model, predictor)."""
    models = table.scored_models
    columns = {"log10_params": models["params_b"] * 1e9}
    columns |= {f"log10_tokens_{name}": models[f"tokens_b_{name}"] * 1e9 for name in table.languages}
    counts = pd.DataFrame(columns).astype(float)
    return pd.DataFrame(np.log10(counts.where(counts > 0)))


def _slopes(
    table: ScoreTable, ability: pd.DataFrame, designs: list[pd.DataFrame], level: float
) -> tuple[pd.DataFrame, list[str]]:
    """Slopes of every factor on every design, and what there is to say about few lineages."""
    lineage = pd.Series(build_lineage(table.models).family_of(list(ability.index)), index=ability.index)
    rows: list[dict[str, object]] = []
    few = []
    for design in designs:
        x = design[design.notna().all(axis=1)]
        group = lineage[x.index].to_numpy()
        n_lineages = len(set(group))
        if n_lineages < _FEW_LINEAGES:
            names = ", ".join(str(column).removeprefix("log10_budget_") for column in x.columns)
            few.append(f"{len(x)} models of {n_lineages} lineages for {names}")
        facts = {"level": level, "n": len(x), "n_lineages": n_lineages, "unit": SLOPE_UNIT}
        for factor in ability:
            fits = clustered_slopes(ability[factor].loc[x.index].to_numpy(), x.to_numpy(), group, level)
            for predictor, fit in zip(design.columns, fits, strict=True):
                rows.append({"factor": factor, "predictor": predictor, **fit._asdict(), **facts})
    notes = [f"Few lineages ({'; '.join(few)}): clustered errors tend to be too small."] if few else []
    return pd.DataFrame(rows, columns=["factor", "predictor", *_SLOPE_COLUMNS]), notes


def left_out(table: ScoreTable, solution: FactorSolution) -> pd.DataFrame:
    """Models that do not enter: columns ``budget, model, reason``, a row per budget and model."""
    budgets = published_budgets(table)
    known = np.isfinite(_abilities(table, solution).to_numpy()).all(axis=1)
    models = table.scored_models
    rows = []
    for budget in map(str, budgets.columns):
        published = np.isfinite(budgets[budget].to_numpy())
        for i, name in enumerate(table.model_names):
            if not published[i]:
                rows.append((budget, name, _reason(models.iloc[i], budget)))
            elif not known[i]:
                rows.append((budget, name, "no ability: not every benchmark was scored"))
    return pd.DataFrame(rows, columns=["budget", "model", "reason"])


def _reason(model: pd.Series, budget: str) -> str:
    """Why a model has no published budget."""
    if not model["params_b"] > 0:
        return "number of parameters not known"
    tokens = model[f"tokens_b_{budget}"]
    of = "training tokens" if budget == "total" else f"training tokens in '{budget}'"
    return f"no {of}: the logarithm of zero" if tokens == 0 else f"{of} not published"
