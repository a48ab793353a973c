"""Which benchmarks, and which guessed token counts, the relations with budgets hang on."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pandas as pd

from factorlab.questions.answer import LOWER, UPPER, Answer
from factorlab.questions.quick_pca import budget_correlations, without_each_benchmark
from factorlab.questions.reading import Reading
from factorlab.questions.token_units import TokenUnits, shifted_budgets, token_units
from factorlab.wording import language_name, listed, number, percent, plural

SMALL_MOVE = 0.1
"""A rho that moves by less than this when one benchmark goes hangs on none of them."""

MOST_UNITS = 10
"""So many guesses are tried in all combinations; more at random."""


def main_relations(reading: Reading) -> list[tuple[str, str]]:
    """(factor, language): for each language the identified factor with the largest rho of PCA."""
    pca = reading.analysis.pca
    if pca is None:
        return []
    out = []
    for language, rho in reading.two_step.items():
        allowed = [k for k, f in enumerate(pca.factors) if f in reading.factors and np.isfinite(rho[k])]
        if allowed:
            out.append((pca.factors[max(allowed, key=lambda k: abs(rho[k]))], language))
    return out


def which_benchmarks(reading: Reading, shown: int = 3) -> Answer:
    """How rho moves when PCA is done again without each benchmark.

    Parameters
    ----------
    reading : Reading
    shown : int
        Largest movers named for each relation.
    """
    ask: dict[str, Any] = {"key": "benchmarks", "question": "Which benchmarks drive each budget relation?"}
    why = reading.no_budgets() or _no_pca(reading)
    if not why and len(reading.analysis.table.benchmark_names) < 4:
        why = "Fewer than 4 benchmarks: none can be left out."
    if why:
        return Answer(**ask, cannot=why)
    table = leave_one_benchmark_out(reading)
    verdicts, sentences, rows = [], [], []
    for factor, language in main_relations(reading):
        part = table[(table["factor"] == factor) & (table["language"] == language)]
        order = part["change"].abs().sort_values(ascending=False, kind="stable").index[:shown]
        top = part.loc[order]
        rows.append(top)
        first = top.iloc[0]
        hangs = (
            "hangs on no single benchmark"
            if abs(first["change"]) < SMALL_MOVE
            else "hangs on single benchmarks"
        )
        verdicts.append(
            f"rho({factor}, {language}) {hangs}: {number(first['rho with all'])} with all, between "
            f"{number(part['rho without'].min())} and {number(part['rho without'].max())} with any one left out"
        )
        movers = ", ".join(f"{r['benchmark']} {_signed(r['change'])}" for _, r in top.iterrows())
        sentences.append(f"rho({factor}, {language}) moves most without {movers}.")
    sentences.append(
        "PCA fitted again without each benchmark, in two steps; factors matched to those of the full table."
    )
    shown_rows = pd.concat(rows, ignore_index=True) if rows else table.head(0)
    return Answer(
        **ask,
        verdict=f"{'; '.join(verdicts)}." if verdicts else "",
        cannot="" if verdicts else "No rho could be computed in two steps.",
        sentences=tuple(sentences) if verdicts else (),
        table=shown_rows.assign(language=shown_rows["language"].map(language_name)),
        links=("loadings_forest", "budgets"),
    )


def leave_one_benchmark_out(reading: Reading) -> pd.DataFrame:
    """rho in two steps without each benchmark.

    Returns
    -------
    pandas.DataFrame
        A row a factor, language and benchmark left out: ``factor, language, benchmark, rho with all, rho
        without, change``.
    """
    pca, rows = reading.analysis.pca, reading.rows
    assert pca is not None
    assert rows is not None
    fits = without_each_benchmark(rows, pca.stacked("loading")[0])
    out = []
    for language, full in reading.two_step.items():
        rho = budget_correlations(fits.ability, reading.budgets[language].to_numpy())
        for k in range(rho.shape[1]):
            out.append(
                pd.DataFrame(
                    {
                        "factor": pca.factors[k], "language": language, "benchmark": pca.benchmarks,
                        "rho with all": full[k], "rho without": rho[:, k], "change": rho[:, k] - full[k],
                    }
                )
            )  # fmt: skip
    return pd.concat(out, ignore_index=True)


def guessed_tokens(reading: Reading, times: float = 2.0) -> Answer:
    """How far the main relations move when guessed token counts are off.

    Parameters
    ----------
    reading : Reading
    times : float
        Each guess is tried so many times as large and as small; never above a model's total tokens.
    """
    ask: dict[str, Any] = {"key": "ratios", "question": "Which token counts are guessed, and does it matter?"}
    why = reading.no_budgets() or _no_pca(reading)
    if why:
        return Answer(**ask, cannot=why)
    rows, verdicts, sentences = [], [], []
    for factor, language in main_relations(reading):
        units = token_units(reading.analysis.table, language)
        guessed = [i for i, status in enumerate(units.status) if status == "guessed"]
        name = language_name(language)
        if not guessed:
            sentences.append(
                f"No published {name} count is declared a guess (column tokens_b_{language}_status)."
            )
            continue
        found = guess_shifts(reading, factor, language, units, guessed, times)
        rows.append(found.assign(language=name))
        each = found[found["guess"] != ALL]
        worst = each.iloc[int(np.argmax((each["rho if half"] - each["rho if double"]).abs()))]
        together = found[found["guess"] == ALL].iloc[0]
        verdicts.append(
            f"rho({factor}, {language}) is {number(together['rho'])} as published and stays between "
            f"{number(together[f'rho{LOWER}'])} and {number(together[f'rho{UPPER}'])}"
        )
        affected = int(((units.tokens_b[guessed] > 0).any(axis=0)).sum())
        share = affected / int(np.isfinite(units.published_b).sum())
        least, most = (number(worst[f"rho if {way}"]) for way in ("half", "double"))
        sentences.append(
            f"{name}: guessed for {listed(found['guess'].iloc[:-1], 8)}, in the counts of {plural(affected, 'model')} "
            f"({percent(share, 0)} of those published); the one that matters most is {worst['guess']} "
            f"(rho {least} at 1/{times:g} of it, {most} at ×{times:g})."
        )
    if not verdicts:
        return Answer(
            **ask, verdict="No token count that enters is declared a guess.", sentences=tuple(sentences)
        )
    if any(len(part) - 1 > MOST_UNITS for part in rows):
        sentences.append(
            f"With more than {MOST_UNITS} guesses, {2**MOST_UNITS:,} random combinations were tried."
        )
    sentences.append(
        "PCA in two steps; models built on a guessed base move with it, and no language is given more tokens than its "
        "model's total. The verb factorlab tornado shows this beside other choices."
    )
    return Answer(
        **ask,
        verdict=f"With every guess at 1/{times:g} or ×{times:g}, in any combination, {'; '.join(verdicts)}.",
        sentences=tuple(sentences),
        table=_guess_table(pd.concat(rows, ignore_index=True)),
        links=("budgets", "flags"),
    )


ALL = "all, any combination"


def guess_shifts(
    reading: Reading, factor: str, language: str, units: TokenUnits, guessed: list[int], times: float
) -> pd.DataFrame:
    """rho of one relation with each guess off alone, and with all of them off in the worst combination.

    Returns
    -------
    pandas.DataFrame
        ``guess, rho, rho if half, rho if double``; in the last row (`ALL`) ``rho lower, rho upper``.
    """
    pca = reading.analysis.pca
    assert pca is not None
    ability = pca.stacked("ability")[:, :, [pca.factors.index(factor)]]

    def rho(factors: np.ndarray) -> np.ndarray:
        return budget_correlations(ability, shifted_budgets(units, factors))[:, 0]

    most = np.minimum(times, units.most[guessed])
    n = len(guessed)
    alone = np.ones((2 * n, len(units.labels)))
    alone[np.arange(n), guessed] = 1 / times
    alone[np.arange(n, 2 * n), guessed] = most
    single = rho(alone)
    if n <= MOST_UNITS:
        signs = np.array(list(product([False, True], repeat=n)))
    else:
        signs = np.random.default_rng(0).random((2**MOST_UNITS, n)) < 0.5
    together = np.ones((len(signs), len(units.labels)))
    together[:, guessed] = np.where(signs, most, 1 / times)
    combined = rho(together)
    now = float(rho(np.ones((1, len(units.labels))))[0])
    labels = [units.labels[i] for i in guessed]
    rows = [(label, now, single[i], single[n + i], np.nan, np.nan) for i, label in enumerate(labels)]
    rows.append((ALL, now, np.nan, np.nan, min(now, *single, *combined), max(now, *single, *combined)))
    columns = ["guess", "rho", "rho if half", "rho if double", f"rho{LOWER}", f"rho{UPPER}"]
    return pd.DataFrame(rows, columns=columns).assign(factor=factor)


def _guess_table(rows: pd.DataFrame) -> pd.DataFrame:
    named_rows = rows.rename(columns={f"rho{LOWER}": "lowest rho", f"rho{UPPER}": "highest rho"})
    single = named_rows[["rho if half", "rho if double"]]
    low = named_rows["lowest rho"].fillna(single.min(axis=1))
    high = named_rows["highest rho"].fillna(single.max(axis=1))
    return named_rows.assign(**{"lowest rho": low, "highest rho": high})[
        ["factor", "language", "guess", "rho", "lowest rho", "highest rho"]
    ]


def _no_pca(reading: Reading) -> str:
    return "" if reading.analysis.pca is not None else "This run has no PCA; fit with --method all or pca."


def _signed(value: float) -> str:
    return f"+{number(value)}" if value >= 0.005 else number(value)
