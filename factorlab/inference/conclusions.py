"""Which conclusions change between two solutions, as rows with a sentence each."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.solution import FactorSolution

SALIENT = 0.4
"""A loading counts as salient from this size on (the usual line of factor analysts)."""

READABLE = 0.2
"""A loading whose sign is read: the larger of the two is at least this."""

SAME_FACTOR = 0.85
"""Below this congruence two factors are not taken for one (Lorenzo-Seva & ten Berge 2006, Methodology 2)."""

COLUMNS = ["kind", "factor", "benchmark", "budget", "first", "second", "sentence"]


class Side(NamedTuple):
    """One of the two solutions.

    Attributes
    ----------
    name : str
        What it is called in sentences.
    solution : FactorSolution
    loading : ndarray, (pair, benchmark, factor)
        On the common scale.
    budgets : BudgetRegression or None
    """

    name: str
    solution: FactorSolution
    loading: np.ndarray
    budgets: BudgetRegression | None


def conclusions(
    first: Side, second: Side, loadings: pd.DataFrame, factors: pd.DataFrame, level: float
) -> pd.DataFrame:
    """All conclusions that differ.

    Parameters
    ----------
    first, second : Side
    loadings, factors : pandas.DataFrame
        As in `factorlab.inference.compare.Comparison`.
    level : float

    Returns
    -------
    pandas.DataFrame
        Columns `COLUMNS`; no rows when nothing changes.
    """
    same = _same(first, second, factors)
    rows = [
        *_factors(first, second, factors),
        *_loadings(first, second, loadings[loadings["factor"].isin(same["factor"])], level),
        *_budgets(first, second, same),
    ]
    return pd.DataFrame(rows, columns=COLUMNS)


Row = tuple[str, str, str | None, str | None, float, float, str]


def _factors(first: Side, second: Side, factors: pd.DataFrame) -> Iterator[Row]:
    """Factors that one of the two does not fix, has alone, or means something else by."""
    names = {"first": dict.fromkeys(first.solution.factors), "second": dict.fromkeys(second.solution.factors)}
    for side, other, key, column in (
        (first, second, "first", "factor"),
        (second, first, "second", "second_factor"),
    ):
        matched = dict(zip(factors[column], factors["factor"], strict=True))
        flags = dict(zip(names[key], side.solution.extra.get("identified", []), strict=False))
        for own in names[key]:
            if not flags.get(own, True):
                text = f"{own} is not identified in {side.name}: do not read its loadings or correlations."
                yield "not identified", matched.get(own, own), None, None, np.nan, np.nan, text
            if own not in matched:
                yield (
                    "no counterpart", own, None, None, np.nan, np.nan,
                    f"{own} of {side.name} has no counterpart in {other.name}.",
                )  # fmt: skip
    for _, row in factors.iterrows():
        if row["congruence_median"] < SAME_FACTOR:
            text = (
                f"{row['factor']} of {first.name} and {row['second_factor']} of {second.name} are not one "
                f"factor: congruence {row['congruence_median']:.2f} (one factor from {SAME_FACTOR:g})."
            )
            yield "another factor", str(row["factor"]), None, None, np.nan, np.nan, text


def _same(first: Side, second: Side, factors: pd.DataFrame) -> pd.DataFrame:
    """Rows of `factors` that both solutions fix and that are one factor."""
    keep = factors["congruence_median"] >= SAME_FACTOR
    for side, column in ((first, "factor"), (second, "second_factor")):
        flags = dict(zip(side.solution.factors, side.solution.extra.get("identified", []), strict=False))
        keep &= factors[column].map(lambda name, flags=flags: flags.get(name, True)).astype(bool)
    return factors[keep]


def _loadings(first: Side, second: Side, loadings: pd.DataFrame, level: float) -> Iterator[Row]:
    """Loadings that are salient in one and not credibly in the other, and signs that differ."""
    bounds = [_bounds(side.loading, level) for side in (first, second)]
    salient = [(low >= SALIENT) | (high <= -SALIENT) for low, high in bounds]
    for place, (_, row) in zip(loadings.index.to_numpy(dtype=int), loadings.iterrows(), strict=True):
        factor, benchmark = str(row["factor"]), str(row["benchmark"])
        values = (float(row["first"]), float(row["second"]))
        words = [_words(v, b, place) for v, b in zip(values, bounds, strict=True)]
        if salient[0][place] != salient[1][place]:
            yes = 0 if salient[0][place] else 1
            sides = (first, second)
            text = (
                f"{benchmark} counts as salient on {factor} (|loading| >= {SALIENT:g}) in {sides[yes].name}, "
                f"{words[yes]}, and not credibly in {sides[1 - yes].name}, {words[1 - yes]}."
            )
            yield "salient loading", factor, benchmark, None, *values, text
        if np.sign(values[0]) * np.sign(values[1]) < 0 and np.abs(values).max() >= READABLE:
            text = (
                f"The loading of {benchmark} on {factor} is {words[0]} in {first.name} and {words[1]} in "
                f"{second.name}: the signs differ."
            )
            yield "sign of loading", factor, benchmark, None, *values, text


def _bounds(loading: np.ndarray, level: float) -> tuple[np.ndarray, np.ndarray]:
    """Interval of each loading, (benchmark * factor,); a point is its own."""
    tail = (1 - level) / 2
    low, high = np.quantile(loading, [tail, 1 - tail], axis=0)
    return low.ravel(), high.ravel()


def _words(value: float, bounds: tuple[np.ndarray, np.ndarray], place: int) -> str:
    low, high = bounds[0][place], bounds[1][place]
    if high - low < 1e-9:
        return f"{value:.2f}"
    return f"{value:.2f} [{low:.2f}, {high:.2f}]"


def _budgets(first: Side, second: Side, factors: pd.DataFrame) -> Iterator[Row]:
    """Correlations with budgets whose verdict (positive, negative, open) differs."""
    if first.budgets is None or second.budgets is None:
        return
    keys = ["factor", "budget", "form"]
    one, two = (
        {tuple(row[key] for key in keys): row for row in budgets.table.to_dict("records")}
        for budgets in (first.budgets, second.budgets)
    )
    forms = _forms(first.budgets, second.budgets)
    for _, match in factors.iterrows():
        for budget in dict.fromkeys(first.budgets.table["budget"]):
            for form, other in forms:
                here, there = (match["factor"], budget, form), (match["second_factor"], budget, other)
                if here not in one or there not in two:
                    continue
                a = _correlation(one[here], 1.0)
                b = _correlation(two[there], float(match["sign"]))
                if not np.isfinite([*a, *b]).all() or _verdict(a) == _verdict(b):
                    continue
                text = (
                    f"rho({match['factor']}, {budget}) is {_verdict(a)} in {first.name}, {_rho(a)} "
                    f"({_form(form)}), and {_verdict(b)} in {second.name}, {_rho(b)} ({_form(other)})."
                )
                yield "budget", str(match["factor"]), None, str(budget), a[0], b[0], text


def _forms(first: BudgetRegression, second: BudgetRegression) -> list[tuple[str, str]]:
    """Forms to hold against each other.

    Those of one name; and the two-step correlation, whose interval is about new models, beside the
    joint one in the population (the joint one at hand is about these models only).
    """
    there = set(second.table["form"])
    forms = [(f, f) for f in dict.fromkeys(first.table["form"]) if f in there]
    if (first.method, second.method) == ("two-step", "joint"):
        forms.insert(1, ("at_hand", "population"))
    if (first.method, second.method) == ("joint", "two-step"):
        forms.insert(1, ("population", "at_hand"))
    return forms


def _form(form: str) -> str:
    return form.replace("_", " ")


def _correlation(row: Mapping[Any, Any], sign: float) -> tuple[float, float, float]:
    """Median and interval, turned where the second's factor was."""
    low, high = sorted((sign * float(row["lower"]), sign * float(row["upper"])))
    return sign * float(row["median"]), low, high


def _verdict(rho: tuple[float, float, float]) -> str:
    if rho[1] > 0:
        return "positive"
    return "negative" if rho[2] < 0 else "open (its interval holds 0)"


def _rho(rho: tuple[float, float, float]) -> str:
    return f"{rho[0]:.2f} [{rho[1]:.2f}, {rho[2]:.2f}]"
