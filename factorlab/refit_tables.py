"""Tables of refits: every fit on the axes of the whole table's, and how far each number moves."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from factorlab.inference.identify import congruence, match, take_factors
from factorlab.inference.pca import unit_ability
from factorlab.inference.resamples import Scheme

Key = tuple[int, str, str]
"""Factor, form ("share", "at_hand", ...), budget."""

Value = tuple[float, float, float]
"""Median, lower, upper."""

NOTHING: Value = (np.nan, np.nan, np.nan)


class Aligned(NamedTuple):
    """One fit on the axes of the whole table's."""

    loading: np.ndarray  # (benchmark, factor)
    ability: np.ndarray  # (model, factor)
    order: np.ndarray  # (factor,): the fit's own factor
    numbers: dict[Key, Value]


def align(result: Mapping[str, Any], reference: np.ndarray, used: np.ndarray) -> Aligned:
    """Give a fit the order and signs of the reference.

    Parameters
    ----------
    result : mapping
        As `factorlab.refits.refit_one` returns it.
    reference : ndarray, (benchmark, factor)
        Loadings of the whole table.
    used : ndarray of bool, (model,)
        Models over which abilities get mean 0 and standard deviation 1.
    """
    order, sign = match(result["loading"], reference)
    place = {int(own): k for k, own in enumerate(order)}
    numbers: dict[Key, Value] = {}
    for row in result["rho"]:
        if row["factor"] in place:
            k = place[row["factor"]]
            values = np.array([row[name] for name in ("median", "lower", "upper")], dtype=float) * sign[k]
            ends = values[1:] if sign[k] > 0 else values[:0:-1]
            numbers[k, row["form"], row["budget"]] = (float(values[0]), float(ends[0]), float(ends[1]))
    loading = take_factors(result["loading"], order, sign)
    for k, share in enumerate((loading**2).mean(axis=0) if result["orthogonal"] else ()):
        numbers[k, "share", ""] = (float(share), np.nan, np.nan)
    ability = take_factors(result["ability"], order, sign)
    return Aligned(loading, unit_ability(ability, used), order, numbers)


def summary_table(
    scheme: Scheme,
    labels: list[str],
    base: Aligned,
    aligned: Mapping[str, Aligned],
    results: Mapping[str, Any],
    left_out: Mapping[str, list[str]],
) -> pd.DataFrame:
    """``summary`` of `factorlab.refits.Refits`."""
    keys = list(dict.fromkeys((form, budget) for _, form, budget in base.numbers))
    keys.sort(key=lambda key: key[0] != "share")
    rows = []
    for name, fit in aligned.items():
        cosine = congruence(fit.loading, base.loading)
        for k, label in enumerate(labels):
            row: dict[str, Any] = {
                "unit": name,
                "left_out": "" if scheme == "bootstrap" else "; ".join(left_out[name]),
                "n_models": results[name]["n_models"],
                "factor": label,
                "refit_factor": labels[int(fit.order[k])],
                "congruence": float(cosine[k]),
                "converged": results[name]["converged"],
            }
            for form, budget in keys:
                column = _column(form, budget)
                row[column] = fit.numbers.get((k, form, budget), NOTHING)[0]
                row[f"{column}_change"] = row[column] - base.numbers.get((k, form, budget), NOTHING)[0]
            rows.append(row)
    return pd.DataFrame(rows)


def _column(form: str, budget: str) -> str:
    if form == "share":
        return "share"
    return f"rho_{budget}" if form == "at_hand" else f"rho_{form}_{budget}"


def headline_table(
    scheme: Scheme, labels: list[str], base: Aligned, aligned: Mapping[str, Aligned], level: float
) -> pd.DataFrame:
    """``headlines`` of `factorlab.refits.Refits`."""
    rows = []
    for key in sorted(base.numbers, key=lambda key: (key[1] == "share", key[0])):
        whole, lower, upper = base.numbers[key]
        found = {name: fit.numbers.get(key, NOTHING)[0] for name, fit in aligned.items()}
        values = np.array(list(found.values()))
        known = np.isfinite(values)
        if not known.any():
            continue
        furthest = list(found)[int(np.nanargmax(np.abs(values - whole)))]
        values = values[known]
        sd = float(values.std(ddof=1)) if len(values) > 1 else np.nan
        k, form, budget = key
        rows.append(
            {
                "headline": _title(labels[k], form, budget), "factor": labels[k], "budget": budget,
                "form": form, "whole": whole, "lower": lower, "upper": upper, "level": level,
                "refits": len(values), "mean": values.mean(), "sd": sd,
                "lowest": values.min(), "highest": values.max(),
                "se": sd if scheme == "bootstrap" else jackknife_se(values),
                "largest_change": found[furthest] - whole, "moved_most_by": furthest,
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


def _title(factor: str, form: str, budget: str) -> str:
    if form == "share":
        return f"share of variance, {factor}"
    return f"rho({factor}, {budget})" + (", population" if form == "population" else "")


def jackknife_se(values: np.ndarray) -> float:
    """Standard error from the values without each of g units (models, lineages or folds).

    ``sqrt((g - 1) / g * sum_i (theta_i - mean)^2)`` (Efron & Tibshirani 1993, section 11.2).
    """
    if len(values) < 2:
        return float("nan")
    return float(np.sqrt((len(values) - 1) * np.var(values)))
