"""Headline findings: what the results say, as sentences with their numbers; associations, never causes."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pandas as pd

from factorlab.analysis import Analysis
from factorlab.gallery import budgets_with_data, main_budgets, main_solution
from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.conclusions import READABLE, SALIENT
from factorlab.inference.solution import FactorSolution
from factorlab.page.numbers import MINUS, listed, number, percent, plural, probability, with_interval
from factorlab.page.outlier_words import outlier_words
from factorlab.plots.style import language_name

HEADLINE_FACTORS = 2
STRONG = 0.5
"""A correlation from this size on is a headline, whatever the factor."""


Medians = dict[str, pd.Series]


@dataclass(frozen=True)
class Finding:
    """One statement: what it says in words, then its numbers."""

    claim: str
    numbers: str = ""


@dataclass(frozen=True)
class Topic:
    """Findings under the question they belong to."""

    question: str
    findings: tuple[Finding, ...]


def answers(analysis: Analysis) -> list[Topic]:
    """All topics that the analysis has findings on."""
    parts = (
        ("How many abilities are there, and what are they?", [*_size(analysis), *_meaning(analysis)]),
        ("Which of them do the data fix?", list(_axes(analysis))),
        ("What goes with training budgets?", [*_correlations(analysis), *_differences(analysis)]),
        ("Does it hold within a lineage?", list(_lineages(analysis))),
        ("Which scores need a second look?", list(_suspects(analysis))),
    )
    return [Topic(question, tuple(found)) for question, found in parts if found]


def budget_name(budget: str) -> str:
    """ "the Japanese budget"."""
    return "the total budget" if budget == "total" else f"the {language_name(budget)} budget"


def identified(solution: FactorSolution) -> dict[str, bool]:
    """Whether the data fix each factor; a point solution does not say, and counts as fixed."""
    flags = dict(zip(solution.factors, solution.extra.get("identified", []), strict=False))
    return {factor: bool(flags.get(factor, True)) for factor in solution.factors}


def loading_rows(analysis: Analysis) -> pd.DataFrame:
    """Mean loadings of the main solution with intervals; PCA's are those of its bootstrap.

    Returns
    -------
    pandas.DataFrame
        Columns ``benchmark, factor, mean, lower, upper``; bounds NaN where there are no draws.
    """
    solution = main_solution(analysis)
    assert solution is not None
    rows = solution.summary("loading", analysis.options.level)
    if solution.n_draws > 1:
        return rows
    rows[["lower", "upper"]] = np.nan
    bootstrap = analysis.resamples.get("bootstrap")
    if solution.method == "pca" and bootstrap is not None:
        keys = ["benchmark", "factor"]
        spread = bootstrap.summary("loading", analysis.options.level)[[*keys, "lower", "upper"]]
        rows = rows.drop(columns=["lower", "upper"]).merge(spread, on=keys, how="left")
    return rows


def _size(analysis: Analysis) -> Iterator[Finding]:
    if analysis.pca is None:
        return
    ratio = analysis.pca.extra["explained_variance_ratio"][: len(analysis.pca.factors)]
    parts = ", ".join(f"{f} {percent(r)}" for f, r in zip(analysis.pca.factors, ratio, strict=True))
    kept = ""
    if analysis.parallel is not None:
        kept = f" Parallel analysis, against tables of pure noise, keeps {analysis.parallel.n_factors}."
    yield Finding(
        f"{plural(len(ratio), 'component')} {'carries' if len(ratio) == 1 else 'carry'} "
        f"{percent(sum(ratio))} of the variance of all scores",
        f"PCA: {parts}.{kept}",
    )


def _meaning(analysis: Analysis) -> Iterator[Finding]:
    solution = main_solution(analysis)
    if solution is None:
        return
    rows = loading_rows(analysis)
    fixed = identified(solution)
    for factor in solution.factors:
        if fixed[factor]:
            yield _factor_meaning(analysis, factor, rows[rows["factor"] == factor])


def _factor_meaning(analysis: Analysis, factor: str, rows: pd.DataFrame) -> Finding:
    """What one factor is: where it loads, in which languages."""
    ordered = rows.sort_values("mean", ascending=False)
    salient = ordered[ordered["mean"] >= SALIENT]
    clear = ordered[
        (ordered["mean"].abs() >= READABLE) & ~((ordered["lower"] <= 0) & (ordered["upper"] >= 0))
    ]
    up, down = clear[clear["mean"] > 0].head(4), clear[clear["mean"] < 0].iloc[::-1].head(3)
    if (rows["mean"] > 0).all():
        claim = f"{factor} is general: all {plural(len(rows), 'benchmark')} load on it positively"
    elif len(salient) > 0.75 * len(rows):
        claim = (
            f"{factor} is nearly general: {len(salient)} of {len(rows)} benchmarks load {SALIENT:g} or more"
        )
    elif len(salient):
        claim = f"{factor} is carried by {listed(salient['benchmark'], 4)}{_languages(analysis, salient)}"
    elif len(up) and len(down):
        claim = f"{factor} sets {listed(up['benchmark'])} against {listed(down['benchmark'])}"
    else:
        claim = f"{factor} has no benchmark that loads {SALIENT:g} or more"
    text = f"Highest: {_loadings(ordered.head(4))}"
    if len(down):
        text += f"; against it: {_loadings(down)}"
    return Finding(claim, text + ".")


def _languages(analysis: Analysis, salient: pd.DataFrame) -> str:
    """ " (all Japanese)", where the language is declared and one."""
    spoken = analysis.table.benchmarks["language"].reindex(salient["benchmark"])
    if len(spoken) < 2 or spoken.isna().any() or spoken.nunique() > 1:
        return ""
    return f" (all {language_name(str(spoken.iloc[0]))})"


def _loadings(rows: pd.DataFrame) -> str:
    return ", ".join(
        f"{row['benchmark']} {with_interval(row['mean'], row['lower'], row['upper'])}"
        for _, row in rows.iterrows()
    )


def _axes(analysis: Analysis) -> Iterator[Finding]:
    bayes = analysis.bayes
    if bayes is None:
        if main_solution(analysis) is not None:
            yield Finding(
                "This run cannot tell",
                "Without the Bayesian fit nothing says whether an axis is fixed by the data; see how far "
                "loadings move when models are left out.",
            )
        return
    medians: Medians = {
        name: bayes.summary(name).set_index("factor")["median"]
        for name in ("axis_cosine", "axis_cosine_pca")
        if name in bayes.draws
    }
    fixed = identified(bayes)
    stay = [f for f, ok in fixed.items() if ok]
    turn = [f for f, ok in fixed.items() if not ok]
    if stay:
        yield Finding(f"Identified: {', '.join(stay)}", _cosines(stay, medians))
    if turn:
        yield Finding(
            f"Not identified: {', '.join(turn)}; do not read {'its' if len(turn) == 1 else 'their'} "
            "loadings or correlations",
            _cosines(turn, medians),
        )


def _cosines(factors: list[str], medians: Medians) -> str:
    """How far the axes turn, in one sentence; empty where it was not measured."""
    words = {"axis_cosine": "with its typical direction", "axis_cosine_pca": "with PCA's axis"}
    parts = [
        f"{f} {', '.join(f'{number(found[f])} {words[name]}' for name, found in medians.items())}"
        for f in factors
    ]
    return f"Median |cosine| of a draw's axis, 1 is no turn: {'; '.join(parts)}." if medians else ""


def _correlations(analysis: Analysis) -> Iterator[Finding]:
    """rho of the first factors, and of others where it is strong, with the budget of each language."""
    solution, regression = main_solution(analysis), main_budgets(analysis)
    if solution is None or regression is None:
        return
    fixed = identified(solution)
    rows = regression.table[regression.table["form"] == "at_hand"]
    for budget in (b for b in budgets_with_data(analysis) if b != "total"):
        part = rows[(rows["budget"] == budget) & rows["median"].notna()]
        part = part[part["factor"].map(lambda f: fixed.get(f, True)).astype(bool)]
        head = part["factor"].isin(solution.factors[:HEADLINE_FACTORS])
        part = part[head | (part["median"].abs() >= STRONG)]
        order = part["median"].abs().sort_values(ascending=False, kind="stable").index
        for _, row in part.loc[order].iterrows():
            yield _correlation(analysis, regression, row)


def _correlation(analysis: Analysis, regression: BudgetRegression, row: pd.Series) -> Finding:
    factor, budget = str(row["factor"]), str(row["budget"])
    name = budget_name(budget)
    if row["lower"] > 0:
        claim = f"{factor} goes with {name}"
    elif row["upper"] < 0:
        claim = f"{factor} is lower where {name} is higher"
    else:
        claim = f"{factor} shows no clear association with {name}"
    text = (
        f"rho = {with_interval(row['median'], row['lower'], row['upper'])} over "
        f"{plural(int(row['n']), 'model')} with a published budget"
    )
    if regression.method != "joint":
        return Finding(claim, f"{text} (in two steps, error of abilities and token counts left out).")
    forms = (("population", "among models of new families"), ("partial", "within families at given size"))
    for form, words in forms:
        found = _row(regression, factor, budget, form)
        if found is not None:
            text += f"; {words} {with_interval(found['median'], found['lower'], found['upper'])}"
    if analysis.pca_budgets is not None:
        found = _row(analysis.pca_budgets, factor, budget, "at_hand")
        if found is not None:
            text += f"; in two steps {with_interval(found['median'], found['lower'], found['upper'])}"
    return Finding(claim, text + ".")


def _row(regression: BudgetRegression, factor: str, budget: str, form: str) -> pd.Series | None:
    table = regression.table
    found = table[(table["factor"] == factor) & (table["budget"] == budget) & (table["form"] == form)]
    return None if found.empty or not np.isfinite(found["median"].iloc[0]) else found.iloc[0]


def _differences(analysis: Analysis) -> Iterator[Finding]:
    regression = analysis.bayes_budgets
    if analysis.bayes is None or regression is None or regression.method != "joint":
        return
    fixed = identified(analysis.bayes)
    rows = regression.table[regression.table["form"] == "difference"]
    for factor in [f for f in analysis.bayes.factors[:HEADLINE_FACTORS] if fixed[f]]:
        for _, row in rows[rows["factor"] == factor].iterrows():
            second, first = str(row["budget"]).split(" - ")
            yield _difference(analysis.bayes, factor, first, second, row)


def _difference(bayes: FactorSolution, factor: str, first: str, second: str, row: pd.Series) -> Finding:
    near, far = (second, first) if row["median"] >= 0 else (first, second)
    sign = 1 if near == second else -1
    low, high = sorted((sign * row["lower"], sign * row["upper"]))
    share = row["prob_positive"] if sign > 0 else 1 - row["prob_positive"]
    sure = low > 0
    claim = (
        f"{factor} goes more closely with {budget_name(near)} than with {budget_name(far)}"
        if sure
        else f"Whether {factor} goes more closely with {budget_name(near)} or {budget_name(far)} is open"
    )
    return Finding(
        claim,
        f"rho({factor}, {near}) {MINUS} rho({factor}, {far}) = "
        f"{with_interval(sign * row['median'], low, high)}, positive with probability "
        f"{probability(share, bayes.n_draws)}.",
    )


def _lineages(analysis: Analysis) -> Iterator[Finding]:
    """Continually pre-trained models beside their base, on the factor nearest to the added language."""
    regression = analysis.bayes_budgets
    if (
        analysis.bayes is None
        or regression is None
        or regression.contrasts is None
        or regression.contrasts.empty
    ):
        return
    table = regression.contrasts
    fixed = identified(analysis.bayes)
    for budget in (b for b in budgets_with_data(analysis) if f"log10_tokens_{b}" in table):
        rows = regression.table[
            (regression.table["form"] == "at_hand") & (regression.table["budget"] == budget)
        ]
        rows = rows[rows["factor"].map(lambda f: fixed.get(f, True)).astype(bool) & rows["median"].notna()]
        if rows.empty:
            continue
        factor = str(rows["factor"].iloc[int(np.argmax(rows["median"].abs()))])
        # A tenth of a factor of ten: less is the error of a shared count, not training on the language.
        part = table[(table["factor"] == factor) & (table[f"log10_tokens_{budget}"] > 0.1)]
        if len(part):
            yield _lineage(factor, language_name(budget), part)


def _lineage(factor: str, language: str, part: pd.DataFrame) -> Finding:
    above = int((part["lower"] > 0).sum())
    below = int((part["upper"] < 0).sum())
    few = (part.iloc[int(pick(part["median"]))] for pick in (np.argmin, np.argmax))
    least, most = (f"{number(r['median'])} ({r['model']})" for r in few)
    one = len(part) == 1
    return Finding(
        f"{above} of {plural(len(part), 'model')} trained further with {language} text "
        f"{'is' if above == 1 else 'are'} above {'its' if one else 'their'} own base on {factor}",
        f"Interval of the difference above 0 in {above}, below 0 in {below}, open in "
        f"{len(part) - above - below}; "
        f"median difference {number(part['median'].median())} sd of ability, from {least} to {most}. What "
        "continued training changed besides the language is in these differences too.",
    )


def _suspects(analysis: Analysis) -> Iterator[Finding]:
    words = {
        "zero": (
            "exactly 0 although the model's other scores say otherwise; look for a failed evaluation",
            "score",
        ),
        "outlier": ("far from what the model's other scores say", "score"),
        "at_chance": ("at the level of guessing, where differences between models mean little", "score"),
    }
    for kind, (text, noun) in words.items():
        cells = [f for f in analysis.health.flags if f.kind == kind and f.model is not None]
        if not cells:
            continue
        by_model: dict[str, list[str]] = {}
        for flag in cells:
            by_model.setdefault(str(flag.model), []).append(str(flag.benchmark))
        shown = [f"{model} ({', '.join(names)})" for model, names in by_model.items()]
        yield Finding(
            f"{plural(len(cells), noun)} {'is' if len(cells) == 1 else 'are'} {text}", listed(shown, 20) + "."
        )
    if analysis.outliers is not None:
        yield from (Finding(*words) for words in outlier_words(analysis.outliers))
