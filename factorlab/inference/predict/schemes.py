"""Schemes: which cells of a table are hidden in turn, to see how well they are predicted."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal, NamedTuple

import numpy as np

from factorlab.errors import InputError
from factorlab.inference.choose import assign_folds
from factorlab.lineage import build_lineage
from factorlab.score_table import ScoreTable

Scheme = Literal["cells", "lineage", "siblings", "compute"]

SCHEMES: dict[str, str] = {
    "cells": "held-out cells",
    "lineage": "lineage left out",
    "siblings": "all of a lineage but its smallest model left out",
    "compute": "larger compute",
}
"""Name of each scheme, and what it is called in figures."""

FEWEST_LEFT = 4
"""Models that must keep a score."""


class Fold(NamedTuple):
    """Cells hidden at once.

    Attributes
    ----------
    name : str
    hidden : ndarray of bool, (model, benchmark)
        Not seen by any method.
    scored : ndarray of bool, (model, benchmark)
        Of those, the ones that are predicted and scored.
    """

    name: str
    hidden: np.ndarray
    scored: np.ndarray


def allowed_schemes(table: ScoreTable) -> tuple[Scheme, ...]:
    """Schemes, of those that are run unasked, that a table has the facts for."""
    out: list[Scheme] = ["cells"]
    for scheme in ("lineage", "compute"):
        try:
            make_folds(table, scheme, 2, 0)
        except InputError:
            continue
        out.append(scheme)
    return tuple(out)


def make_folds(table: ScoreTable, scheme: Scheme, folds: int, seed: int) -> list[Fold]:
    """Cells to hide.

    Parameters
    ----------
    table : ScoreTable
    scheme : {"cells", "lineage", "siblings", "compute"}
        Cells dealt into folds, each model's evenly. Each lineage of two or more, or declared, its scores all
        hidden; the same but for its smallest model. The half of the models with the larger size times tokens;
        models of unknown compute are hidden, too, and not scored.
    folds, seed : int
        Of "cells".

    Raises
    ------
    InputError
        The table lacks what the scheme needs, or is too small.
    """
    if scheme not in SCHEMES:
        raise InputError(f"scheme '{scheme}' is unknown; give {', '.join(SCHEMES)}")
    observed = np.isfinite(table.scores)
    if scheme == "cells":
        if folds < 2:
            raise InputError(f"{folds} folds asked; give 2 or more")
        fold = assign_folds(observed, folds, seed)
        return [Fold(f"fold {f + 1}", fold == f, fold == f) for f in range(folds) if (fold == f).any()]
    if scheme == "compute":
        return [_larger_compute(table, observed)]
    return _lineages(table, observed, scheme == "siblings")


def _lineages(table: ScoreTable, observed: np.ndarray, keep_smallest: bool) -> list[Fold]:
    if not {"family", "base_model"} & set(table.models.columns):
        raise InputError(
            f"table '{table.name}' declares no lineages; give columns family or base_model in the models table, "
            "or --scheme cells"
        )
    family = build_lineage(table.models).family_of(table.model_names)
    sizes = _column(table, "params_b")
    out = []
    for name in dict.fromkeys(family):
        own = np.flatnonzero((family == name) & observed.any(axis=1))
        if keep_smallest:
            if len(own) < 2 or not np.isfinite(sizes[own]).any():
                continue
            own = own[own != own[np.nanargmin(sizes[own])]]
        hidden = np.zeros_like(observed)
        hidden[own] = observed[own]
        if hidden.any() and (observed & ~hidden).any(axis=1).sum() >= FEWEST_LEFT:
            out.append(Fold(f"lineage {name}", hidden, hidden))
    if len(out) < 2:
        raise InputError(
            f"table '{table.name}' has {len(out)} lineages that can be left out; at least 2 are needed: declare "
            "family or base_model (and params_b), or give --scheme cells"
        )
    return out


def _larger_compute(table: ScoreTable, observed: np.ndarray) -> Fold:
    compute = log_compute(table)
    known = np.isfinite(compute) & observed.any(axis=1)
    if known.sum() < 2 * FEWEST_LEFT:
        raise InputError(
            f"{known.sum()} models of table '{table.name}' have a known size and number of tokens; the compute "
            f"scheme needs {2 * FEWEST_LEFT}: give params_b and tokens_b_total (or tokens_b_<language>)"
        )
    larger = known & (compute > np.median(compute[known]))
    scored = observed & larger[:, None]
    return Fold("larger half", observed & ~(known & ~larger)[:, None], scored)


def log_compute(table: ScoreTable) -> np.ndarray:
    """log10(size x tokens in all), both in billions, (model,); NaN where either is unknown.

    Tokens: ``tokens_b_total``, else the sum over languages where all are known.
    """
    total = _column(table, "tokens_b_total")
    if table.languages:
        total = np.where(
            np.isfinite(total), total, sum(_column(table, f"tokens_b_{l}") for l in table.languages)
        )
    with np.errstate(divide="ignore", invalid="ignore"):
        out = np.log10(_column(table, "params_b") * total)
    return np.where(np.isfinite(out), out, np.nan)


def _column(table: ScoreTable, name: str) -> np.ndarray:
    frame = table.scored_models
    if name not in frame:
        return np.full(len(frame), np.nan)
    return np.asarray(frame[name].to_numpy(dtype=float, na_value=np.nan))


def masked(table: ScoreTable, hidden: np.ndarray) -> ScoreTable:
    """The table without the scores of hidden cells, their standard errors and what is known of both.

    Numbers of instances stay: they are known before a model is evaluated.
    """
    data = table.data.copy(deep=True)
    for name in ("score", "se"):
        data[name].values[hidden] = np.nan
    data["se_kind"].values[hidden] = "missing"
    covariance = table.covariance
    if covariance is not None:
        at = covariance["model"].map({m: i for i, m in enumerate(table.model_names)}).to_numpy()
        place = {b: j for j, b in enumerate(table.benchmark_names)}
        gone = np.zeros(len(covariance), dtype=bool)
        for column in ("benchmark", "benchmark_b"):
            gone |= hidden[at, covariance[column].map(place).to_numpy()]
        covariance = covariance[~gone].reset_index(drop=True)
    return replace(table, data=data, covariance=covariance)
