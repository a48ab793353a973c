"""Whether relations with budgets hold within families of models, or only between them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from factorlab.inference.budgets import BudgetRegression
from factorlab.inference.joint_budgets import budget_spreads
from factorlab.questions.answer import LOWER, UPPER, Answer
from factorlab.questions.drivers import main_relations
from factorlab.questions.family_split import FamilySplit, split_by_family
from factorlab.questions.reading import Reading
from factorlab.wording import language_name, number, plural, with_interval

GROWN = 0.1
"""A continual stage counts where it adds a tenth of a factor of ten to the tokens, or more."""


def within_families(reading: Reading) -> Answer:
    """The main correlations between families, within them, and from parent to child."""
    ask: dict[str, Any] = {
        "key": "families",
        "question": "Do the relations hold within families, or only between them?",
    }
    why = reading.no_budgets()
    relations = relations_of(reading)
    if not why and len(set(reading.family)) == len(reading.family):
        why = "Every model is a family of its own; columns family and base_model say which belong together."
    if why or not relations:
        return Answer(**ask, cannot=why or "No rho could be computed.")
    rows, verdicts, sentences = [], [], []
    for factor, language in relations:
        row = _row(reading, factor, language, _split(reading, factor, language))
        rows.append(row)
        verdicts.append(_verdict(factor, language, row))
        told = _children(reading, factor, language)
        if told:
            sentences.append(told)
    table = pd.DataFrame(rows)
    if all("partial" in row for row in rows):
        sentences.append(
            "Within, size fixed: the posterior's correlation given the family and the number of parameters."
        )
    sentences.append(
        "Between: correlation of family means. Within: of deviations from the family's mean, over families of two "
        f"models or more. {_how(reading)} Models of a family differ in size, and their budgets with it."
    )
    return Answer(
        **ask,
        verdict=f"{'; '.join(verdicts)}.",
        sentences=tuple(sentences),
        table=table.rename(columns=NAMES),
        links=("lineage_contrasts", "budgets"),
    )


NAMES = {
    "partial": "within, size fixed",
    f"partial{LOWER}": f"within, size fixed{LOWER}",
    f"partial{UPPER}": f"within, size fixed{UPPER}",
}


def relations_of(reading: Reading) -> list[tuple[str, str]]:
    """(factor, language): the identified factor with the largest rho of the leading solution."""
    rho = reading.rho
    if rho is None or reading.solution is None:
        return main_relations(reading)
    out = []
    places = [reading.solution.factors.index(f) for f in reading.factors]
    for l, language in enumerate(reading.languages):
        have = [k for k in places if np.isfinite(rho[0][k, l])]
        if have:
            out.append((reading.solution.factors[max(have, key=lambda k: abs(rho[0][k, l]))], language))
    return out


def _split(reading: Reading, factor: str, language: str) -> FamilySplit:
    """Of every posterior draw, or of the point abilities and published budgets."""
    solution = reading.solution
    assert solution is not None
    k = solution.factors.index(factor)
    if reading.regression is not None:
        spread = budget_spreads(reading.analysis.table, solution)[language]
        known = spread.published
        ability, x = spread.ability[:, known][:, :, [k]], spread.budget[:, known]
        return split_by_family(ability, x, reading.family[known])
    budget = reading.budgets[language].to_numpy()
    ability = solution.stacked("ability").mean(axis=0)[None][:, :, [k]]
    known = np.isfinite(budget) & np.isfinite(ability[0, :, 0])
    return split_by_family(ability[:, known], budget[known][None], reading.family[known])


def _row(reading: Reading, factor: str, language: str, split: FamilySplit) -> dict[str, object]:
    row: dict[str, object] = {"factor": factor, "language": language_name(language)}
    parts = (
        ("between", split.between[:, 0], split.n_families, "families", split.n_families),
        ("within", split.within[:, 0], split.n_within - split.n_groups + 1, "models within", split.n_within),
    )
    for name, values, n, counted, count in parts:
        middle = float(np.median(values))
        joint = reading.regression is not None
        low, high = reading.interval(values) if joint else _fisher(middle, n, reading.level)
        row |= {name: middle, f"{name}{LOWER}": low, f"{name}{UPPER}": high, counted: count}
    if reading.regression is not None:
        found = _form(reading.regression, factor, language, "partial")
        if found is not None:
            row |= {
                "partial": found["median"],
                f"partial{LOWER}": found["lower"],
                f"partial{UPPER}": found["upper"],
            }
    return row


def _fisher(r: float, n: int, level: float) -> tuple[float, float]:
    """Fisher's interval of a correlation of n points; NaN with fewer than 4."""
    from scipy.stats import norm

    if n < 4 or not np.isfinite(r):
        return np.nan, np.nan
    half = norm.ppf(0.5 + level / 2) / np.sqrt(n - 3)
    centre = np.arctanh(np.clip(r, -1 + 1e-15, 1 - 1e-15))
    return float(np.tanh(centre - half)), float(np.tanh(centre + half))


def _form(regression: BudgetRegression, factor: str, language: str, form: str) -> pd.Series | None:
    table = regression.table
    found = table[(table["factor"] == factor) & (table["budget"] == language) & (table["form"] == form)]
    return None if found.empty or not np.isfinite(found["median"].iloc[0]) else found.iloc[0]


def _verdict(factor: str, language: str, row: dict[str, object]) -> str:
    between, within = (_words(row, name) for name in ("between", "within"))
    clear_between, clear_within = (_clear(row, name) for name in ("between", "within"))
    if not np.isfinite(float(row["within"])):  # type: ignore[arg-type]
        return f"rho({factor}, {language}) is {between} between families and cannot be told within them"
    if clear_within and clear_between:
        told = "holds both within families and between them"
    elif clear_within:
        told = "holds within families and is open between them"
    elif clear_between:
        told = "holds between families and is open within them"
    else:
        told = "is open both within families and between them"
    if "partial" in row:
        within += f" within ({_words(row, 'partial')} at given size)"
    else:
        within += " within"
    return f"rho({factor}, {language}) {told}: {within}, {between} between"


def _words(row: dict[str, object], name: str) -> str:
    return with_interval(row[name], row[f"{name}{LOWER}"], row[f"{name}{UPPER}"])


def _clear(row: dict[str, object], name: str) -> bool:
    low, high = float(row[f"{name}{LOWER}"]), float(row[f"{name}{UPPER}"])  # type: ignore[arg-type]
    return low > 0 or high < 0


def _children(reading: Reading, factor: str, language: str) -> str:
    """How many models trained further on a language are above their own base."""
    contrasts = reading.regression.contrasts if reading.regression is not None else None
    column = f"log10_tokens_{language}"
    if contrasts is None or contrasts.empty or column not in contrasts:
        return ""
    part = contrasts[(contrasts["factor"] == factor) & (contrasts[column] > GROWN)]
    if part.empty:
        return ""
    above, below = int((part["lower"] > 0).sum()), int((part["upper"] < 0).sum())
    return (
        f"From parent to child: of {plural(len(part), 'model')} trained further with {language_name(language)} text, "
        f"{above} are above their own base on {factor} (interval above 0), {below} below; median difference "
        f"{number(part['median'].median())} sd."
    )


def _how(reading: Reading) -> str:
    if reading.regression is not None:
        return "Both over the posterior, for the models with a published budget."
    return "Abilities are taken as known; intervals are Fisher's."
