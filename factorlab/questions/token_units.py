"""Token counts as units that can be wrong together, and budgets when they are.

A share that was guessed or derived belongs to the family of its root models; an official count, and
every continual stage, is a unit of its own (as in `factorlab.inference.design`).
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import pandas as pd

from factorlab.inference.budgets import published_budgets
from factorlab.lineage import Lineage, TokenSources, build_lineage, token_sources
from factorlab.scores import ScoreTable


class TokenUnits(NamedTuple):
    """Counts of one language, over the units that can be wrong.

    Attributes
    ----------
    labels, status : tuple of str, (unit,)
    tokens_b : ndarray, (unit, model)
        Tokens in each scored model's published count that come from the unit, in billions.
    most : ndarray, (unit,)
        The factor at which the unit's language would be all of a model's declared tokens; inf where
        totals are not declared.
    published_b : ndarray, (model,)
        NaN where the budget is not published.
    params_b : ndarray, (model,)
    """

    labels: tuple[str, ...]
    status: tuple[str, ...]
    tokens_b: np.ndarray
    most: np.ndarray
    published_b: np.ndarray
    params_b: np.ndarray


def token_units(table: ScoreTable, language: str) -> TokenUnits:
    """The units of one language that some model with a published budget has tokens of.

    Raises
    ------
    InputError
        No column for the language, or none with parameters.
    """
    lineage = build_lineage(table.models)
    sources = token_sources(table.models, lineage, language)
    known = np.isfinite(published_budgets(table)[language].to_numpy())
    names = table.model_names
    published = np.where(known, table.scored_models[f"tokens_b_{language}"].to_numpy(dtype=float), np.nan)
    total = _column(table.models, "tokens_b_total")
    amounts: dict[tuple[str, str], np.ndarray] = {}
    most: dict[tuple[str, str], float] = {}
    for i in np.flatnonzero(known):
        for node in (int(i), *lineage.ancestors(int(i))):
            own = sources.own_tokens_b[node]
            if not own > 0:
                continue
            key = _unit(node, sources, lineage)
            amounts.setdefault(key, np.zeros(len(names)))[i] += own
            if sources.is_root[node] and total[node] > 0:
                most[key] = min(most.get(key, np.inf), max(1.0, float(total[node] / own)))
    shape = (len(amounts), len(names))
    return TokenUnits(
        tuple(label for label, _ in amounts),
        tuple(status for _, status in amounts),
        np.array(list(amounts.values())).reshape(shape),
        np.array([most.get(key, np.inf) for key in amounts]),
        published,
        _column(table.scored_models, "params_b"),
    )


def shifted_budgets(units: TokenUnits, factor: np.ndarray) -> np.ndarray:
    """log10(N D_l) when every unit's tokens are this many times what the table says.

    Parameters
    ----------
    units : TokenUnits
    factor : ndarray, (..., unit)

    Returns
    -------
    ndarray, (..., model)
        NaN where the budget is not published; log10 of parameters times tokens.
    """
    tokens = units.published_b + (factor - 1.0) @ units.tokens_b
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.log10(tokens) + np.log10(units.params_b) + 18.0


def _unit(node: int, sources: TokenSources, lineage: Lineage) -> tuple[str, str]:
    status = str(sources.status[node])
    shared = bool(sources.is_root[node]) and status in ("derived", "guessed")
    return (lineage.family[node] if shared else lineage.names[node]), status


def _column(models: pd.DataFrame, name: str) -> np.ndarray:
    if name not in models:
        return np.full(len(models), np.nan)
    return models[name].to_numpy(dtype=float, na_value=np.nan)
