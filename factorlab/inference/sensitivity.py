"""Prior sensitivity of headline quantities, without fitting again.

Under another prior p' the posterior draws get the importance weights w = p'(phi) / p(phi), phi the
parameters that the prior speaks of, smoothed by the Pareto method. One prior is changed at a time.
Where the weights are too uneven the row says that only a new fit can tell.

References
----------
Kallioinen, Paananen, Bürkner & Vehtari 2023, Statistics and Computing 34 (detecting and diagnosing
prior sensitivity by importance weights); Vehtari, Simpson, Gelman, Yao & Gabry 2024, JMLR 25(72)
(Pareto smoothed importance sampling).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
from scipy.stats import norm

from factorlab.errors import InputError
from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.mixing import convergence
from factorlab.inference.sampling import smooth_weights
from factorlab.inference.solution import FactorSolution

AS_FITTED = "as fitted"
REFIT = "needs a refit"
NOT_IN_DRAWS = "not in the draws: needs a refit"
HOLDS = "holds"
MOVES = "moves"

MOVED = 0.25
"""A mean that shifts by more than this share of the fitted posterior's sd has moved."""

FEWEST = 100
"""Fewer effective draws than this do not give a tail."""

CHANGES: Mapping[str, tuple[float, float]] = {
    "loading_sd": (0.5, 2.0),
    "small_loading": (0.5, 2.0),
    "mean_sd": (0.5, 2.0),
    "noise_sd_median": (0.8, 1.25),
    "pair_sd": (0.5, 2.0),
    "slope_sd": (0.5, 2.0),
    "root_sd": (0.5, 2.0),
    "step_sd": (0.5, 2.0),
    "tokens_log10_sd": (0.5, 2.0),
    "token_floor_b": (1 / 3, 3.0),
    "derived_log_sd": (0.5, 1.5),
    "guessed_log_sd": (0.5, 1.5),
}
"""By how much each prior is changed, one at a time; names are the fields of `Priors`."""


class Quantity(NamedTuple):
    """One headline number: its name and its draws, (chain, draw)."""

    name: str
    values: np.ndarray


def prior_sensitivity(
    solution: FactorSolution,
    regression: BudgetRegression,
    *,
    level: float = 0.94,
    changes: Mapping[str, tuple[float, ...]] | None = None,
    quantities: Sequence[str] | None = None,
) -> pd.DataFrame:
    """What headline quantities would be under other priors.

    Parameters
    ----------
    solution : FactorSolution
        A posterior.
    regression : BudgetRegression
        Its joint regression on budgets.
    level : float
        Probability of the equal-tailed intervals.
    changes : mapping, optional
        Field of `Priors` to the factors it is multiplied by; `CHANGES` when not given.
    quantities : sequence of str, optional
        Names to keep, as in column ``quantity``; all when not given.

    Returns
    -------
    pandas.DataFrame
        ``setting`` (first "as fitted", then e.g. "slope_sd = 2 (fitted with 1)"), ``prior, value``,
        ``quantity`` ("rho(PC2, ja) at hand", "rho(PC2, ja) population", "rho(PC2, ja - en) at hand",
        "slope(PC2, log10 D_ja)"), ``mean, median, lower, upper, level, ess, khat, verdict``. ``ess`` is
        the bulk effective sample size times the evenness of the weights, 1 / (n sum w^2). Verdicts:
        "holds"; "moves" (the mean, by more than a quarter of an sd); "now excludes 0", "now holds 0"
        (the interval); "needs a refit" (k-hat above min(0.7, 1 - 1 / log10 n), or fewer than 100
        effective draws): then read nothing from the row; a row with half the change follows.

    Raises
    ------
    InputError
        No joint regression, no record of the priors, an unknown prior or quantity.
    """
    priors = _priors(solution, regression, level)
    asked = CHANGES if changes is None else changes
    unknown = [name for name in asked if name not in CHANGES]
    if unknown:
        raise InputError(
            f"no prior '{unknown[0]}' can be changed by weights; give some of {', '.join(CHANGES)}"
        )
    items = list(headline(solution, regression))
    if quantities is not None:
        names = [item.name for item in items]
        lost = [name for name in quantities if name not in names]
        if lost:
            raise InputError(f"no quantity '{lost[0]}'; there are {', '.join(names)}")
        items = [item for item in items if item.name in set(quantities)]
    values = np.stack([item.values for item in items], axis=-1)
    bulk = convergence(values).ess_bulk
    flat = values.reshape(-1, len(items))
    order = np.argsort(flat, axis=0)
    even = np.full(len(flat), 1 / len(flat))
    fitted = _summary(flat, order, even, level)
    fit = _Fit(items, flat, order, fitted, bulk, level)
    rows = [_rows(fit, AS_FITTED, None, fitted, bulk, np.nan, AS_FITTED)]
    for name, factors in asked.items():
        for factor in factors if name in priors else ():
            rows += _change(solution, priors, fit, name, factor)
    return pd.concat(rows, ignore_index=True)


class _Fit(NamedTuple):
    """Quantities as fitted: draws (draw, quantity), their order, `_summary`, bulk effective sample size."""

    items: list[Quantity]
    flat: np.ndarray
    order: np.ndarray
    fitted: np.ndarray
    bulk: np.ndarray
    level: float


def _change(
    solution: FactorSolution,
    priors: Mapping[str, float],
    fit: _Fit,
    name: str,
    factor: float,
    milder: bool = True,
) -> list[pd.DataFrame]:
    """Rows of one change; where the weights give out, those of half of it (its square root) as well."""
    log_weights = log_weight(solution, priors, name, factor)
    value = priors[name] * factor
    setting = f"{name} = {value:.3g} (fitted with {priors[name]:.3g})"
    if log_weights is None:
        if not _belongs(solution, name):
            return []
        nothing = np.full_like(fit.fitted, np.nan)
        return [_rows(fit, setting, (name, value), nothing, nothing[0], np.nan, NOT_IN_DRAWS)]
    weights, khat = smooth_weights(log_weights)
    ess = fit.bulk / (len(weights) * (weights**2).sum())
    shown = _summary(fit.flat, fit.order, weights, fit.level)
    rows = [_rows(fit, setting, (name, value), shown, ess, khat, None)]
    if milder and rows[0]["verdict"].eq(REFIT).any():
        rows += _change(solution, priors, fit, name, factor**0.5, milder=False)
    return rows


def headline(solution: FactorSolution, regression: BudgetRegression) -> Iterator[Quantity]:
    """Correlations at hand and in the population, their differences, and slopes, of identified factors.

    Yields
    ------
    Quantity
    """
    if regression.draws is None:
        raise InputError(
            "prior sensitivity needs a joint posterior with budgets; this regression is two-step"
        )
    flags = dict(zip(solution.factors, solution.extra.get("identified", []), strict=False))
    factors = [f for f in solution.factors if flags.get(f, True)]
    for factor in factors:
        for name, form in (
            ("rho", "at hand"),
            ("rho_population", "population"),
            ("rho_difference", "at hand"),
        ):
            if name not in regression.draws:
                continue
            array = regression.draws[name].sel(factor=factor)
            dim = next(str(d) for d in array.dims if d not in ("chain", "draw"))
            for budget in map(str, array[dim].values):
                values = array.sel({dim: budget}).transpose("chain", "draw").values
                yield Quantity(f"rho({factor}, {budget}) {form}", values)
        slope = solution.draws["slope"].sel(factor=factor)
        for predictor in map(str, slope["predictor"].values):
            values = slope.sel(predictor=predictor).transpose("chain", "draw").values
            yield Quantity(f"slope({factor}, {predictor})", values)


def log_weight(
    solution: FactorSolution, priors: Mapping[str, float], name: str, factor: float
) -> np.ndarray | None:
    """Log of the changed prior over the fitted one, (draw,); None where the draws do not hold it.

    Parameters
    ----------
    solution : FactorSolution
    priors : mapping
        Field of `Priors` to its value in the fit.
    name : str
        The field that is changed.
    factor : float
        What it is multiplied by.

    Notes
    -----
    Half-normal scales: ``-log f - (x / s)^2 (1/f^2 - 1) / 2``. Log-normal medians: the normal
    density of log x. Token counts: the model writes an error as sd * e with e standard normal; a changed
    sd is a changed prior of the product, so e enters like a normal with scale 1.
    """
    draws, scale = solution.draws, float(priors[name])

    def logged(variable: str, log_sd: float) -> np.ndarray:
        log_x = np.log(_columns(solution, variable))
        change = norm.logpdf(log_x, np.log(scale * factor), log_sd) - norm.logpdf(
            log_x, np.log(scale), log_sd
        )
        return change.sum(axis=1)

    if name in ("loading_sd", "pair_sd", "slope_sd", "root_sd", "step_sd"):
        return _scaled(_columns(solution, name) / scale, factor) if name in draws else None
    if name == "small_loading":
        return _small_loading(solution, scale, factor) if "turn" in draws else None
    if name == "mean_sd":
        return _scaled(_raw_mean(solution) / scale, factor) if "turn" in draws else None
    if name == "noise_sd_median":
        return logged("noise_sd", float(priors["noise_sd_log_sd"]))
    if name == "tokens_log10_sd":
        found = _named(solution, "log10_tokens_sd_")
        return (
            np.sum([_scaled(_columns(solution, v) / scale, factor) for v in found], axis=0) if found else None
        )
    if name == "token_floor_b":
        found = _named(solution, "token_floor_b_")
        log_sd = float(priors["token_floor_log_sd"])
        return np.sum([logged(v, log_sd) for v in found], axis=0) if found else None
    return _token_errors(solution, name.removesuffix("_log_sd"), factor)


def _scaled(x: np.ndarray, factor: float) -> np.ndarray:
    """Log density of a (half-)normal whose scale is multiplied, over that with scale 1, (draw,)."""
    return (-np.log(factor) - 0.5 * x**2 * (1 / factor**2 - 1)).sum(axis=1)


def _columns(solution: FactorSolution, variable: str) -> np.ndarray:
    """A variable as (draw, element)."""
    return solution.stacked(variable).reshape(solution.n_draws, -1)


def _named(solution: FactorSolution, prefix: str) -> list[str]:
    return [str(v) for v in solution.draws.data_vars if str(v).startswith(prefix)]


def _small_loading(solution: FactorSolution, small: float, factor: float) -> np.ndarray:
    """Of the density ``|Lambda' Lambda / J + small^2 I|^(-K/2)`` of the loadings as sampled, (draw,)."""
    raw = solution.stacked("loading") @ np.swapaxes(solution.stacked("turn"), 1, 2)
    _, n_benchmarks, n_factors = raw.shape
    gram = np.swapaxes(raw, 1, 2) @ raw / n_benchmarks
    ridge = np.eye(n_factors) * small**2
    changed, fitted = (np.linalg.slogdet(gram + ridge * f**2)[1] for f in (factor, 1.0))
    return -0.5 * n_factors * (changed - fitted)


def _raw_mean(solution: FactorSolution) -> np.ndarray:
    """mu as sampled: orientation moved the centre of the abilities into the mean, (draw, benchmark)."""
    loading, turn, center = (solution.stacked(v) for v in ("loading", "turn", "center"))
    return solution.stacked("mean") - np.einsum("djk,drk,dr->dj", loading, turn, center)


def _token_errors(solution: FactorSolution, status: str, factor: float) -> np.ndarray | None:
    """Weights of a changed standard deviation of the counts with one status, all languages."""
    total = np.zeros(solution.n_draws)
    found = False
    for name in _named(solution, "token_error_"):
        array = solution.draws[name]
        dim = next(str(d) for d in array.dims if d not in ("chain", "draw"))
        label = f"status_{name.removeprefix('token_error_')}"
        if label not in array.coords:
            continue
        pick = np.asarray(array[label].transpose(dim).values == status)
        if pick.any():
            found = True
            total += _scaled(_columns(solution, name)[:, pick], factor)
    return total if found else None


def _belongs(solution: FactorSolution, name: str) -> bool:
    """Whether the model has the prior although its draws were not kept."""
    if name in ("derived_log_sd", "guessed_log_sd"):
        return not _named(solution, "token_error_")
    return name in ("mean_sd", "small_loading")


def _priors(solution: FactorSolution, regression: BudgetRegression, level: float) -> Mapping[str, float]:
    if not 0 < level < 1:
        raise InputError(f"level {level} is not a probability; give a number between 0 and 1, such as 0.94")
    if solution.kind != "posterior" or regression.method != "joint" or "slope" not in solution.draws:
        raise InputError(
            f"prior sensitivity needs a posterior and its joint regression; this is a {solution.kind} of "
            f"method '{solution.method}' with a {regression.method} regression: fit with --method bayes and "
            "budgets"
        )
    settings = solution.provenance.get("settings", {})
    if "priors" not in settings:
        raise InputError("this solution has no record of its priors; fit it again")
    return settings["priors"]


def _summary(values: np.ndarray, order: np.ndarray, weights: np.ndarray, level: float) -> np.ndarray:
    """Weighted mean, median, lower, upper, sd: (5, quantity); values and their order (draw, quantity)."""
    tail = (1 - level) / 2
    mean = weights @ values
    sd = np.sqrt(weights @ (values - mean) ** 2)
    quantiles = np.empty((3, values.shape[1]))
    for q in range(values.shape[1]):
        sorted_weights = weights[order[:, q]]
        reached = np.cumsum(sorted_weights) - 0.5 * sorted_weights
        quantiles[:, q] = np.interp([0.5, tail, 1 - tail], reached, values[order[:, q], q])
    return np.vstack([mean, quantiles, sd])


def _rows(
    fit: _Fit,
    setting: str,
    change: tuple[str, float] | None,
    shown: np.ndarray,
    ess: np.ndarray,
    khat: float,
    verdict: str | None,
) -> pd.DataFrame:
    limit = min(0.7, 1 - 1 / np.log10(len(fit.flat)))
    verdicts = [
        verdict or (REFIT if khat > limit or ess[q] < FEWEST else _verdict(shown[:, q], fit.fitted[:, q]))
        for q in range(len(fit.items))
    ]
    return pd.DataFrame(
        {
            "setting": setting,
            "prior": change[0] if change else None,
            "value": change[1] if change else np.nan,
            "quantity": [item.name for item in fit.items],
            "mean": shown[0],
            "median": shown[1],
            "lower": shown[2],
            "upper": shown[3],
            "level": fit.level,
            "ess": ess,
            "khat": khat,
            "verdict": verdicts,
        }
    ).astype({"prior": object})


def _verdict(shown: np.ndarray, fitted: np.ndarray) -> str:
    """shown, fitted: mean, median, lower, upper, sd."""
    open_now, open_then = (bool(s[2] <= 0 <= s[3]) for s in (shown, fitted))
    if open_now != open_then:
        return "now holds 0" if open_now else "now excludes 0"
    return MOVES if abs(shown[0] - fitted[0]) > MOVED * fitted[4] else HOLDS
