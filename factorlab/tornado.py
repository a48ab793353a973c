"""Tornado: how far every headline number moves when one assumption at a time is changed, by fitting again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from factorlab import __version__
from factorlab.batch import run_batch
from factorlab.changes import BASE, Change, changed, changes
from factorlab.errors import InputError
from factorlab.inference.budgets import BudgetRegression, Predictors, two_step
from factorlab.inference.identify import congruence, match
from factorlab.inference.joint_budgets import fit_budgets
from factorlab.inference.pca import declared_anchors
from factorlab.inference.solution import FactorSolution
from factorlab.inference.watch import Progress
from factorlab.options import FitOptions
from factorlab.refits import NOT_OF_BAYES, fit_method
from factorlab.scores import ScoreTable

HEADLINE_FACTORS = 2
"""Factors whose correlations and slopes are headlines."""

ANOTHER_FACTOR = 0.85
"""Below this congruence a refit's factor is told not to be the base's."""

COLUMNS = (
    "method", "headline", "change", "kind", "low", "median", "high", "base_low", "base_median", "base_high",
    "shift", "shift_in_intervals", "n_models", "congruence", "converged", "problem",
)  # fmt: skip


@dataclass(frozen=True)
class Tornado:
    """How far headlines move.

    Attributes
    ----------
    table : ScoreTable
    options : FitOptions
        ``method`` "bayes" (with PCA beside it) or "pca".
    rows : pandas.DataFrame
        A row a method, headline and change, those that shift a headline most first: `COLUMNS`. ``low, median,
        high`` after the change (equal-tailed interval; NaN where the method has none), ``base_*`` before it,
        ``shift`` of the median, ``shift_in_intervals`` the same over the width of the base interval,
        ``congruence`` of the refit's factor with the base's, ``converged`` (None where nothing was sampled),
        ``problem`` in words, empty where there is none.
    failures : dict of str to str
        Changes that could not be fitted, with the reason.
    reused : int
        Fits that were kept by an earlier call.
    notes : tuple of str
    """

    table: ScoreTable
    options: FitOptions
    rows: pd.DataFrame
    failures: Mapping[str, str]
    reused: int
    notes: tuple[str, ...]

    @property
    def headlines(self) -> list[str]:
        """Names of the headline numbers, in order."""
        return list(dict.fromkeys(self.rows["headline"]))

    @property
    def problems(self) -> tuple[str, ...]:
        """What failed or did not converge, in sentences."""
        loose = self.rows[self.rows["converged"].eq(False)].drop_duplicates("change")
        return (
            *(f"{name}: {text}" for name, text in self.failures.items()),
            *(f"{row['change']}: {row['problem']}" for _, row in loose.iterrows()),
        )

    def to_dataframe(self) -> pd.DataFrame:
        """`rows`."""
        return self.rows

    def to_dict(self) -> dict[str, Any]:
        """Rows, failures, problems and notes, JSON-able but for NaN."""
        return {
            "method": self.options.method,
            "headlines": self.headlines,
            "rows": self.rows.to_dict("records"),
            "failures": dict(self.failures),
            "problems": list(self.problems),
            "notes": list(self.notes),
        }


def tornado(
    table: ScoreTable,
    options: FitOptions,
    *,
    families: bool = True,
    folder: str | None = None,
    progress: Progress | None = None,
) -> Tornado:
    """Fit again after each change of `factorlab.changes.changes`.

    Parameters
    ----------
    table : ScoreTable
    options : FitOptions
        ``method`` "bayes" or "pca", ``factors`` a number; ``workers`` and ``cluster`` say where the fits run.
    families : bool
        Token counts also a family at a time.
    folder : path, optional
        Keeps finished fits, and nothing else (`factorlab.batch.run_batch`).
    progress : callable, optional

    Returns
    -------
    Tornado

    Raises
    ------
    InputError
        Another method, no number of factors, a table that cannot be fitted, no headline.
    """
    if options.method not in ("bayes", "pca"):
        raise InputError(f"a tornado is of one method, not '{options.method}'; give --method bayes or pca")
    if options.factors == "auto":
        raise InputError("a tornado needs a number of factors; give --factors 1, 2, ...")
    asked = changes(table, options, families=families)
    rows, failures, notes, reused = [], {}, list[str](), 0
    if options.method == "bayes":
        batch = run_batch(
            refit_changed,
            {name: {"change": change} for name, change in asked.items()},
            shared=(table, options),
            settings=_settings(table, options),
            workers=options.workers,
            cluster=options.cluster,
            folder=folder,
            tidy=True,
            stage="fits",
            progress=progress,
        )
        if BASE in batch.failures:
            raise InputError(f"the table as it is cannot be fitted: {batch.failures[BASE]}")
        rows.append(_rows("bayes", table, asked, batch.results))
        failures, reused = dict(batch.failures), batch.reused
        notes += batch.notes
        if batch.results[BASE]["problem"]:
            notes.append(f"the fit to the table as it is: {batch.results[BASE]['problem']}")
    simple = replace(options, method="pca")
    beside, why = _pca(table, simple, asked)
    if BASE in beside:
        rows.append(_rows("pca", table, asked, beside))
    if options.method == "pca":
        failures = why
        if BASE not in beside:
            raise InputError(f"the table as it is cannot be fitted: {why[BASE]}")
    found = pd.concat(rows, ignore_index=True)
    if found.empty:
        raise InputError(
            f"table '{table.name}' has no headline number: give budgets in the models table, or an "
            "anchor_factor in the benchmarks table"
        )
    return Tornado(table, options, found, failures, reused, tuple(dict.fromkeys(notes)))


def _settings(table: ScoreTable, options: FitOptions) -> dict[str, Any]:
    chosen = {name: value for name, value in asdict(options).items() if name not in NOT_OF_BAYES}
    return {"table": table.digest(), "options": chosen, "factorlab": __version__}


def _pca(
    table: ScoreTable, options: FitOptions, asked: Mapping[str, Change]
) -> tuple[dict[str, Any], dict[str, str]]:
    """The two-step answers, and why there is none; forms that only a posterior has are left out."""
    found, why = {}, {}
    for name, change in asked.items():
        if change["kind"] in ("pairs", "budget"):
            continue
        try:
            found[name] = refit_changed(table, options, change)
        except InputError as error:
            why[name] = str(error)
    return found, why


def refit_changed(table: ScoreTable, options: FitOptions, change: Change) -> dict[str, Any]:
    """Fit after one change: what the headlines need of it, on its own axes.

    Returns
    -------
    dict
        ``loading`` (benchmark, factor), ``numbers`` (list of ``{factor, number, low, median, high}``, number such
        as "rho ja", "difference ja - en", "slope log10 N", "loading NIILC"), ``n_models``, ``converged``, ``problem``.
    """
    table, options = changed(table, options, change)
    solution = fit_method(table, options, options.seed)
    regression = _regression(table, solution, options)
    problems = [] if solution.diagnostics is None else list(solution.diagnostics.problems)
    return {
        "loading": solution.stacked("loading").mean(axis=0),
        "numbers": [*_loadings(solution, options.level), *_budget_numbers(regression, solution.factors)],
        "n_models": len(table.model_names),
        "converged": None if solution.diagnostics is None else not problems,
        "problem": "; ".join(problems),
    }


def _regression(table: ScoreTable, solution: FactorSolution, options: FitOptions) -> BudgetRegression | None:
    try:
        if solution.kind == "posterior":
            return fit_budgets(table, solution, level=options.level)
        form: Predictors = "separate" if options.budget == "separate" else "product"
        return two_step(table, solution, level=options.level, x=form)
    except InputError:
        return None


Number = dict[str, Any]


def _loadings(solution: FactorSolution, level: float) -> Iterator[Number]:
    rows = solution.summary("loading", level)
    for row in rows.to_dict("records"):
        ends = (row["lower"], row["upper"]) if solution.n_draws > 1 else (np.nan, np.nan)
        yield _number(solution, row["factor"], f"loading {row['benchmark']}", row["median"], *ends)


def _number(
    of: FactorSolution | list[str], factor: str, number: str, median: float, low: float, high: float
) -> Number:
    names = of.factors if isinstance(of, FactorSolution) else of
    values = {"low": low, "median": median, "high": high}
    return {
        "factor": names.index(factor),
        "number": number,
        **{name: float(value) if np.isfinite(value) else None for name, value in values.items()},
    }


def _budget_numbers(regression: BudgetRegression | None, factors: list[str]) -> Iterator[Number]:
    """Correlations at hand, their differences and slopes."""
    if regression is None:
        return
    rho: dict[tuple[str, str], float] = {}
    for row in regression.table.to_dict("records"):
        values = (row["median"], row["lower"], row["upper"])
        if row["form"] == "at_hand" and row["budget"] != "total":
            rho[row["factor"], row["budget"]] = row["median"]
            yield _number(factors, row["factor"], f"rho {row['budget']}", *values)
        if row["form"] == "difference":
            yield _number(factors, row["factor"], f"difference {row['budget']}", *values)
    if regression.method != "joint":
        budgets = list(dict.fromkeys(budget for _, budget in rho))
        for factor in factors:
            for a, first in enumerate(budgets):
                for second in budgets[a + 1 :]:
                    gap = rho[factor, second] - rho[factor, first]
                    yield _number(factors, factor, f"difference {second} - {first}", gap, np.nan, np.nan)
    for row in regression.slopes.to_dict("records"):
        name = _predictor(str(row["predictor"]))
        middle = row.get("median", row["estimate"])
        yield _number(factors, row["factor"], f"slope {name}", middle, row["lower"], row["upper"])


def _predictor(name: str) -> str:
    """One name for a predictor of the two regressions."""
    if name == "log10_params":
        return "log10 N"
    for prefix, words in (("log10_tokens_", "log10 D_"), ("log10_budget_", "log10 N*D_")):
        if name.startswith(prefix):
            return words + name.removeprefix(prefix)
    return name


class _Placed(NamedTuple):
    """A number on the base's axes."""

    low: float
    median: float
    high: float
    congruence: float


def _placed(result: Mapping[str, Any], reference: np.ndarray) -> dict[tuple[int, str], _Placed]:
    """All numbers of a refit by the base's factor, turned where its factor points the other way."""
    loading = np.asarray(result["loading"])
    if loading.shape[1] >= reference.shape[1]:
        order, sign = match(loading, reference)
        pairs = [(int(own), k, float(s)) for k, (own, s) in enumerate(zip(order, sign, strict=True))]
    else:
        order, sign = match(reference, loading)
        pairs = [(own, int(k), float(s)) for own, (k, s) in enumerate(zip(order, sign, strict=True))]
    out = {}
    for own, k, s in pairs:
        near = float(congruence(s * loading[:, [own]], reference[:, [k]])[0])
        for number in result["numbers"]:
            if number["factor"] != own:
                continue
            low, median, high = (
                np.nan if number[name] is None else s * number[name] for name in ("low", "median", "high")
            )
            low, high = (low, high) if s > 0 else (high, low)
            out[k, number["number"]] = _Placed(low, median, high, near)
    return out


def _rows(
    method: str, table: ScoreTable, asked: Mapping[str, Change], results: Mapping[str, Any]
) -> pd.DataFrame:
    reference = np.asarray(results[BASE]["loading"])
    base = _placed(results[BASE], reference)
    chosen = _headlines(table, base)
    rows = []
    for name, result in results.items():
        if name == BASE:
            continue
        placed = _placed(result, reference)
        for (factor, number), title in chosen.items():
            if (factor, number) not in placed:
                continue
            before, after = base[factor, number], placed[factor, number]
            width = before.high - before.low
            shift = after.median - before.median
            problem = result["problem"]
            if after.congruence < ANOTHER_FACTOR:
                other = f"its axis is another one (congruence {after.congruence:.2f})"
                problem = f"{problem}; {other}" if problem else other
            rows.append(
                (
                    method, title, name, asked[name]["kind"], *after[:3], *before[:3], shift,
                    shift / width if width > 0 else np.nan, result["n_models"], after.congruence,
                    result["converged"], problem,
                )
            )  # fmt: skip
    out = pd.DataFrame(rows, columns=list(COLUMNS))
    place = {title: n for n, title in enumerate(chosen.values())}
    out = out.assign(_place=out["headline"].map(place), _size=-out["shift"].abs())
    out = out.sort_values(["_place", "_size"], kind="stable", ignore_index=True)
    return out.drop(columns=["_place", "_size"])


def _headlines(table: ScoreTable, base: Mapping[tuple[int, str], _Placed]) -> dict[tuple[int, str], str]:
    """Key of each headline number to its name, in the order of a reader's questions."""
    anchors = declared_anchors(table)
    groups: tuple[dict[tuple[int, str], str], ...] = ({}, {}, {}, {})
    for factor, number in sorted(base, key=lambda key: key[0]):
        kind, _, of = number.partition(" ")
        if not np.isfinite(base[factor, number].median):
            continue
        name = f"PC{factor + 1}"
        if kind == "loading" and anchors.get(factor) == of:
            groups[2][factor, number] = f"loading({of}, {name})"
        if factor >= HEADLINE_FACTORS:
            continue
        if kind == "rho":
            groups[0][factor, number] = f"rho({name}, {of})"
        elif kind == "difference":
            groups[1][factor, number] = f"rho({name}, {of})"
        elif kind == "slope":
            groups[3][factor, number] = f"slope({name}, {of})"
    return {key: title for group in groups for key, title in group.items()}
