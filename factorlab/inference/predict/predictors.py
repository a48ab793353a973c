"""Predictors of abilities: sizes, tokens of each language, dates; with the errors of what is estimated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.design import MIN_KNOWN, BudgetDesign, LanguageTokens, design_budgets
from factorlab.inference.priors import Priors
from factorlab.score_table import ScoreTable

DATE = "release_date"

TOTAL = "tokens_b_total"


class Predictors(NamedTuple):
    """Standardised predictors of the scored models, and what moves them.

    Attributes
    ----------
    names : tuple of str
    x : ndarray, (model, predictor)
        Where a value is unknown, the mean of the known ones.
    center, scale : ndarray, (predictor,)
        ``x = (value - center) / scale``; values are log10 of billions for sizes and tokens, days for dates.
    error_row, error_predictor, error_index : ndarray of int, (entry,)
    error_weight : ndarray, (entry,)
        x moves by weight times a standard normal: estimated counts, unknown values.
    n_errors : int
    known : ndarray of bool, (model, predictor)
    """

    names: tuple[str, ...]
    x: np.ndarray
    center: np.ndarray
    scale: np.ndarray
    error_row: np.ndarray
    error_predictor: np.ndarray
    error_index: np.ndarray
    error_weight: np.ndarray
    n_errors: int
    known: np.ndarray


class _Column(NamedTuple):
    name: str
    value: np.ndarray
    known: np.ndarray
    center: float
    scale: float
    errors: list[tuple[int, tuple[object, ...], float]]


def read_predictors(
    table: ScoreTable, covariates: Sequence[str] = (), design: BudgetDesign | None = None
) -> Predictors:
    """Predictors of a table: log size, log tokens of each language (or in all), release date, covariates.

    Token counts add along the tree of base models; each count's error (official, derived, guessed: see
    `factorlab.inference.priors.Priors`) moves log10 of the sums to first order. An unknown value is normal
    with the mean and spread of the known ones.

    Parameters
    ----------
    table : ScoreTable
    covariates : sequence of str
        Further columns of the models table: numbers, true/false, or dates.
    design : BudgetDesign, optional
        Of the table; made here when not given.

    Raises
    ------
    InputError
        A covariate that is absent, text, or the same for all models.
    """
    priors = Priors()
    frame = table.scored_models
    design = design if design is not None else design_budgets(table, priors)
    columns = []
    params = _log10(frame, "params_b")
    if params is not None:
        columns.append(_plain("log10 N", params))
    languages = [_tokens(tokens, priors) for tokens in design.languages]
    columns += languages
    total = _log10(frame, TOTAL)
    if not languages and total is not None:
        columns.append(_plain("log10 D", total))
    if DATE in frame and DATE not in covariates:
        days = _days(frame[DATE])
        if days is not None:
            columns.append(_plain("release date", days))
    for name in covariates:
        columns.append(_plain(name, _covariate(frame, name)))
    return _join([c for c in columns if c is not None], len(frame))


def token_predictor(language: str) -> str:
    """Name of the predictor that is the log tokens of a language."""
    return f"log10 D_{language}"


def token_floors(table: ScoreTable) -> dict[str, float]:
    """d0 of every language that is a predictor: what is added to its counts, in billions.

    `Priors.token_floor_b` where some scored model has none of the language, else 0.
    """
    priors = Priors()
    design = design_budgets(table, priors)
    return {t.language: priors.token_floor_b if t.has_zero else 0.0 for t in design.languages}


def known_tokens(x: Predictors, language: str, floor: float) -> np.ndarray:
    """Tokens of a language of each scored model, both stages together, in billions; NaN where unknown.

    Parameters
    ----------
    x : Predictors
    language : str
        One that is a predictor.
    floor : float
        Its d0, see `token_floors`.
    """
    p = x.names.index(token_predictor(language))
    return np.where(x.known[:, p], 10 ** (x.center[p] + x.scale[p] * x.x[:, p]) - floor, np.nan)


def _log10(frame: pd.DataFrame, column: str) -> np.ndarray | None:
    if column not in frame:
        return None
    values = pd.to_numeric(frame[column], errors="coerce").to_numpy(dtype=float, na_value=np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        logs = np.where(values > 0, np.log10(values), np.nan)
    return logs if _varies(logs) else None


def _varies(values: np.ndarray) -> bool:
    known = values[np.isfinite(values)]
    return len(known) >= MIN_KNOWN and float(np.ptp(known)) > 1e-9


def _days(column: pd.Series) -> np.ndarray | None:
    dates = pd.to_datetime(column.astype("string").str.slice(0, 10), errors="coerce", format="mixed")
    days = (dates - pd.Timestamp("2020-01-01")).dt.days.to_numpy(dtype=float, na_value=np.nan)
    return days if _varies(days) else None


def _covariate(frame: pd.DataFrame, name: str) -> np.ndarray:
    if name not in frame:
        raise InputError(f"covariate '{name}' is no column of the models table; it has {list(frame.columns)}")
    column = frame[name]
    words = column.dropna().astype(str).str.lower().isin(["true", "false"])
    if len(words) and words.all():
        value = column.astype("string").str.lower().map({"true": 1.0, "false": 0.0})
        numbers = value.to_numpy(dtype=float, na_value=np.nan)
    else:
        numbers = pd.to_numeric(column, errors="coerce").to_numpy(dtype=float, na_value=np.nan)
        if not np.isfinite(numbers).any():
            days = _days(column)
            numbers = days if days is not None else numbers
    if not _varies(numbers):
        raise InputError(
            f"covariate '{name}' has fewer than {MIN_KNOWN} known numbers, true/false or dates, or no two "
            "different ones; give another column of the models table"
        )
    return numbers


def _plain(name: str, values: np.ndarray) -> _Column:
    """A column of numbers; an unknown one is drawn from the population of the known."""
    known = np.isfinite(values)
    center, scale = float(values[known].mean()), float(values[known].std())
    errors: list[tuple[int, tuple[object, ...], float]] = [
        (int(i), (name, int(i)), scale) for i in np.flatnonzero(~known)
    ]
    return _Column(name, np.where(known, values, center), known, center, scale, errors)


def _tokens(tokens: LanguageTokens, priors: Priors) -> _Column:
    """log10(D_i + d0) of one language, to first order in the errors of the counts along the tree."""
    unit = tokens.log10_count[tokens.unit_node]
    middle = float(unit.mean()) if len(unit) else tokens.center
    spread = max(float(unit.std()) if len(unit) > 1 else 0.0, 0.3)
    bounded = np.minimum(middle, tokens.upper - 0.3)
    latent = bounded[tokens.latent_index] + tokens.offset if tokens.n_latents else np.zeros(len(tokens.known))
    own = np.where(tokens.known > 0, 10**tokens.log10_count, np.where(tokens.unknown > 0, 10**latent, 0.0))
    n_nodes = len(own)
    padded = np.append(own, 0.0)
    d0 = priors.token_floor_b if tokens.has_zero else 0.0
    total = padded[tokens.path].sum(axis=1) + d0
    with np.errstate(divide="ignore"):
        value = np.log10(total)
    unknown = np.append(tokens.unknown, 0.0)[tokens.path].any(axis=1)
    errors: list[tuple[int, tuple[object, ...], float]] = []
    for i, path in enumerate(tokens.path):
        for n in path[path < n_nodes]:
            share = own[n] / total[i]
            if tokens.known[n] > 0:
                errors.append(
                    (i, (tokens.language, "e", int(tokens.error_index[n])), share * tokens.error_sd[n])
                )
            elif tokens.unknown[n] > 0:
                errors.append((i, (tokens.language, "u", int(tokens.latent_index[n])), share * spread))
    return _Column(token_predictor(tokens.language), value, ~unknown, tokens.center, tokens.scale, errors)


def _join(columns: list[_Column], n_models: int) -> Predictors:
    names = tuple(c.name for c in columns)
    center = np.array([c.center for c in columns])
    scale = np.array([c.scale for c in columns])
    x = np.zeros((n_models, len(columns)))
    known = np.zeros((n_models, len(columns)), dtype=bool)
    number: dict[tuple[object, ...], int] = {}
    rows, at, index, weight = [], [], [], []
    for p, c in enumerate(columns):
        x[:, p] = (c.value - c.center) / c.scale
        known[:, p] = c.known
        for i, key, size in c.errors:
            if size == 0:
                continue
            rows.append(i)
            at.append(p)
            index.append(number.setdefault(key, len(number)))
            weight.append(size / c.scale)
    return Predictors(
        names, x, center, scale, np.array(rows, dtype=int), np.array(at, dtype=int),
        np.array(index, dtype=int), np.array(weight, dtype=float), len(number), known,
    )  # fmt: skip
