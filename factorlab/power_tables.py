"""Tables of a power study: shares with their intervals, and what a reader must know of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from scipy.stats import norm

from factorlab.metadata import listed
from factorlab.power_options import PowerOptions, Setting, truths
from factorlab.power_tasks import LARGEST_RHAT

NO_DIFFERENCE = "no difference"

INTERVALS = {
    "jackknife": "two-step PCA, abilities taken as known; {percent} % t interval of atanh r(first) - atanh r(second), "
    "standard error by the jackknife over lineages",
    "refit": "two-step PCA; {percent} % t interval of atanh r(first) - atanh r(second), standard error by the "
    "jackknife over lineages with the components found again each time",
    "bootstrap": "two-step PCA; {percent} % percentile interval of r(first) - r(second), 400 bootstrap samples of "
    "lineages with the components found again each time",
    "bayes": "joint model; {percent} % equal-tailed posterior interval of the difference of the population rho's, "
    "500 to 2000 draws in each of 2 chains",
}

LOW_CONGRUENCE = 0.9
"""Median congruence below which an axis is told to be another one often."""


def wilson(found: int, n: int, level: float) -> tuple[float, float]:
    """Interval of a share (Wilson 1927, JASA 22:209-212); NaN where n is 0."""
    if n == 0:
        return np.nan, np.nan
    z = float(norm.ppf(0.5 + level / 2))
    p = found / n
    middle = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2)) / (1 + z**2 / n)
    return max(0.0, middle - half), min(1.0, middle + half)


def difference_rows(
    o: PowerOptions, settings: list[Setting], ended: Mapping[tuple[Setting, bool], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    rows = []
    for setting in settings:
        null = pd.DataFrame(ended.get((setting, False), []))
        widen = float(np.quantile(np.abs(_ratio(null)), o.level)) if len(null) else np.nan
        for truth, rho in truths(o).items():
            drawn = pd.DataFrame(ended.get((setting, truth), []))
            true = rho[o.factor, o.first], rho[o.factor, o.second]
            rows.append({"truth": "difference" if truth else NO_DIFFERENCE, **setting._asdict()})
            rows[-1] |= {"rho_first": true[0], "rho_second": true[1]}
            rows[-1] |= _shares(drawn, np.sign(true[0] - true[1]) if truth else 0.0, widen, o.level)
    return rows


def _ratio(drawn: pd.DataFrame) -> np.ndarray:
    """Centre of each interval over half its width: above 1 or below -1 it excludes 0."""
    lower, upper = drawn["lower"].to_numpy(dtype=float), drawn["upper"].to_numpy(dtype=float)
    return (lower + upper) / np.maximum(upper - lower, 1e-300)


def _shares(drawn: pd.DataFrame, side: float, widen: float, level: float) -> dict[str, Any]:
    """What a setting's intervals told; side is the sign of the true difference, 0 where there is none."""
    n = len(drawn)
    if n == 0:
        return {
            "simulations": 0,
            "found": 0,
            "share": np.nan,
            "lower": np.nan,
            "upper": np.nan,
            "level": level,
        }
    ratio = _ratio(drawn)
    towards = ratio * side if side else np.abs(ratio)
    found = int((towards > 1).sum())
    lower, upper = wilson(found, n, level)
    return {
        "simulations": n,
        "found": found,
        "share": found / n,
        "lower": lower,
        "upper": upper,
        "level": level,
        "wrong": float((towards < -1).mean()) if side else np.nan,
        "widen": widen,
        "at_size": float((towards > widen).mean()) if np.isfinite(widen) else np.nan,
        "first": float(drawn["first"].median()),
        "second": float(drawn["second"].median()),
        "congruence": float(drawn["congruence"].median()),
        "converged": float(drawn["converged"].mean()),
    }


def factor_rows(
    o: PowerOptions, settings: list[Setting], ended: Mapping[tuple[Setting, bool], list[dict[str, Any]]]
) -> list[dict[str, Any]]:
    rows = []
    for setting in settings:
        chosen = np.array([result["chosen"] for result in ended.get((setting, True), [])])
        n, found = len(chosen), int((chosen == o.factors).sum())
        lower, upper = wilson(found, n, o.level)
        rows.append(
            {
                "truth": f"{o.factors} factors",
                **setting._asdict(),
                "simulations": n,
                "found": found,
                "share": found / n if n else np.nan,
                "lower": lower,
                "upper": upper,
                "level": o.level,
                "too_few": float((chosen < o.factors).mean()) if n else np.nan,
                "too_many": float((chosen > o.factors).mean()) if n else np.nan,
            }
        )
    return rows


def rule(o: PowerOptions) -> str:
    """What finds a difference or a number of factors, in words."""
    if o.question == "factors":
        return (
            "held-out cells, the fewest factors within one standard error of the best"
            if o.method == "bayes"
            else "parallel analysis, eigenvalues above the 95 % quantile of noise"
        )
    return INTERVALS["bayes" if o.method == "bayes" else o.interval].format(percent=f"{100 * o.level:g}")


def notes_of(o: PowerOptions, table: pd.DataFrame) -> list[str]:
    """What a reader of the table must know."""
    notes = [f"Rule: {rule(o)}."]
    if o.question == "factors":
        return notes
    if o.family_share == 0:
        notes.append("Every model is a lineage of its own (family_share 0).")
    if any(k != o.factor for k, _ in o.rho):
        notes.append(
            "Other abilities go with budgets too, so true abilities correlate where budgets do; axes that are "
            "uncorrelated over the models at hand are then not quite the true ones."
        )
    null = table[table["truth"] == NO_DIFFERENCE]
    nominal = 1 - o.level
    for _, row in null[null["lower"] > nominal].iterrows():
        notes.append(
            f"NOT VALID with {_words(row)}: {100 * row['share']:.0f} % [{100 * row['lower']:.0f}, "
            f"{100 * row['upper']:.0f}] of the intervals exclude 0 where there is no difference, {100 * nominal:.0f} % "
            "would be right; read the power at the right size instead."
        )
    low = table[table["congruence"] < LOW_CONGRUENCE]
    if len(low):
        worst = low.iloc[int(np.argmin(low["congruence"]))]
        notes.append(
            f"PC{o.factor + 1} is often another axis than the true one: median congruence {worst['congruence']:.2f} "
            f"with {_words(worst)}; a difference of another axis is then found or missed."
        )
    short = table[table["converged"] < 1]
    if len(short):
        notes.append(
            f"{100 * (1 - short['converged'].min()):.0f} % of the posteriors of the worst setting did not converge "
            f"(R-hat above {LARGEST_RHAT})."
        )
    return notes


def _words(row: pd.Series) -> str:
    items = (
        "" if row["instances"] is None or pd.isna(row["instances"]) else f", {row['instances']:.0f} instances"
    )
    return (
        f"{row['models']} models, {row['benchmarks']} benchmarks{items}, budget error {row['token_log_sd']:g}"
    )


def failed(failures: Mapping[str, str], n: int) -> list[str]:
    if not failures:
        return []
    reasons = listed(list(dict.fromkeys(failures.values())), 3)
    return [f"{len(failures)} of {n} simulations failed and are not counted: {reasons}."]
