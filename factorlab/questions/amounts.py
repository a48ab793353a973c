"""How many tokens go with how much: on abilities, and in score points."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from factorlab.questions.answer import LOWER, UPPER, Answer
from factorlab.questions.drivers import main_relations
from factorlab.questions.reading import Reading
from factorlab.wording import count, language_name, significant, with_interval


def how_much(reading: Reading, leading: int = 4) -> Answer:
    """What goes with ten times the tokens, on factors and in score points.

    Parameters
    ----------
    reading : Reading
    leading : int
        Benchmarks shown for each language, those with the largest slopes.
    """
    ask: dict[str, Any] = {"key": "tokens", "question": "How many tokens go with how much?"}
    why = reading.no_budgets()
    factors = factor_slopes(reading)
    if why or factors.empty:
        return Answer(**ask, cannot=why or "This run has no slopes; fit with --budget separate.")
    slopes = reading.slopes
    rows, parts = [], []
    for language in reading.languages:
        name = language_name(language)
        on = factors[factors["language"] == language]
        rows += [("ability", r["factor"], name, "sd", *three_numbers(r)) for _, r in on.iterrows()]
        if len(on):
            top = on.iloc[int(np.argmax(on["slope"].abs()))]
            parts.append(
                f"ten times the {name} {_of(reading)} with {with_interval(*three_numbers(top))} sd on {top['factor']}"
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


def three_numbers(row: pd.Series) -> tuple[float, float, float]:
    """Slope, lower and upper bound of a row."""
    return float(row["slope"]), float(row["lower"]), float(row["upper"])


def _of(reading: Reading) -> str:
    return "tokens go" if reading.regression is not None and separate_tokens(reading) else "budget goes"


def separate_tokens(reading: Reading) -> bool:
    """Whether tokens of each language are predictors of their own, beside the parameters."""
    bayes = reading.analysis.bayes
    return bayes is not None and any(str(p).startswith("log10 D_") for p in bayes.draws["predictor"].values)


def factor_slopes(reading: Reading) -> pd.DataFrame:
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
        f"The tokens seen here are {', '.join(parts)}; nothing is claimed beyond. The verb factorlab plan turns a "
        "target score into tokens."
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
