"""Changes to a table or to a fit whose bearing on the headline numbers is asked for, one at a time."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from factorlab.errors import InputError
from factorlab.inference.floor import zero_cells
from factorlab.lineage import build_lineage, token_sources
from factorlab.options import FitOptions
from factorlab.scores import ScoreTable

BASE = "as it is"
"""Name of the fit without any change."""

ASSUMED = ("guessed", "derived")
"""Statuses of token counts that rest on a share somebody assumed or applied."""

TIMES = (0.5, 2.0)

FROM_SCRATCH = "PT"
"""What column ``construction`` says of a model that was trained from scratch."""

KINDS = ("tokens", "lineage", "from scratch", "zeros", "pairs", "budget", "factors")

Change = dict[str, Any]


def changes(table: ScoreTable, options: FitOptions, *, families: bool = True) -> dict[str, Change]:
    """All changes that a table and a method allow, name to what is done; the first is none at all.

    Parameters
    ----------
    table : ScoreTable
    options : FitOptions
        ``method`` "pca" has no pair factors and no form of the budgets.
    families : bool
        Token counts also a family at a time.

    Returns
    -------
    dict of str to dict
        JSON-able: ``kind`` (one of `KINDS`), and what `changed` needs.
    """
    out: dict[str, Change] = {BASE: {"kind": ""}}
    parts = [
        _tokens(table, families),
        _lineages(table),
        _subsets(table),
        _zeros(table),
        _model(table, options),
    ]
    for part in parts:
        out.update(part)
    return out


def _tokens(table: ScoreTable, families: bool) -> Iterator[tuple[str, Change]]:
    """Assumed token counts halved and doubled: all of a language, then those of each family."""
    if not table.languages:
        return
    lineage = build_lineage(table.models)
    for language in table.languages:
        nodes = _assumed(table, language)
        of = list(dict.fromkeys(lineage.family[n] for n in nodes))
        for family in [None, *(of if families and len(of) > 1 else [])]:
            for times in TIMES:
                change = {"kind": "tokens", "language": language, "family": family, "times": times}
                scaled, cut = scaled_tokens(table, language, family, times)
                if scaled.equals(table.models):
                    continue
                whose = "assumed" if family is None else family
                limit = ", total at most" if cut else ""
                yield f"{language} tokens, {whose}: × {times:g}{limit}", change


def _assumed(table: ScoreTable, language: str) -> np.ndarray:
    """Nodes of the tree whose own count of a language is assumed and above 0."""
    source = token_sources(table.models, build_lineage(table.models), language)
    return np.flatnonzero(np.isin(source.status, ASSUMED) & (source.own_tokens_b > 0))


def scaled_tokens(
    table: ScoreTable, language: str, family: str | None, times: float
) -> tuple[pd.DataFrame, bool]:
    """The models table with assumed token counts multiplied, along the tree of base models.

    Parameters
    ----------
    table : ScoreTable
    language : str
    family : str or None
        Only counts of this family.
    times : float

    Returns
    -------
    models : pandas.DataFrame
        A root's count changes, and with it the totals of all that are built on it; so does an assumed count of
        a continual stage. A root's count never exceeds its ``tokens_b_total``.
    cut : bool
        Whether that limit was met.
    """
    models = table.models.copy()
    lineage = build_lineage(models)
    own = token_sources(models, lineage, language).own_tokens_b
    nodes = [n for n in _assumed(table, language) if family in (None, lineage.family[n])]
    limit = np.full(len(models), np.inf)
    if "tokens_b_total" in models:
        total = models["tokens_b_total"].to_numpy(dtype=float, na_value=np.nan)
        limit = np.where((lineage.parent < 0) & np.isfinite(total), np.fmax(total, own), np.inf)
    more = np.zeros(len(models))
    for n in nodes:
        more[n] = min(times * own[n], limit[n]) - own[n]
    line = np.array([more[n] + sum(more[a] for a in lineage.ancestors(n)) for n in range(len(models))])
    column, stage = f"tokens_b_{language}", f"cpt_tokens_b_{language}"
    models[column] = models[column].astype(float) + line
    if stage in models:
        models[stage] = models[stage].astype(float) + np.where(lineage.parent >= 0, more, 0.0)
    return models, any(times * own[n] > limit[n] for n in nodes)


def _lineages(table: ScoreTable) -> Iterator[tuple[str, Change]]:
    families = build_lineage(table.models).family_of(table.model_names)
    names = list(dict.fromkeys(families))
    if 1 < len(names) < len(families):
        for name in names:
            yield f"without lineage {name}", {"kind": "lineage", "family": str(name)}


def _subsets(table: ScoreTable) -> Iterator[tuple[str, Change]]:
    models = scratch_models(table)
    if 0 < len(models) < len(table.model_names):
        yield f"from scratch only ({len(models)} models)", {"kind": "from scratch"}


def scratch_models(table: ScoreTable) -> list[str]:
    """Scored models trained from scratch: ``construction`` says PT; where no row does, those without a base."""
    rows = table.scored_models
    if "construction" in rows and rows["construction"].eq(FROM_SCRATCH).any():
        chosen = rows["construction"].eq(FROM_SCRATCH)
    else:
        chosen = rows["base_model"].isna() if "base_model" in rows else pd.Series(True, index=rows.index)
    return [str(name) for name in rows.index[chosen.to_numpy(dtype=bool)]]


def _zeros(table: ScoreTable) -> Iterator[tuple[str, Change]]:
    count = int(zero_cells(table)[0].sum())
    if count:
        yield f"zeros taken as missing ({count} cells)", {"kind": "zeros"}


def _model(table: ScoreTable, options: FitOptions) -> Iterator[tuple[str, Change]]:
    """Other forms of the model itself."""
    factors = int(options.factors)
    if options.method == "bayes":
        declared = table.benchmarks["shared_items_group"].dropna()
        if declared.duplicated().any():
            word = "without" if options.pairs else "with"
            yield f"{word} pair factors", {"kind": "pairs", "pairs": not options.pairs}
        if table.languages and options.budget != "none":
            other = "product" if options.budget == "separate" else "separate"
            yield f"budgets {other}", {"kind": "budget", "budget": other}
    most = min(len(table.benchmark_names), len(table.model_names) - 1)
    for number in (factors - 1, factors + 1):
        if 1 <= number <= most:
            words = f"{number} factor" + ("" if number == 1 else "s")
            yield words, {"kind": "factors", "factors": number}


def changed(
    table: ScoreTable, options: FitOptions, change: Mapping[str, Any]
) -> tuple[ScoreTable, FitOptions]:
    """Table and options after one change.

    Raises
    ------
    InputError
        When a benchmark has no score left.
    """
    kind = change["kind"]
    if kind == "tokens":
        models, _ = scaled_tokens(table, change["language"], change["family"], change["times"])
        return replace(table, models=models), options
    if kind == "lineage":
        family = build_lineage(table.models).family_of(table.model_names)
        keep = [m for m, f in zip(table.model_names, family, strict=True) if f != change["family"]]
        return _of(table, keep), options
    if kind == "from scratch":
        return _of(table, scratch_models(table)), options
    if kind == "zeros":
        zero = zero_cells(table)[0]
        data = table.data.copy(deep=True)
        for name in ("score", "se"):
            data[name] = data[name].where(~zero)
        data["se_kind"] = data["se_kind"].where(~zero, "missing")
        return replace(table, data=data), options
    if kind in ("pairs", "budget", "factors"):
        return table, replace(options, **{kind: change[kind]})
    return table, options


def _of(table: ScoreTable, models: list[str]) -> ScoreTable:
    kept = table.select(models=models)
    gone = [b for b in table.benchmark_names if b not in set(kept.benchmark_names)]
    if gone:
        raise InputError(f"benchmark '{gone[0]}' has no score of the {len(models)} models that are left")
    return kept
