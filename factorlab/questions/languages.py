"""Which abilities, and which benchmarks, go with text in one language rather than another."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from factorlab.inference.conclusions import READABLE, SALIENT
from factorlab.questions.amounts import factor_slopes, separate_tokens, three_numbers
from factorlab.questions.answer import LOWER, UPPER, Answer
from factorlab.questions.reading import Reading, named
from factorlab.wording import (
    MINUS,
    language_name,
    listed,
    plural,
    probability,
    with_interval,
)

LITTLE = 0.25
"""A benchmark rises by less than this with ten times the tokens (in its sd): it goes little with them."""

MUCH = 0.5
"""The interval of a slope called little stays below this."""

LANGUAGES_QUESTION = "Which abilities go with training text in which language?"


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
    against = _against(table[table["factor"].isin(kept) & ~table["factor"].isin(head["factor"])])
    parts += against.values()
    open_factors = [f for f in kept if f not in set(head["factor"]) and f not in against]
    verdict = (
        "; ".join(parts) if parts else "No ability goes with one language clearly more than with another"
    )
    if open_factors and parts:
        verdict += f"; for {listed(open_factors)} the languages cannot be told apart"
    sentences = [*_carriers(reading, head), *_free_abilities(reading), *_free(reading)]
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
        credibly above 0 and no other rho is larger in size, else empty).
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
            sure = least > 0 and low > 0 and point[k, l] >= np.abs(point[k, rest]).max()
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


def _against(table: pd.DataFrame) -> dict[str, str]:
    """Factors whose largest rho is credibly below 0, each with a clause."""
    out = {}
    for factor, part in table.groupby("factor", sort=False):
        row = part.iloc[int(np.argmax(part["rho"].abs()))]
        if row[f"rho{UPPER}"] < 0:
            rho = with_interval(row["rho"], row[f"rho{LOWER}"], row[f"rho{UPPER}"])
            out[str(factor)] = f"{factor} is lower where there is more {row['language']} text (rho {rho})"
    return out


def _closer(reading: Reading, row: pd.Series) -> str:
    gap = f"rho {MINUS} other"
    rest = [name for name in map(language_name, reading.languages) if name != row["language"]]
    than = f"with {rest[0]}" if len(rest) == 1 else "with any other language"
    return (
        f"{row['factor']}{_briefly(reading, row['factor'])} goes with {row['language']} text more than {than} (rho "
        f"{with_interval(row['rho'], row[f'rho{LOWER}'], row[f'rho{UPPER}'])}, higher by "
        f"{with_interval(row[gap], row[f'{gap}{LOWER}'], row[f'{gap}{UPPER}'])}, probability "
        f"{probability(row['probability'], int(row['draws']))})"
    )


def _carriers(reading: Reading, sure: pd.DataFrame) -> list[str]:
    """The benchmarks of the factors that go with a language, largest loadings first."""
    out = []
    for factor in sure["factor"].drop_duplicates():
        part = _loaded(reading, factor)
        names = [
            f"{r['benchmark']} {with_interval(r['mean'], r['lower'], r['upper'])}"
            for _, r in part.head(5).iterrows()
        ]
        more = f" and {len(part) - 5} more" if len(part) > 5 else ""
        if names:
            out.append(f"{factor} loads on {', '.join(names)}{more}.")
    return out


def _loaded(reading: Reading, factor: str) -> pd.DataFrame:
    """Benchmarks that load clearly on a factor, largest first: the salient ones, else the readable."""
    rows = reading.loadings()
    clear = rows[(rows["factor"] == factor) & ~((rows["lower"] <= 0) & (rows["upper"] >= 0))]
    clear = clear.sort_values("mean", ascending=False)
    salient = clear[clear["mean"] >= SALIENT]
    return salient if len(salient) else clear[clear["mean"] >= READABLE]


def _briefly(reading: Reading, factor: str) -> str:
    """ " (NIILC, WMT20-en-ja, JEMHopQA)": what a factor is, in names."""
    names = list(_loaded(reading, factor)["benchmark"])
    return f" ({listed(names, 3)})" if names else ""


def _free_abilities(reading: Reading) -> list[str]:
    """Abilities that go little with a language's tokens given parameters and the other languages."""
    if reading.regression is None or not separate_tokens(reading):
        return []
    slopes = factor_slopes(reading)
    little = slopes[(slopes["slope"].abs() < LITTLE) & (slopes["upper"] < MUCH) & (slopes["lower"] > -MUCH)]
    out = []
    for language, part in little.groupby("language", sort=False):
        names = [f"{r['factor']} {with_interval(*three_numbers(r))}" for _, r in part.iterrows()]
        out.append(
            f"Abilities that go little or not at all with {language_name(str(language))} tokens, given the rest (sd "
            f"per ten times the tokens): {listed(names)}."
        )
    return out


def _free(reading: Reading) -> list[str]:
    """Benchmarks in a language that go much, and little, with its tokens given the rest."""
    slopes = reading.slopes
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
        parts = [f"higher, in sd, on {_slopes(much)}"] if len(much) else []
        if len(little):
            parts.append(f"{LITTLE:g} sd or less on {_slopes(little)}{_elsewhere(slopes, little, language)}")
        if rest:
            parts.append(f"open for {plural(rest, 'other' if parts else 'benchmark')}")
        out.append(
            f"{name} benchmarks, with ten times the {name} tokens and the other predictors held fixed: "
            f"{'; '.join(parts)}."
        )
    return out


def _elsewhere(slopes: pd.DataFrame, little: pd.DataFrame, language: str) -> str:
    """ ", of which 6 go with English tokens": those that rise clearly with another language's tokens."""
    clear = slopes[
        (slopes["language"] != language)
        & slopes["benchmark"].isin(little["benchmark"])
        & (slopes["lower"] > 0)
        & (slopes["slope"] >= LITTLE)
    ]
    counts = clear.groupby("language", sort=False)["benchmark"].nunique()
    told = [
        f"{'all' if n == len(little) else n} with {language_name(str(l))} tokens" for l, n in counts.items()
    ]
    return f" (of these rise clearly: {', '.join(told)})" if told else ""


def _slopes(rows: pd.DataFrame) -> str:
    return listed(
        (f"{r['benchmark']} {with_interval(r['slope'], r['lower'], r['upper'])}" for _, r in rows.iterrows()),
        8,
    )
