"""Which abilities go with text in one language rather than another, and how many tokens go with how much."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from factorlab.inference.conclusions import READABLE, SALIENT
from factorlab.questions.answer import LOWER, UPPER, Answer
from factorlab.questions.benchmark_slopes import benchmark_slopes
from factorlab.questions.drivers import main_relations
from factorlab.questions.reading import Reading, named
from factorlab.wording import (
    MINUS,
    count,
    language_name,
    listed,
    plural,
    probability,
    significant,
    with_interval,
)

LITTLE = 0.25
"""A benchmark rises by less than this with ten times the tokens (in its sd): it goes little with them."""

MUCH = 0.5
"""The interval of a slope called little stays below this."""

LANGUAGES_QUESTION = "Which abilities go with training text in which language?"
TOKENS_QUESTION = "How many tokens go with how much?"


def which_language(reading: Reading) -> Answer:
    """Per factor, the language whose budget it goes with rather than with any other."""
    ask: dict[str, Any] = {"key": "languages", "question": LANGUAGES_QUESTION}
    why = reading.no_budgets()
    if not why and len(reading.languages) < 2:
        why = (
            f"Only {named(reading.languages[0])} is published for three models or more; a column "
            "tokens_b_<language> for a second language would let the two be told apart."
        )
    rho = reading.rho
    if why or rho is None:
        return Answer(**ask, cannot=why or "rho has no interval in this run; fit with --method all or pca.")
    table = closest_languages(reading, *rho)
    sure = table[table["goes with"] != ""]
    kept = [f for f in reading.factors if f not in reading.beyond_noise]
    head = sure[sure["factor"].isin(kept)] if kept else sure
    others = sure[~sure["factor"].isin(head["factor"])]
    parts = [_closer(reading, row) for _, row in head.iterrows()]
    open_factors = [f for f in kept if f not in set(head["factor"])]
    verdict = (
        "; ".join(parts) if parts else "No ability goes with one language clearly more than with another"
    )
    if open_factors and parts:
        verdict += f"; for {listed(open_factors)} the languages cannot be told apart"
    sentences = [*_carriers(reading, head), *_free(reading)]
    if len(others):
        told = "; ".join(_closer(reading, row) for _, row in others.iterrows())
        sentences.append(f"Of factors that parallel analysis does not keep: {told}.")
    if reading.loose:
        sentences.append(f"{listed(reading.loose)}: axis not identified, not read.")
    sentences.append(f"rho and its interval: {reading.how}.")
    shares = zip(table["probability"], table["draws"], strict=True)
    return Answer(
        **ask,
        verdict=f"{verdict}.",
        sentences=tuple(sentences),
        table=table.drop(columns="draws").assign(probability=[probability(p, int(n)) for p, n in shares]),
        links=("rho_difference", "loadings_forest", "budgets"),
    )


def closest_languages(reading: Reading, point: np.ndarray, draws: np.ndarray) -> pd.DataFrame:
    """rho of each identified factor with each language, and how far above the nearest other language.

    Parameters
    ----------
    reading : Reading
    point : ndarray, (factor, language)
    draws : ndarray, (draw, factor, language)
        All factors of the leading solution.

    Returns
    -------
    pandas.DataFrame
        ``factor, language, rho, rho - other`` with intervals, ``probability`` that the difference is
        above 0, ``draws``, ``goes with`` (the language's name where rho and the difference are both
        credibly above 0, else empty).
    """
    assert reading.solution is not None
    rows = []
    for factor in reading.factors:
        k = reading.solution.factors.index(factor)
        for l, language in enumerate(reading.languages):
            rest = [m for m in range(len(reading.languages)) if m != l]
            apart = draws[:, k, l] - draws[:, k, rest].max(axis=1)
            apart = apart[np.isfinite(apart)]
            if not len(apart):
                continue
            low, high = reading.interval(draws[:, k, l])
            least, most = reading.interval(apart)
            middle = np.median(apart) if reading.regression else point[k, l] - point[k, rest].max()
            sure = least > 0 and low > 0
            rows.append(
                (
                    factor, language_name(language), point[k, l], low, high, middle, least, most,
                    float((apart > 0).mean()), len(apart), language_name(language) if sure else "",
                )
            )  # fmt: skip
    gap = f"rho {MINUS} other"
    columns = [
        "factor",
        "language",
        "rho",
        f"rho{LOWER}",
        f"rho{UPPER}",
        gap,
        f"{gap}{LOWER}",
        f"{gap}{UPPER}",
    ]
    return pd.DataFrame(rows, columns=[*columns, "probability", "draws", "goes with"])


def _closer(reading: Reading, row: pd.Series) -> str:
    gap = f"rho {MINUS} other"
    rest = [name for name in map(language_name, reading.languages) if name != row["language"]]
    than = f"with {rest[0]}" if len(rest) == 1 else "with any other language"
    return (
        f"{row['factor']} goes with {row['language']} text more than {than} (rho "
        f"{with_interval(row['rho'], row[f'rho{LOWER}'], row[f'rho{UPPER}'])}, higher by "
        f"{with_interval(row[gap], row[f'{gap}{LOWER}'], row[f'{gap}{UPPER}'])}, probability "
        f"{probability(row['probability'], int(row['draws']))})"
    )


def _carriers(reading: Reading, sure: pd.DataFrame) -> list[str]:
    """The benchmarks of the factors that go with a language, largest loadings first."""
    rows = reading.loadings()
    out = []
    for factor in sure["factor"].drop_duplicates():
        clear = rows[(rows["factor"] == factor) & ~((rows["lower"] <= 0) & (rows["upper"] >= 0))]
        clear = clear.sort_values("mean", ascending=False)
        part = clear[clear["mean"] >= SALIENT]
        part = part if len(part) else clear[clear["mean"] >= READABLE]
        names = [
            f"{r['benchmark']} {with_interval(r['mean'], r['lower'], r['upper'])}"
            for _, r in part.head(5).iterrows()
        ]
        more = f" and {len(part) - 5} more" if len(part) > 5 else ""
        if names:
            out.append(f"{factor} loads on {', '.join(names)}{more}.")
    return out


def _free(reading: Reading) -> list[str]:
    """Benchmarks in a language that go much, and little, with its tokens given the rest."""
    slopes = benchmark_slopes(reading)
    out = []
    for language in reading.languages:
        part = slopes[slopes["language"] == language]
        own = part[part["benchmark_language"] == language]
        if own.empty:
            continue
        much = own[(own["lower"] > 0) & (own["slope"] >= LITTLE)].sort_values("slope", ascending=False)
        little = own[(own["slope"].abs() < LITTLE) & (own["upper"] < MUCH) & (own["lower"] > -MUCH)]
        rest = len(own) - len(much) - len(little)
        name = language_name(language)
        parts = [f"sd higher on {_slopes(much)}"] if len(much) else []
        if len(little):
            parts.append(f"little or nothing on {_slopes(little)}{_elsewhere(slopes, little, language)}")
        if rest:
            parts.append(f"open for {plural(rest, 'other' if parts else 'benchmark')}")
        out.append(
            f"{name} benchmarks, with ten times the {name} tokens and the other predictors held fixed: "
            f"{'; '.join(parts)}."
        )
    return out


def _elsewhere(slopes: pd.DataFrame, little: pd.DataFrame, language: str) -> str:
    """ ", of which 6 go with English tokens": those that rise clearly with another language's tokens."""
    others = slopes[
        (slopes["language"] != language)
        & slopes["benchmark"].isin(little["benchmark"])
        & (slopes["lower"] > 0)
        & (slopes["slope"] >= LITTLE)
    ]
    counts = others.groupby("language", sort=False)["benchmark"].nunique()
    if counts.empty:
        return ""
    told = ", ".join(f"{n} rise with {language_name(str(l))} tokens" for l, n in counts.items())
    return f" (of these {told})"


def _slopes(rows: pd.DataFrame) -> str:
    return listed(
        (f"{r['benchmark']} {with_interval(r['slope'], r['lower'], r['upper'])}" for _, r in rows.iterrows()),
        8,
    )


def how_much(reading: Reading, leading: int = 4) -> Answer:
    """What goes with ten times the tokens, on factors and in score points.

    Parameters
    ----------
    reading : Reading
    leading : int
        Benchmarks shown for each language, those with the largest slopes.
    """
    ask: dict[str, Any] = {"key": "tokens", "question": TOKENS_QUESTION}
    why = reading.no_budgets()
    factors = _factor_slopes(reading)
    if why or factors.empty:
        return Answer(**ask, cannot=why or "This run has no slopes; fit with --budget separate.")
    slopes = benchmark_slopes(reading)
    rows, parts = [], []
    for language in reading.languages:
        name = language_name(language)
        on = factors[factors["language"] == language]
        rows += [("ability", r["factor"], name, "sd", *_three(r)) for _, r in on.iterrows()]
        if len(on):
            top = on.iloc[int(np.argmax(on["slope"].abs()))]
            parts.append(
                f"ten times the {name} {_of(reading)} with {with_interval(*_three(top))} sd on {top['factor']}"
            )
        part = slopes[slopes["language"] == language]
        part = part[(part["lower"] > 0) | (part["upper"] < 0)]
        order = part["slope"].abs().sort_values(ascending=False, kind="stable").index[:leading]
        found = [_in_points(reading, r, name) for _, r in part.loc[order].iterrows()]
        rows += sorted(found, key=lambda row: -abs(row[4]))
    told = "; ".join(parts)
    table = pd.DataFrame(
        rows, columns=["kind", "on", "tokens", "unit", "per ×10", f"per ×10{LOWER}", f"per ×10{UPPER}"]
    )
    return Answer(
        **ask,
        verdict=f"{told[:1].upper()}{told[1:]}.",
        sentences=(*_score_words(table), _range(reading), _basis(reading)),
        table=table,
        links=("budgets", *(f"{factor}_{language}" for factor, language in main_relations(reading))),
    )


def _three(row: pd.Series) -> tuple[float, float, float]:
    return float(row["slope"]), float(row["lower"]), float(row["upper"])


def _of(reading: Reading) -> str:
    return "tokens go" if reading.regression is not None and _separate(reading) else "budget goes"


def _separate(reading: Reading) -> bool:
    bayes = reading.analysis.bayes
    return bayes is not None and any(str(p).startswith("log10 D_") for p in bayes.draws["predictor"].values)


def _factor_slopes(reading: Reading) -> pd.DataFrame:
    """``factor, language, slope, lower, upper`` of the identified factors."""
    columns = ["factor", "language", "slope", "lower", "upper"]
    joint = reading.regression
    found = joint if joint is not None else reading.analysis.pca_budgets
    if found is None or found.slopes.empty:
        return pd.DataFrame(columns=columns)
    middle = "median" if joint is not None else "estimate"
    names = {f"log10 D_{l}": l for l in reading.languages} | {f"log10 N*D_{l}": l for l in reading.languages}
    names |= {f"log10_budget_{l}": l for l in reading.languages}
    part = found.slopes.assign(language=found.slopes["predictor"].map(names), slope=found.slopes[middle])
    return part[part["language"].notna() & part["factor"].isin(reading.factors) & part["slope"].notna()][
        columns
    ]


def _in_points(reading: Reading, row: pd.Series, name: str) -> tuple[str, str, str, str, float, float, float]:
    """A row of the table: a benchmark's slope in score units, of 100 where its range is 0 to 1."""
    facts = reading.analysis.table.benchmarks.loc[str(row["benchmark"])]
    fraction = facts["min"] == 0 and facts["max"] == 1
    times = (100.0 if fraction else 1.0) * float(row["sd"])
    if not bool(facts["higher_is_better"]):
        times = -times
    low, high = sorted((times * float(row["lower"]), times * float(row["upper"])))
    unit = "points of 100" if fraction else "score units"
    return "benchmark", str(row["benchmark"]), name, unit, times * float(row["slope"]), low, high


def _score_words(table: pd.DataFrame) -> list[str]:
    out = []
    for language, part in table[table["kind"] == "benchmark"].groupby("tokens", sort=False):
        cells = [
            f"{r['on']} {with_interval(r['per ×10'], r[f'per ×10{LOWER}'], r[f'per ×10{UPPER}'], 1)}"
            for _, r in part.iterrows()
        ]
        unit = part["unit"].iloc[0]
        out.append(
            f"In scores, ten times the {language} tokens, the rest held fixed: {', '.join(cells)} ({unit})."
        )
    return out


def _range(reading: Reading) -> str:
    models = reading.analysis.table.scored_models
    parts = []
    for language in reading.languages:
        values = models[f"tokens_b_{language}"].to_numpy(dtype=float, na_value=np.nan)
        values = values[values > 0]
        name = language_name(language)
        parts.append(f"{name} {significant(values.min())} to {significant(values.max())} billion")
    return (
        f"The tokens seen here are {', '.join(parts)}; nothing is claimed beyond. `factorlab plan` turns a target "
        "score into tokens."
    )


def _basis(reading: Reading) -> str:
    if reading.regression is not None:
        return (
            "Slopes are those of the joint regression, parameters and the other languages held fixed; those of a "
            "benchmark add over all abilities (slope times loading times the benchmark's sd), so they do not "
            "hang on how the axes lie."
        )
    n = count(reading.budgets.notna().sum().min())
    return (
        f"Slopes of abilities are on one log budget (parameters times tokens) at a time, from {n} models or more; "
        "those of benchmarks are least squares with parameters and all languages together; both clustered by lineage."
    )
