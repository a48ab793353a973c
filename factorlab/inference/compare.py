"""Comparison of two solutions: how near, where not, and which conclusions change.

Every draw of both enters. A point beside a posterior gets its intervals from the posterior; two
posteriors are independent, so their draws are paired at random. What `simulate` calls the truth is
a solution like any other: a recovery test and a user's comparison are the same call.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.agreement import (
    MEASURES,
    Align,
    Matching,
    Measured,
    common_models,
    match_factors,
    measure,
    scale_ratio,
)
from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.conclusions import Side, conclusions
from factorlab.inference.solution import FactorSolution

Regressions = tuple[BudgetRegression | None, BudgetRegression | None]


@dataclass(frozen=True)
class Comparison:
    """How two solutions agree on their common benchmarks, models and factors.

    Differences are second less first. Intervals are equal-tailed over pairs of draws, NaN where both
    solutions are points.

    Attributes
    ----------
    names : tuple of str
        What the two are called in sentences.
    align : {"match", "procrustes"}
    level : float
    n_pairs : int
        Pairs of draws.
    n_benchmarks, n_models : int
        In common.
    factors : pandas.DataFrame
        A row a factor of the first: ``factor, second_factor, sign`` (-1 where the second was turned
        round), then ``congruence`` (Tucker's), ``rmse_loading``, ``rmse_score``,
        ``score_correlation``, each with ``_median, _lower, _upper``.
    angles : pandas.DataFrame
        Cosines of the principal angles between the spaces of the loadings: ``angle`` (1, 2, ...),
        ``median, lower, upper``.
    loadings : pandas.DataFrame
        ``benchmark, factor, first, second`` (means), ``difference`` (mean), ``lower, upper, level``,
        ``changes`` (the interval of the difference excludes 0).
    conclusions : pandas.DataFrame
        What a reader would conclude from one and not from the other: ``kind`` ("salient loading",
        "sign of loading", "not identified", "another factor", "no counterpart", "budget"), ``factor,
        benchmark, budget, first, second`` (values) and ``sentence``.
    notes : tuple of str
    """

    names: tuple[str, str]
    align: Align
    level: float
    n_pairs: int
    n_benchmarks: int
    n_models: int
    factors: pd.DataFrame
    angles: pd.DataFrame
    loadings: pd.DataFrame
    conclusions: pd.DataFrame
    notes: tuple[str, ...]

    def to_dataframe(self) -> pd.DataFrame:
        """All figures in one long table: ``quantity, factor, benchmark, value, lower, upper, level``.

        The value is the median of a measure of agreement and the mean of a difference of loadings.
        """
        parts = []
        for name in MEASURES:
            new = dict(zip([f"{name}_{c}" for c in _QUANTILES], ("value", "lower", "upper"), strict=True))
            parts.append(self.factors[["factor", *new]].rename(columns=new).assign(quantity=name))
        angles = self.angles.rename(columns={"median": "value"}).drop(columns="angle")
        names = [f"cosine of principal angle {a}" for a in self.angles["angle"]]
        parts.append(angles.assign(quantity=names))
        loadings = self.loadings.rename(columns={"difference": "value"})
        parts.append(loadings.assign(quantity="difference of loading"))
        filled = [part.reindex(columns=list(_DTYPES)).astype(_DTYPES) for part in parts]
        out = pd.concat(filled, ignore_index=True)
        return out.assign(level=self.level)

    def to_dict(self) -> dict[str, Any]:
        """JSON-able: ``congruence.<factor>.{median, lower, upper}`` and so on; None for no interval."""
        measures = {
            name: {
                str(row["factor"]): {c: _number(row[f"{name}_{c}"]) for c in _QUANTILES}
                for _, row in self.factors.iterrows()
            }
            for name in MEASURES
        }
        return {
            "first": self.names[0],
            "second": self.names[1],
            "align": self.align,
            "level": self.level,
            "n_pairs": self.n_pairs,
            "n_benchmarks": self.n_benchmarks,
            "n_models": self.n_models,
            **measures,
            "matched": dict(zip(self.factors["factor"], self.factors["second_factor"], strict=True)),
            "angles": _records(self.angles),
            "loadings": _records(self.loadings),
            "conclusions": _records(self.conclusions),
            "notes": list(self.notes),
        }


_QUANTILES = ("median", "lower", "upper")
_DTYPES: dict[str, type] = {
    "quantity": object,
    "factor": object,
    "benchmark": object,
    "value": float,
    "lower": float,
    "upper": float,
}


def compare(
    first: FactorSolution,
    second: FactorSolution,
    *,
    level: float = 0.94,
    budgets: Regressions = (None, None),
    align: Align = "match",
    names: tuple[str, str] | None = None,
) -> Comparison:
    """Compare two solutions on what they have in common.

    Parameters
    ----------
    first, second : FactorSolution
        Point, resample, posterior or truth. The second is aligned to the first.
    level : float
        Probability of the intervals.
    budgets : pair of BudgetRegression, optional
        Of the first and of the second; their verdicts are compared when both are given.
    align : {"match", "procrustes"}
        Give the second the order and signs of the first, and nothing else; or make the abilities of
        both uncorrelated (those of a truth or of oblique axes are not) and turn the second by the one
        orthogonal rotation of its mean loadings that comes nearest to the first's.
    names : pair of str, optional
        What to call the two; their methods when not given.

    Returns
    -------
    Comparison

    Raises
    ------
    InputError
        Fewer than 2 common benchmarks, an unknown option, a level outside (0, 1).

    Notes
    -----
    Abilities are given mean 0 and sd 1 over the common models in every draw, and loadings of the
    second are expressed in the first's standard deviations of scores, so that solutions
    of different tables, and a truth whose abilities are a sample, are on one scale.
    """
    _check(first, second, level, align)
    called = names or _names(first, second)
    benchmarks = [b for b in first.benchmarks if b in set(second.benchmarks)]
    models = common_models(first, second)
    scale = scale_ratio(first, second, benchmarks)
    matching = match_factors(first, second, benchmarks, scale)
    measured = measure(first, second, benchmarks, models, scale, matching, align)
    factors = [first.factors[k] for k in matching.first]
    table = _loading_table(measured, benchmarks, factors, level)
    sides = tuple(
        Side(name, solution, values, regression)
        for name, solution, values, regression in zip(
            called, (first, second), (measured.first, measured.second), budgets, strict=True
        )
    )
    per_factor = _factor_table(measured, first, second, matching, level)
    return Comparison(
        names=called,
        align=align,
        level=level,
        n_pairs=len(measured.first),
        n_benchmarks=len(benchmarks),
        n_models=len(models),
        factors=per_factor,
        angles=_angle_table(measured.angles, level),
        loadings=table,
        conclusions=conclusions(sides[0], sides[1], table, per_factor, level),
        notes=tuple(_notes(first, second, called, benchmarks, models, scale, matching)),
    )


def _check(first: FactorSolution, second: FactorSolution, level: float, align: str) -> None:
    if align not in ("match", "procrustes"):
        raise InputError(f"align '{align}' is unknown; give 'match' or 'procrustes'")
    if not 0 < level < 1:
        raise InputError(f"level {level} is not a probability; give a number between 0 and 1, such as 0.94")
    common = set(first.benchmarks) & set(second.benchmarks)
    if len(common) < 2:
        raise InputError(
            f"the two solutions have {len(common)} benchmarks in common, of {len(first.benchmarks)} and "
            f"{len(second.benchmarks)}; at least 2 are needed: "
            "compare fits of tables with the same benchmarks"
        )


def _names(first: FactorSolution, second: FactorSolution) -> tuple[str, str]:
    if first.method == second.method:
        return f"the first ({first.method})", f"the second ({second.method})"
    return first.method, second.method


def _quantiles(values: np.ndarray, level: float) -> np.ndarray:
    """Median, lower, upper over pairs, (3, ...); one pair has no interval."""
    if len(values) == 1:
        return np.stack([values[0], *[np.full_like(values[0], np.nan)] * 2])
    tail = (1 - level) / 2
    return np.quantile(values, [0.5, tail, 1 - tail], axis=0)


def _factor_table(
    measured: Measured, first: FactorSolution, second: FactorSolution, matching: Matching, level: float
) -> pd.DataFrame:
    out = pd.DataFrame(
        {
            "factor": [first.factors[k] for k in matching.first],
            "second_factor": [second.factors[k] for k in matching.second],
            "sign": matching.sign,
        }
    )
    for measure_name, values in measured.values.items():
        for name, column in zip(_QUANTILES, _quantiles(values, level), strict=True):
            out[f"{measure_name}_{name}"] = column
    return out


def _angle_table(cosines: np.ndarray, level: float) -> pd.DataFrame:
    median, lower, upper = _quantiles(cosines, level)
    angle = np.arange(1, cosines.shape[1] + 1)
    return pd.DataFrame({"angle": angle, "median": median, "lower": lower, "upper": upper})


def _loading_table(
    measured: Measured, benchmarks: list[str], factors: list[str], level: float
) -> pd.DataFrame:
    difference = measured.second - measured.first
    _, lower, upper = _quantiles(difference, level)
    index = pd.MultiIndex.from_product([benchmarks, factors], names=["benchmark", "factor"])
    columns = {
        "first": measured.first.mean(axis=0),
        "second": measured.second.mean(axis=0),
        "difference": difference.mean(axis=0),
        "lower": lower,
        "upper": upper,
    }
    table = pd.DataFrame(
        {name: values.ravel() for name, values in columns.items()}, index=index
    ).reset_index()
    return table.assign(level=level, changes=(table["lower"] > 0) | (table["upper"] < 0))


def _notes(
    first: FactorSolution,
    second: FactorSolution,
    names: tuple[str, str],
    benchmarks: list[str],
    models: list[str],
    scale: np.ndarray,
    matching: Matching,
) -> list[str]:
    """What of either is left out, and what the intervals are."""
    notes = []
    for name, solution in zip(names, (first, second), strict=True):
        for what, all_, kept in (
            ("benchmarks", solution.benchmarks, benchmarks),
            ("models", solution.models, models),
        ):
            out = [str(x) for x in all_ if x not in set(kept)]
            if out:
                more = f" and {len(out) - 5} more" if len(out) > 5 else ""
                notes.append(f"Not compared, {what} of {name} only: {', '.join(out[:5])}{more}.")
        if solution.kind == "resample":
            notes.append(
                f"Intervals take the draws of {name} as they are: they are resamples, not a posterior."
            )
    if len(first.factors) != len(second.factors):
        notes.append(
            f"{names[0]} has {len(first.factors)} factors and {names[1]} {len(second.factors)}: the "
            f"{len(matching.sign)} that go together are compared."
        )
    if first.n_draws == second.n_draws == 1:
        notes.append("Both are points: there are no intervals.")
    if len(models) < 2:
        notes.append("Fewer than 2 models in common: scores are not compared.")
    if len(benchmarks) <= len(matching.sign):
        notes.append("No more common benchmarks than factors: the principal angles say nothing.")
    apart = float(np.max(np.abs(scale - 1)))
    if apart > 1e-3:
        notes.append(
            f"Loadings of {names[1]} are in the standard deviations of scores of {names[0]}, which differ by "
            f"up to {100 * apart:.1f} %."
        )
    return notes


def _number(value: Any) -> float | None:
    return float(value) if np.isfinite(value) else None


def _records(frame: pd.DataFrame) -> list[dict[str, Any]]:
    """Rows as plain JSON values, None for NaN."""
    return [
        {str(k): _plain(v) for k, v in row.items()} for row in frame.astype(object).to_dict(orient="records")
    ]


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        value = value.item()
    return None if isinstance(value, float) and not np.isfinite(value) else value
